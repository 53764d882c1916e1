"""Comparing two ledgers finds every kind of difference, and none where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from config.demo.agreement import Books, differences
from config.demo.book import FillRow, OrderRow, PositionRow
from config.simulator import BrokerOrder, Execution, Ledger

D = Decimal
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
CASH = D(1_000_000)


def their_order(name: str, side: str, **changed: object) -> BrokerOrder:
    order = BrokerOrder(
        id=f"b-{name}", client_order_id=f"c-{name}", symbol="AAPL", side=side, quantity=D(10),
        filled_quantity=D(10), status="filled", submitted_at=NOW,
    )  # fmt: skip
    return replace(order, **changed)  # type: ignore[arg-type]


def execution(name: str, side: str, price: str) -> Execution:
    return Execution(
        id=f"e-{name}", order_id=f"b-{name}", symbol="AAPL", side=side, quantity=D(10), price=D(price), fee=D(0), at=NOW
    )


def our_order(number: int, name: str, side: str, price: str, **changed: object) -> OrderRow:
    order = OrderRow(
        id=number, position_id=1, intent="entry" if side == "buy" else "exit", reason="entry", strategy="",
        symbol="AAPL", side=side, quantity=D(10), filled_quantity=D(10), filled_value=D(10) * D(price),
        trigger_price=None, expected_price=None, state="filled", client_order_id=f"c-{name}",
        broker_order_id=f"b-{name}", attempt=1, epoch=1, tries=0, claimed_by="", created_at=NOW, priced_at=NOW,
        accepted_at=NOW,
    )  # fmt: skip
    return replace(order, **changed)  # type: ignore[arg-type]


def fill(name: str, price: str) -> FillRow:
    return FillRow(execution_id=f"e-{name}", client_order_id=f"c-{name}", quantity=D(10), price=D(price), fee=D(0))


POSITION = PositionRow(
    id=1, symbol="AAPL", side=1, quantity=D(10), exited=D(10), reserved=D(0), entry_cost=D(1000), exit_value=D(980),
    fees=D(0), realized_pnl=D(-20), status="closed", strategy="", opened_at=NOW, closed_at=NOW, bracket="completed",
    stop_price=D(99), target_prices=[],
)  # fmt: skip
BROKER = Ledger(
    orders=[their_order("in", "buy"), their_order("out", "sell")],
    executions=[execution("in", "buy", "100"), execution("out", "sell", "98")],
    positions={},
    cash=CASH - 20,
)
OURS = Books(
    orders=[our_order(1, "in", "buy", "100"), our_order(2, "out", "sell", "98")],
    fills=[fill("in", "100"), fill("out", "98")],
    positions=[POSITION],
)


def compared(broker: Ledger, ours: Books) -> list[str]:
    return list(differences(broker=broker, ours=ours, opening_cash=CASH))


Change = Callable[[Ledger, Books], tuple[Ledger, Books]]


def with_their(order: BrokerOrder) -> Change:
    return lambda broker, ours: (replace(broker, orders=[*broker.orders, order]), ours)


def instead_of_their_exit(order: BrokerOrder) -> Change:
    return lambda broker, ours: (replace(broker, orders=[broker.orders[0], order]), ours)


def test_equal_ledgers_have_no_differences():
    assert compared(BROKER, OURS) == []


def test_an_order_that_never_left_us_needs_no_order_at_the_broker():
    unsent = our_order(3, "unsent", "sell", "98", state="cancelled", broker_order_id="", filled_quantity=D(0))
    assert compared(BROKER, replace(OURS, orders=[*OURS.orders, unsent])) == []


def test_what_is_still_held_agrees_too():
    open_ = replace(POSITION, exited=D(0), exit_value=D(0), realized_pnl=D(0), status="open", closed_at=None)
    broker = replace(
        BROKER,
        orders=BROKER.orders[:1],
        executions=BROKER.executions[:1],
        positions={"AAPL": D(10)},
        cash=CASH - 1000,
    )
    assert compared(broker, Books(orders=OURS.orders[:1], fills=OURS.fills[:1], positions=[open_])) == []


@pytest.mark.parametrize(
    ("_case", "change", "said"),
    [
        ("an order placed twice", with_their(their_order("out", "sell", id="b-2")),
         "client id c-out stands for 2 orders"),
        ("an order of nobody", with_their(their_order("stray", "sell")),
         "the broker has sell 10 AAPL (c-stray), the database does not"),
        ("an order the broker lost", lambda b, o: (replace(b, orders=b.orders[:1]), o),
         "order 2 is filled in the database and unknown to the broker"),
        ("another quantity",
         instead_of_their_exit(their_order("out", "sell", quantity=D(11))),
         "order 2: quantity is 11 at the broker and 10 in the database"),
        ("another end", instead_of_their_exit(their_order("out", "sell", status="canceled")),
         "order 2 is canceled at the broker and filled in the database"),
        ("a fill not booked", lambda b, o: (b, replace(o, fills=o.fills[:1])),
         "execution e-out at the broker is not booked: 10 at 98"),
        ("a fill booked twice", lambda b, o: (b, replace(o, fills=[*o.fills, o.fills[1]])),
         "execution e-out is booked 2 times"),
        ("a fill of nobody", lambda b, o: (b, replace(o, fills=[*o.fills, fill("ghost", "98")])),
         "execution e-ghost is booked and unknown to the broker"),
        ("a fill at another price", lambda b, o: (b, replace(o, fills=[o.fills[0], fill("out", "97")])),
         "execution e-out is 10 at 98"),
        ("a holding left at the broker", lambda b, o: (replace(b, positions={"AAPL": D(5)}), o),
         "AAPL: the broker holds 5, the positions add up to 0"),
        ("cash gone", lambda b, o: (replace(b, cash=b.cash - 1), o),
         "the broker's cash moved by -21, the positions' cash flows add up to -20"),
        ("a P&L that is not the cash", lambda b, o: (b, replace(o, positions=[replace(POSITION, realized_pnl=D(-19))])),
         "the broker's cash moved by -20, the realised P&L adds up to -19"),
    ],
)  # fmt: skip
def test_each_difference_is_said(_case, change: Change, said):
    found = compared(*change(BROKER, OURS))
    assert any(text.startswith(said) for text in found), found
