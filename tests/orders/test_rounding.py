"""Rounding: a stop is never loosened, more than is held is never sold, everything means everything."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.rounding import exit_quantity, limit_for_exit, round_quantity, round_stop, round_target
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


@pytest.mark.parametrize(
    ("_case", "pct", "held", "lot", "dust", "min_notional", "price", "quantity"),
    [
        ("large enough as it is", "50", "10", "1", "0", "100", "20", "5"),
        ("raised to what is worth enough", "10", "10", "1", "0", "50", "20", "3"),
        ("worth exactly enough", "10", "10", "1", "0", "20", "20", "1"),
        ("raised to whole lots", "1", "10", "0.25", "0", "10", "9", "1.25"),
        ("a third of a cent short is raised too", "1", "100", "1", "0", "10", "3.333", "4"),
        ("the rest would be worth too little", "60", "10", "1", "0", "50", "10", "10"),
        ("the rest would be worth just enough", "50", "10", "1", "0", "50", "10", "5"),
        ("raised, and then the rest is too little", "10", "5", "1", "0", "30", "10", "5"),
        ("all of it is worth too little", "50", "4", "1", "0", "100", "10", "4"),
        ("all of it, asked for whole", "100", "4", "1", "0", "100", "10", "4"),
        ("all of it is dust", "50", "0.0005", "0.0001", "0.001", "0", None, "0.0005"),
        ("dust, asked for whole", "100", "0.0005", "1", "0.001", "100", "10", "0.0005"),
        ("the rest would be dust", "99", "0.05", "0.0001", "0.001", "0", None, "0.05"),
        ("the rest is just no dust", "98", "0.05", "0.0001", "0.001", "0", None, "0.049"),
        ("nothing is known of its worth", "10", "10", "1", "0", "50", None, "1"),
        ("no lots", "10", "1", "0", "0", "10", "30", "0.333333333333333334"),
        ("nothing is left to sell", "50", "0", "1", "0.001", "10", "10", "0"),
    ],
)
def test_how_much_a_venue_takes(_case, pct, held, lot, dust, min_notional, price, quantity):
    got = exit_quantity(
        fraction_pct=D(pct), remaining=D(held), available=D(held), lot=D(lot), dust=D(dust),
        min_notional=D(min_notional), price=D(price) if price else None,
    )  # fmt: skip
    assert got == D(quantity)


@given(
    percentages,
    quantities,
    steps,
    st.sampled_from([D(0), D("0.001"), D(1)]),
    st.sampled_from([D(0), D(1), D("9.99")]),
    st.none() | prices,
)
def test_a_part_is_worth_selling_and_so_is_what_it_leaves(pct, held, lot, dust, min_notional, price):
    part = exit_quantity(
        fraction_pct=pct, remaining=held, available=held, lot=lot, dust=dust, min_notional=min_notional, price=price
    )
    rest = held - part
    assert 0 < part <= held
    if rest:
        assert rest >= dust
        assert not lot or part % lot == 0
        assert price is None or (part * price >= min_notional and rest * price >= min_notional)
    if pct == 100:
        assert rest == 0


@pytest.mark.parametrize(
    ("_case", "side", "level", "tick", "protective", "bps", "limit"),
    [
        ("a long's target", LONG, "102.007", "0.01", False, 150, "102.00"),
        ("a short's target", SHORT, "97.993", "0.01", False, 150, "98.00"),
        ("a target on the grid", LONG, "102", "0.01", False, 0, "102"),
        ("a long's stop", LONG, "99", "0.01", True, 150, "97.51"),
        ("a short's stop", SHORT, "101", "0.01", True, 150, "102.52"),
        ("a stop that gives no way", LONG, "99.999", "0.01", True, 0, "99.99"),
        ("a short's that gives no way", SHORT, "100.001", "0.01", True, 0, "100.01"),
        ("a penny stock's stop", LONG, "0.01", "0.01", True, 150, "0.01"),
        ("a target below a tick", LONG, "0.004", "0.01", False, 0, "0.01"),
        ("quarters", LONG, "100", "0.25", True, 200, "98.00"),
    ],
)
def test_the_limit_of_an_exit(_case, side, level, tick, protective, bps, limit):
    got = limit_for_exit(level=D(level), side=side, tick=D(tick), protective=protective, max_slippage_bps=bps)
    assert got == D(limit)


@given(prices, steps, st.sampled_from(Side), st.booleans(), st.integers(0, 5_000))
def test_a_limit_never_asks_for_more_than_its_level(price, tick, side, protective, bps):
    limit = limit_for_exit(level=price, side=side, tick=tick, protective=protective, max_slippage_bps=bps)
    given_way = side * (price - limit)
    assert limit > 0
    assert not tick or limit % tick == 0
    if limit > tick:
        allowed = price * bps / 10_000 if protective else 0
        assert allowed <= given_way < allowed + (tick or D(1))


@given(percentages, quantities, quantities, steps)
def test_never_sells_more_than_is_held_or_available(pct, remaining, available, lot):
    quantity = exit_quantity(fraction_pct=pct, remaining=remaining, available=available, lot=lot)
    assert 0 < quantity <= min(remaining, available)


@given(quantities, st.lists(percentages, max_size=8), steps)
def test_every_part_but_the_last_is_in_whole_lots(position, ladder, lot):
    remaining = position
    for pct in ladder:
        part = exit_quantity(
            fraction_pct=pct, remaining=remaining, available=remaining, lot=lot, dust=D("0.001"),
            min_notional=D(5), price=D(10),
        )  # fmt: skip
        remaining -= part
        assert remaining == 0 or not lot or part % lot == 0
        assert remaining == 0 or (remaining >= D("0.001") and remaining * 10 >= 5)


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
