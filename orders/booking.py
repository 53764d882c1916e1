"""Booking what a broker reported: fills into orders and the ledger, ends into released reservations.

Every function works on locked rows in memory; `orders.updates` holds the locks and writes everything back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial

from alerts.events import Happening
from alerts.models import Severity
from alerts.notices import raise_alert
from orders.brokers.protocol import Execution, OrderReport, OrderSide, ReportedState
from orders.endings import end_order
from orders.groups import share_fill
from orders.models import Intent, Order
from orders.replace import successor_of
from orders.states import LIVE, TERMINAL, OrderEvent, OrderState, next_state
from positions import ledger
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side


class Changed:
    """What one batch touches: positions to be saved, events to be written, alerts to be raised."""

    def __init__(self, locked: dict[int, Position], orders: dict[int, Order], now: datetime) -> None:
        self.positions: dict[int, Position] = dict(locked)
        self.orders = orders
        self.happenings: list[Happening] = []
        self.alerts: list[Callable[[], object]] = []
        #: Orders that were replaced, and those that took over from them; written after the former have ended.
        self.replaced: list[Order] = []
        self.successors: list[Order] = []
        self.now = now

    def tell(self, kind: str, order: Order, **data: object) -> None:
        """Note an event about an order."""
        self.happenings.append(
            Happening(
                kind=kind,
                account_ref=order.account_id,
                position_ref=order.position_id,
                order_ref=order.pk,
                data=data,
            )
        )


def book_fill(order: Order, execution: Execution, *, changed: Changed) -> None:
    """Book one new execution into its order and its position.

    More than was ordered is real all the same: the order grows to it, and a person is called.
    """
    order.filled_quantity += execution.quantity
    if order.filled_quantity > order.quantity:
        changed.tell("order_overfilled", order, ordered=order.quantity, filled=order.filled_quantity)
        order.quantity = order.filled_quantity
        changed.alerts.append(partial(_alert_overfilled, order, now=changed.now))
    order.filled_value += execution.quantity * execution.price
    order.news = True
    changed.tell(
        "order_fill", order, quantity=execution.quantity, price=execution.price, execution_id=execution.execution_id
    )
    if order.intent == Intent.ENTRY:
        _book_entry(order, execution, changed=changed)
    else:
        _book_exit(order, execution, changed=changed)


def _book_entry(order: Order, execution: Execution, *, changed: Changed) -> None:
    position = order.position
    if position is None or position.status == PositionStatus.CLOSED:
        # a fill that comes after the position was already left is a new holding, and is protected as one
        order.position = ledger.open_position(
            account=order.account,
            instrument=order.instrument,
            side=Side.LONG if order.side == OrderSide.BUY else Side.SHORT,
            quantity=execution.quantity,
            price=execution.price,
            fee=execution.fee,
            opened_at=execution.at,
            strategy=order.strategy,
        )
        changed.positions[order.position.pk] = order.position
        changed.tell("position_opened", order, quantity=execution.quantity, price=execution.price)
        return
    ledger.add_entry_fill(position, quantity=execution.quantity, price=execution.price, fee=execution.fee)


def _book_exit(order: Order, execution: Execution, *, changed: Changed) -> None:
    position = order.position
    assert position is not None  # noqa: S101 - the database refuses an exit without one
    released = min(order.reserved, execution.quantity)
    order.reserved -= released
    if order.group:
        owed = execution.quantity - released
        released += share_fill(order, quantity=execution.quantity, owed=owed, changed=changed)
    was = position.status
    held = min(execution.quantity, position.remaining)
    if held < execution.quantity:
        beyond = execution.quantity - held
        changed.tell("position_oversold", order, beyond=beyond, price=execution.price)
        changed.alerts.append(partial(_alert_oversold, order, beyond, now=changed.now))
    if held <= 0:
        ledger.release(position, quantity=released)
        return
    ledger.add_exit_fill(
        position,
        quantity=held,
        price=execution.price,
        fee=execution.fee,
        at=execution.at,
        order_id=order.pk,
        reason=order.reason,
        released=released,
    )
    if order.state in TERMINAL:
        _withdraw_excess(position, changed=changed)
    if position.status == PositionStatus.CLOSED and was != PositionStatus.CLOSED:
        changed.tell("position_closed", order, realized_pnl=position.realized_pnl, reason=order.reason)


def _withdraw_excess(position: Position, *, changed: Changed) -> None:
    """Take back what unsent exits would sell beyond the remainder: a fill heard after its order's end has sold it."""
    for other in (
        Order.objects.select_for_update(of=("self",))
        .select_related("instrument", "account")
        .filter(position=position, intent=Intent.EXIT, state__in=LIVE)
        .exclude(pk__in=changed.orders)
        .order_by("pk")
    ):
        other.position = position
        changed.orders[other.pk] = other
    live = [order for order in changed.orders.values() if order.position_id == position.pk and order.reserved > 0]
    excess = sum((order.reserved for order in live), Decimal(0)) - position.remaining
    for order in sorted(live, key=lambda order: (-order.urgency, -order.pk)):
        if excess <= 0 or order.state != OrderState.PENDING:
            continue
        taken = min(excess, order.reserved)
        excess -= taken
        order.reserved -= taken
        changed.tell("exit_shrunk", order, taken=taken, quantity=order.quantity - taken)
        if order.reserved > 0:
            order.quantity -= taken
            continue
        order.state = next_state(OrderState.PENDING, OrderEvent.CANCELLED)
        order.ended_at = changed.now
        order.news = True


def book_end(order: Order, report: OrderReport, *, changed: Changed) -> None:
    """Note the end of an order and free what it had still reserved; who replaced it takes that over."""
    end_order(order, now=changed.now)
    if report.state is ReportedState.REPLACED and order.state == OrderState.CANCELLED:
        successor = successor_of(order, report, now=changed.now)
        order.cancel_asked_at = order.cancel_asked_at or changed.now  # not ended by the broker: nothing follows
        order.cancel_for = ""
        order.replacing = {}
        changed.replaced.append(order)
        if successor is not None:
            changed.successors.append(successor)
    changed.tell(
        f"order_{order.state}",
        order,
        filled=order.filled_quantity,
        average_price=order.average_fill_price,
        reason=report.reason,
    )


def _alert_oversold(order: Order, beyond: Decimal, *, now: datetime) -> None:
    raise_alert(
        kind="position_oversold",
        severity=Severity.CRITICAL,
        title=f"Position {order.position_id} in {order.instrument} was sold beyond its size",
        message=f"Order {order.pk} filled {beyond:f} more than was left of it; what there was is booked. The account "
        f"now holds {beyond:f} the other way: close that at the broker.",
        dedupe_key=f"position_oversold:{order.position_id}",
        requires_action=True,
        data={"beyond": f"{beyond:f}"},
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )


def _alert_overfilled(order: Order, *, now: datetime) -> None:
    raise_alert(
        kind="order_overfilled",
        severity=Severity.CRITICAL,
        title=f"The broker filled more than order {order.pk} asked for",
        message=f"It filled {order.filled_quantity:f} {order.instrument}, all of which is booked. Compare the position "
        "with the broker.",
        dedupe_key=f"order_overfilled:{order.pk}",
        requires_action=True,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
