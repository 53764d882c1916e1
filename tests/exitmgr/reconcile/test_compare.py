"""Comparing our books with the broker's: every kind of difference, and what is left for the next look."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from exitmgr.reconcile.compare import compare
from exitmgr.reconcile.differences import Kind, OurOrder, OurPosition, Ours, Theirs
from orders.brokers.protocol import BrokerAccount, BrokerPosition, OrderReport, OrderSide, ReportedState
from orders.client_ids import client_order_id

D = Decimal
AT = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
OUR_ID = client_order_id(account_id=1, subject="position 1", leg="1", attempt=1)


def ours(*held: tuple[str, int, str, str], **fields) -> Ours:
    """Return our side: positions as (symbol, side, remaining, average entry)."""
    positions = tuple(
        OurPosition(
            position_id=number,
            symbol=symbol,
            side=side,
            remaining=D(remaining),
            average_entry=D(average),
            opened_at=AT,
            dust=D("0.001"),
        )
        for number, (symbol, side, remaining, average) in enumerate(held, start=1)
    )
    return Ours(positions=positions, **fields)


def theirs(*held: tuple[str, str, str], orders=(), blocked=False) -> Theirs:
    """Return the broker's side: holdings as (symbol, quantity, average entry)."""
    account = BrokerAccount(account_number="1", equity=D(1), cash=D(1), buying_power=D(1), blocked=blocked)
    positions = tuple(
        BrokerPosition(symbol=symbol, quantity=D(quantity), available=D(quantity), average_entry=D(average))
        for symbol, quantity, average in held
    )
    return Theirs(positions=positions, orders=tuple(orders), account=account)


def order(client_id="mine", *, filled="0", at_broker=True, symbol="AAPL", broker_id="b1") -> OurOrder:
    """Return one live order of ours."""
    return OurOrder(
        order_id=1, client_order_id=client_id, broker_order_id=broker_id, symbol=symbol, filled=D(filled),
        at_broker=at_broker, position_id=1,
    )  # fmt: skip


def report(client_id="mine", *, filled="0", symbol="AAPL", broker_id="b1", legs=()) -> OrderReport:
    """Return what the broker says of one open order."""
    return OrderReport(
        client_order_id=client_id, broker_order_id=broker_id, state=ReportedState.WORKING, symbol=symbol,
        side=OrderSide.SELL, quantity=D(10), filled_quantity=D(filled), average_fill_price=None, at=AT,
        legs=tuple(legs),
    )  # fmt: skip


LONG = ("AAPL", 1, "10", "100")
SHORT = ("AAPL", -1, "10", "100")


@pytest.mark.parametrize(
    ("_case", "here", "there", "kind", "figures"),
    [
        ("equal", [LONG], [("AAPL", "10", "100")], None, {}),
        ("equal, another average", [LONG], [("AAPL", "10", "93.17")], None, {}),
        ("two of ours make one of theirs", [LONG, ("AAPL", 1, "5", "90")], [("AAPL", "15", "97")], None, {}),
        ("a short", [SHORT], [("AAPL", "-10", "100")], None, {}),
        ("less than dust apart", [LONG], [("AAPL", "9.9995", "100")], None, {}),
        ("a slash in the name", [("BTC/USD", 1, "1", "9")], [("BTCUSD", "1", "9")], None, {}),
        ("a row of nothing", [], [("AAPL", "0", "0")], None, {}),
        ("held there alone", [], [("AAPL", "7", "50")], Kind.UNKNOWN_HOLDING, {"here": "0", "there": "7"}),
        ("short there alone", [], [("AAPL", "-7", "50")], Kind.UNKNOWN_HOLDING, {"there": "-7"}),
        ("held here alone", [LONG], [], Kind.CLOSED_OUTSIDE, {"here": "10", "there": "0"}),
        ("less there", [LONG], [("AAPL", "6", "100")], Kind.REDUCED_OUTSIDE, {"here": "10", "there": "6"}),
        ("half sold is no split", [LONG], [("AAPL", "5", "100")], Kind.REDUCED_OUTSIDE, {}),
        ("more there", [LONG], [("AAPL", "13", "101")], Kind.SURPLUS, {"here": "10", "there": "13"}),
        ("as much bought again", [LONG], [("AAPL", "20", "101")], Kind.SURPLUS, {"like_a_split": True}),
        ("split", [LONG], [("AAPL", "40", "25")], Kind.SPLIT, {"ratio": "4:1"}),
        ("split of a short", [SHORT], [("AAPL", "-30", "33.3333")], Kind.SPLIT, {"ratio": "3:1"}),
        ("reverse split", [("AAPL", 1, "100", "1")], [("AAPL", "10", "10")], Kind.SPLIT, {"ratio": "1:10"}),
        ("fraction paid out", [("AAPL", 1, "15", "1")], [("AAPL", "1", "10")], Kind.SPLIT, {"ratio": "1:10"}),
        ("three for two", [LONG], [("AAPL", "15", "66.67")], Kind.SPLIT, {"ratio": "3:2"}),
        ("flipped", [LONG], [("AAPL", "-10", "100")], Kind.SIDE_FLIPPED, {"here": "10", "there": "-10"}),
        ("long and short, netted", [LONG, ("AAPL", -1, "4", "100")], [("AAPL", "6", "100")], None, {}),
        ("long and short, torn", [LONG, ("AAPL", -1, "4", "100")], [("AAPL", "5", "100")], Kind.TORN, {}),
        ("long and short, gone", [LONG, ("AAPL", -1, "4", "100")], [], Kind.TORN, {}),
    ],
)
def test_holdings(_case, here, there, kind, figures):
    found = compare(ours(*here), theirs(*there)).found
    assert [one.kind for one in found] == ([] if kind is None else [kind])
    for one in found:
        assert {name: one.figures.get(name) for name in figures} == figures
        assert one.position_ids == tuple(range(1, len(here) + 1))


@pytest.mark.parametrize(
    ("_case", "here", "there", "kinds"),
    [
        ("both know it", [order()], [report()], []),
        ("known by the broker's id", [order("other")], [report("named by the venue")], []),
        ("more filled there", [order()], [report(filled="3")], [Kind.MISSED_NEWS]),
        ("less filled there", [order(filled="3")], [report()], []),
        ("not sent here, open there", [order(at_broker=False)], [report()], [Kind.MISSED_NEWS]),
        ("not open there", [order()], [], [Kind.NOT_OPEN_THERE]),
        ("not sent, not there", [order(at_broker=False)], [], []),
        ("ours by its id, no row", [], [report(OUR_ID)], [Kind.ORPHAN]),
        ("somebody else's", [], [report("abc")], [Kind.FOREIGN_ORDER]),
        ("a leg of ours", [order(OUR_ID)], [report(OUR_ID, legs=[report("leg", broker_id="b2")])], []),
        (
            "a leg of ours, listed twice",
            [order(OUR_ID)],
            [report(OUR_ID, legs=[report("leg", broker_id="b2")]), report("leg", broker_id="b2")],
            [],
        ),
    ],
)
def test_orders(_case, here, there, kinds):
    found = compare(ours(orders=tuple(here)), theirs(orders=there)).found
    assert [one.kind for one in found] == kinds


def test_what_ended_here_a_moment_ago_may_still_be_listed_there():
    side = ours(ended=frozenset({OUR_ID}))
    assert compare(side, theirs(orders=[report(OUR_ID)])).found == ()


def test_a_symbol_that_moves_is_left_for_the_next_time_and_no_other():
    here = ours(LONG, ("MSFT", 1, "10", "100"), moving=frozenset({"AAPL"}))
    compared = compare(here, theirs())
    assert [(one.kind, one.symbol) for one in compared.found] == [(Kind.CLOSED_OUTSIDE, "MSFT")]
    assert compared.left_out == {"AAPL"}


@pytest.mark.parametrize("there", [[], [report(filled="4")]])
def test_a_holding_is_not_judged_before_its_orders_were_looked_up(there):
    compared = compare(ours(LONG, orders=(order(),)), theirs(orders=there))
    assert len(compared.found) == 1
    assert compared.found[0].kind in (Kind.NOT_OPEN_THERE, Kind.MISSED_NEWS)
    assert compared.left_out == {"AAPL"}


def test_a_frozen_position_is_named_as_such():
    here = ours(LONG)
    here = replace(here, positions=(replace(here.positions[0], frozen=True),))
    (found,) = compare(here, theirs(("AAPL", "6", "100"))).found
    assert found.figures["frozen"] is True


def test_a_blocked_account():
    assert [one.kind for one in compare(ours(), theirs(blocked=True)).found] == [Kind.ACCOUNT_BLOCKED]


def test_protection_that_expired_with_its_day():
    (found,) = compare(ours(expired_resting=(order(),)), theirs()).found
    assert (found.kind, found.order_id, found.position_ids) == (Kind.EXPIRED_RESTING, 1, (1,))
