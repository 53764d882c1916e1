"""Rounding: a stop is never loosened, more than is held is never sold, everything means everything."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.rounding import exit_quantity, round_quantity, round_stop, round_target
from positions.values import Side

LONG, SHORT = Side.LONG, Side.SHORT
D = Decimal

steps = st.sampled_from(
    [D(text) for text in ("0", "1", "100", "0.5", "0.25", "0.05", "0.01", "0.0001", "1e-9", "1e-18")]
)
prices = st.decimals("0.0001", "1000000", places=9)
quantities = st.decimals("0.000000001", "1000000000", places=9)
percentages = st.decimals("0.01", "100", places=2)


@pytest.mark.parametrize(
    ("_case", "side", "price", "tick", "stop", "target"),
    [
        ("on the grid", LONG, "99.50", "0.01", "99.50", "99.50"),
        ("on the grid, short", SHORT, "99.50", "0.01", "99.50", "99.50"),
        ("between ticks", LONG, "99.504", "0.01", "99.51", "99.50"),
        ("between ticks, short", SHORT, "99.504", "0.01", "99.50", "99.51"),
        ("a hair above a tick", LONG, "99.500000001", "0.01", "99.51", "99.50"),
        ("quarters", LONG, "100.30", "0.25", "100.50", "100.25"),
        ("a tick that is no power of ten", SHORT, "1.00", "0.03", "0.99", "1.02"),
        ("no grid", LONG, "99.504", "0", "99.504", "99.504"),
    ],
)
def test_prices_on_the_grid(_case, side, price, tick, stop, target):
    assert round_stop(D(price), tick=D(tick), side=side) == D(stop)
    assert round_target(D(price), tick=D(tick), side=side) == D(target)


@given(prices, steps, st.sampled_from(Side))
def test_a_stop_is_never_loosened_and_moves_less_than_a_tick(price, tick, side):
    tightened = side * (round_stop(price, tick=tick, side=side) - price)
    assert 0 <= tightened < (tick or D(1))
    assert not tick or round_stop(price, tick=tick, side=side) % tick == 0


@given(prices, steps, st.sampled_from(Side))
def test_a_target_never_moves_away_and_moves_less_than_a_tick(price, tick, side):
    nearer = side * (price - round_target(price, tick=tick, side=side))
    assert 0 <= nearer < (tick or D(1))


@given(prices, steps)
def test_a_short_rounds_its_stop_as_a_long_its_target(price, tick):
    assert round_stop(price, tick=tick, side=SHORT) == round_target(price, tick=tick, side=LONG)
    assert round_stop(price, tick=tick, side=LONG) == round_target(price, tick=tick, side=SHORT)


@given(quantities, steps)
def test_a_quantity_is_rounded_down_to_whole_lots(quantity, lot):
    rounded = round_quantity(quantity, lot=lot)
    assert 0 <= quantity - rounded < (lot or D(1))
    assert not lot or rounded % lot == 0


def test_a_quantity_a_hair_below_a_lot_is_not_rounded_up():
    assert round_quantity(D("2.99999999999999999999999999999999"), lot=D(1)) == 2


def test_every_number_a_column_can_hold_can_be_rounded():
    widest = D("99999999999999999999.999999999999999999")
    assert round_quantity(widest, lot=D("1e-18")) == widest


@pytest.mark.parametrize(
    ("_case", "pct", "remaining", "available", "lot", "quantity"),
    [
        ("half", "50", "10", "10", "1", "5"),
        ("half of an odd lot", "50", "7", "7", "1", "3"),
        ("all", "100", "7", "7", "1", "7"),
        ("all, to the last crumb of a lot", "100", "7.3", "7.3", "1", "7.3"),
        ("all that is not reserved", "100", "7", "4", "1", "4"),
        ("never more than remains", "100", "7", "9", "1", "7"),
        ("a part never more than available", "50", "10", "3", "1", "3"),
        ("and then in whole lots", "50", "10", "3.7", "1", "3"),
        ("a part below one lot sells one", "10", "5", "5", "1", "1"),
        ("or the rest where it is less", "10", "0.4", "0.4", "1", "0.4"),
        ("a fraction", "33", "1", "1", "0.001", "0.330"),
        ("no lots", "33", "0.5", "0.5", "0", "0.165"),
        (
            "no lots, and a part that never ends",
            "33.33",
            "0.0000000000000001",
            "1",
            "0",
            "0.000000000000000033",
        ),
        ("all reserved", "50", "10", "0", "1", "0"),
        ("all of it reserved", "100", "10", "0", "1", "0"),
        ("more reserved than remains", "100", "10", "-1", "1", "0"),
        ("nothing remains", "50", "0", "0", "1", "0"),
    ],
)
def test_how_much_to_sell(_case, pct, remaining, available, lot, quantity):
    got = exit_quantity(fraction_pct=D(pct), remaining=D(remaining), available=D(available), lot=D(lot))
    assert got == D(quantity)


@given(percentages, quantities, quantities, steps)
def test_never_sells_more_than_is_held_or_available(pct, remaining, available, lot):
    quantity = exit_quantity(fraction_pct=pct, remaining=remaining, available=available, lot=lot)
    assert 0 < quantity <= min(remaining, available)


@given(quantities, st.lists(percentages, max_size=8), steps)
def test_rungs_never_exceed_the_position_and_the_last_leaves_no_dust(position, ladder, lot):
    remaining, sold = position, D(0)
    for pct in [*ladder, D(100)]:
        part = exit_quantity(fraction_pct=pct, remaining=remaining, available=remaining, lot=lot)
        remaining -= part
        sold += part
        assert remaining >= 0
        assert sold <= position
    assert (remaining, sold) == (0, position)
