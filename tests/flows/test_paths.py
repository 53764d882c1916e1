"""From an entry to its exit, through every process of the stack."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.flows.rig import STOPPED, Rig, eventually

pytestmark = pytest.mark.flow


@pytest.mark.parametrize(
    ("_case", "symbol", "side", "bid", "ask", "reason"),
    [
        ("a long at its stop", "AAPL", "long", "99.00", "99.02", "stop_loss"),
        ("a long at its target", "AAPL", "long", "102.02", "102.04", "take_profit_1"),
        ("a short at its stop", "IBM", "short", "100.97", "100.99", "stop_loss"),
        ("a short at its target", "IBM", "short", "97.97", "97.99", "take_profit_1"),
    ],
)
def test_an_entry_fills_is_guarded_and_is_left_where_its_plan_says(rig: Rig, _case, symbol, side, bid, ask, reason):
    (position_id,) = rig.hold(1, symbol, side=side)
    rig.price(symbol, bid, ask)
    rig.await_closed([position_id], seconds=20)
    rig.assert_left_once([position_id], reason)
    position = next(row for row in rig.book.positions() if row.id == position_id)
    entry, exit_ = (Decimal("100.01"), Decimal(bid)) if side == "long" else (Decimal("99.99"), Decimal(ask))
    assert position.realized_pnl == (exit_ - entry) * 10 * position.side


def test_a_price_short_of_every_level_leaves_nobody(rig: Rig):
    (position_id,) = rig.hold(1)
    for bid, ask in (("99.02", "99.04"), ("101.99", "102.01")):  # its levels are 99.0099 and 102.0102
        rig.price("AAPL", bid, ask)
        rig.await_scanned("AAPL")
    assert rig.exits([position_id]) == []
    order_id = rig.desk.exit(position_id)
    rig.await_closed([position_id], seconds=20)
    rig.assert_left_once([position_id], "manual")
    assert [row.id for row in rig.exits([position_id])] == [order_id]


def test_a_spike_between_two_scans_is_not_missed(rig: Rig):
    (position_id,) = rig.hold(1)
    for bid, ask in (STOPPED, ("99.99", "100.01")):
        rig.simulator.quote("AAPL", bid, ask)
    rig.await_closed([position_id], seconds=20)
    rig.assert_left_once([position_id])


def test_a_ladder_sells_its_share_at_each_rung_and_the_stop_takes_the_rest(rig: Rig):
    rungs = [{"pct": "1", "fraction_pct": "50"}, {"pct": "2", "fraction_pct": "50"}, {"pct": "5"}]
    (position_id,) = rig.hold(1, plan={"stop_loss": {"pct": "1"}, "take_profits": rungs})
    rig.price("AAPL", "101.10", "101.12")
    eventually(lambda: rig.reasons([position_id])[position_id] == ["take_profit_1"], seconds=20)
    rig.price("AAPL", "102.10", "102.12")
    eventually(lambda: rig.reasons([position_id])[position_id] == ["take_profit_1", "take_profit_2"], seconds=20)
    rig.price("AAPL", *STOPPED)
    rig.await_closed([position_id], seconds=20)
    assert [(row.reason, row.filled_quantity) for row in rig.exits([position_id])] == [
        ("take_profit_1", 5),
        ("take_profit_2", 2),
        ("stop_loss", 3),
    ]
    assert rig.differences() == []


def test_one_jump_over_two_rungs_closes_what_each_leaves(rig: Rig):
    rungs = [{"pct": "1", "fraction_pct": "50"}, {"pct": "2", "fraction_pct": "50"}, {"pct": "9"}]
    (position_id,) = rig.hold(1, plan={"stop_loss": {"pct": "1"}, "take_profits": rungs})
    rig.price("AAPL", "103.00", "103.02")
    eventually(lambda: len(rig.reasons([position_id])[position_id]) == 2, seconds=20)
    assert [(row.reason, row.filled_quantity) for row in rig.exits([position_id])] == [
        ("take_profit_1", 5),
        ("take_profit_2", 2),
    ]
    rig.desk.exit(position_id)
    rig.await_closed([position_id], seconds=20)
    assert rig.differences() == []


def test_sixty_positions_breached_by_one_price_are_left_once_each(rig: Rig):
    held = rig.hold(60)
    rig.price("AAPL", *STOPPED)
    rig.await_closed(held, seconds=60)
    rig.assert_left_once(held)
