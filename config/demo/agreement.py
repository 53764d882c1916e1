"""Owns the question whether broker and database tell the same story. Pure: two ledgers in, differences in words out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from config.demo.book import Book, FillRow, OrderRow, PositionRow
from config.simulator import BrokerOrder, Ledger, Simulator

ZERO = Decimal(0)
#: Our word for the end of an order, by the broker's; any other status of theirs means that it is live.
_ENDED = {"filled": "filled", "canceled": "cancelled", "rejected": "rejected", "expired": "expired"}
_AT_BROKER = frozenset({"submitted", "partially_filled", "cancel_requested", "filled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Our side: everything the database holds of orders, fills and positions."""

    orders: Sequence[OrderRow]
    fills: Sequence[FillRow]
    positions: Sequence[PositionRow]


def compare_now(*, simulator: Simulator, book: Book, opening_cash: Decimal) -> list[str]:
    """Read both sides and return their differences; call it while nothing is under way."""
    broker = simulator.ledger()
    ours = Books(orders=book.orders(), fills=book.fills(), positions=book.positions())
    return list(differences(broker=broker, ours=ours, opening_cash=opening_cash))


def differences(*, broker: Ledger, ours: Books, opening_cash: Decimal) -> Iterator[str]:
    """Yield every way in which the two disagree, in words: orders, executions, holdings, cash."""
    yield from _orders(broker, ours)
    yield from _executions(broker, ours)
    yield from _holdings(broker, ours)
    yield from _cash(broker, ours, opening_cash=opening_cash)


def _orders(broker: Ledger, ours: Books) -> Iterator[str]:
    theirs = {order.client_order_id: order for order in broker.orders}
    counted = Counter(order.client_order_id for order in broker.orders)
    for client_id, count in counted.items():
        if count > 1:
            yield f"client id {client_id} stands for {count} orders at the broker"
    known = {order.client_order_id: order for order in ours.orders}
    for client_id in theirs.keys() - known.keys():
        order = theirs[client_id]
        yield f"the broker has {order.side} {order.quantity:f} {order.symbol} ({client_id}), the database does not"
    for client_id, row in known.items():
        if client_id in theirs:
            yield from _order(theirs[client_id], row)
        elif row.broker_order_id or row.state in _AT_BROKER or row.filled_quantity:
            yield f"order {row.id} is {row.state} in the database and unknown to the broker"


def _order(theirs: BrokerOrder, row: OrderRow) -> Iterator[str]:
    for name, their_value, our_value in (
        ("id", theirs.id, row.broker_order_id),
        ("symbol", theirs.symbol, row.symbol),
        ("side", theirs.side, row.side),
        ("quantity", theirs.quantity, row.quantity),
        ("filled quantity", theirs.filled_quantity, row.filled_quantity),
    ):
        if their_value != our_value:
            yield f"order {row.id}: {name} is {their_value} at the broker and {our_value} in the database"
    ended = _ENDED.get(theirs.status)
    agrees = row.state == ended if ended else row.state in _AT_BROKER - {"filled"}
    if not agrees:
        yield f"order {row.id} is {theirs.status} at the broker and {row.state} in the database"


def _executions(broker: Ledger, ours: Books) -> Iterator[str]:
    client_ids = {order.id: order.client_order_id for order in broker.orders}
    theirs = {e.id: (client_ids.get(e.order_id), e.quantity, e.price, e.fee) for e in broker.executions}
    counted = Counter(fill.execution_id for fill in ours.fills)
    booked = {f.execution_id: (f.client_order_id, f.quantity, f.price, f.fee) for f in ours.fills}
    for execution_id, count in counted.items():
        if count > 1:
            yield f"execution {execution_id} is booked {count} times"
    for execution_id in theirs.keys() | booked.keys():
        their_fill, our_fill = theirs.get(execution_id), booked.get(execution_id)
        if our_fill is None:
            yield f"execution {execution_id} at the broker is not booked: {_told(their_fill)}"
        elif their_fill is None:
            yield f"execution {execution_id} is booked and unknown to the broker: {_told(our_fill)}"
        elif their_fill != our_fill:
            yield f"execution {execution_id} is {_told(their_fill)} at the broker, booked as {_told(our_fill)}"


def _told(fill: tuple[str | None, Decimal, Decimal, Decimal] | None) -> str:
    if fill is None:
        return "nothing"
    client_id, quantity, price, fee = fill
    return f"{quantity:f} at {price:f}, fee {fee:f}, of {client_id}"


def _holdings(broker: Ledger, ours: Books) -> Iterator[str]:
    held: dict[str, Decimal] = defaultdict(Decimal)
    for position in ours.positions:
        held[position.symbol] += position.side * (position.quantity - position.exited)
    for symbol in sorted(held.keys() | broker.positions.keys()):
        theirs, book = broker.positions.get(symbol, ZERO), held[symbol]
        if theirs != book:
            yield f"{symbol}: the broker holds {theirs:f}, the positions add up to {book:f}"


def _cash(broker: Ledger, ours: Books, *, opening_cash: Decimal) -> Iterator[str]:
    """Compare what the broker's cash gained with what the positions say came in and went out.

    Once every position is closed that sum is the realised P&L, which is compared as well.
    """
    gained = broker.cash - opening_cash
    flows = sum((p.side * (p.exit_value - p.entry_cost) - p.fees for p in ours.positions), ZERO)
    if gained != flows:
        yield f"the broker's cash moved by {gained:f}, the positions' cash flows add up to {flows:f}"
    if all(position.exited == position.quantity for position in ours.positions):
        realized = sum((position.realized_pnl for position in ours.positions), ZERO)
        if gained != realized:
            yield f"the broker's cash moved by {gained:f}, the realised P&L adds up to {realized:f}"
