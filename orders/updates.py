"""What a broker says of our orders, by whatever way we heard it: stream, poll, lookup, or the answer to a submit.

One function, idempotent and independent of order: a fill books once, a state only moves as its table says, a
reservation is freed exactly when the order ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.db import connection, transaction
from django.db.models import Q

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from orders.brokers.protocol import Execution, OrderReport, OrderSide, ReportedState
from orders.lanes import ring_advance_on_commit
from orders.models import Intent, Order
from orders.states import LIVE, TERMINAL, OrderEvent, OrderState, next_state
from positions import ledger
from positions.locks import lock_positions
from positions.models import Position
from positions.pnl import Oversold
from positions.rows import write_back
from positions.states import PositionStatus
from positions.values import Side

log = logging.getLogger(__name__)

_WRITTEN = (
    "state", "position", "filled_quantity", "filled_value", "reserved", "broker_order_id", "accepted_at", "heard_at",
    "ended_at", "news", "last_error", "next_attempt_at", "lease_until",
)  # fmt: skip
_ENDS = {
    ReportedState.CANCELLED: OrderEvent.CANCELLED,
    ReportedState.REJECTED: OrderEvent.REJECTED,
    ReportedState.EXPIRED: OrderEvent.EXPIRED,
}
_RACES = 5


@dataclass(slots=True)
class Applied:
    """What a batch of reports changed."""

    orders: list[Order] = field(default_factory=list)
    fills: int = 0
    #: Reports of orders we have no row for; they are the caller's to judge.
    unmatched: list[OrderReport] = field(default_factory=list)


class _Moved(Exception):
    """An entry got its position while we were waiting for locks; take them again in the right order."""


def apply_reports(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> Applied:
    """Bring orders, fills and positions up to what the broker said; repeats and old news change nothing.

    :raises OperationalError: the database went away; nothing of the batch is kept, and it can be applied again.
    """
    for _ in range(_RACES):
        try:
            with transaction.atomic(durable=True):
                return _apply(account_id=account_id, reports=reports, now=now)
        except _Moved:
            continue
    raise RuntimeError(f"positions of {len(reports)} reports kept moving; they will be polled again")


def _apply(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> Applied:
    applied = Applied()
    known = _match(account_id, reports)
    positions = lock_positions(position_id for _, position_id in known.values() if position_id)
    orders = {
        order.pk: order
        for order in Order.objects.select_for_update(of=("self",))
        .select_related("instrument", "account")
        .filter(pk__in={pk for pk, _ in known.values()})
        .order_by("pk")
    }
    for order in orders.values():
        if order.position_id and order.position_id not in positions:
            raise _Moved
        if order.position_id:
            order.position = positions[order.position_id]
    pairs = []
    for report in reports:
        found = known.get(report.client_order_id) or known.get(report.broker_order_id)
        if found:
            pairs.append((orders[found[0]], report))
        else:
            applied.unmatched.append(report)
    booked = _insert_fills(pairs, now=now)
    applied.fills = len(booked)
    changed = _Changed(positions, now)
    for order, report in pairs:
        _apply_one(order, report, booked=booked, changed=changed)
    applied.orders = [order for order, _ in pairs]
    ledger.save_positions(list(changed.positions.values()))
    write_back(list({order.pk: order for order in applied.orders}.values()), fields=_WRITTEN)
    write_events(changed.happenings, now=now)
    for alert in changed.alerts:
        alert()
    if any(order.news for order in applied.orders):
        ring_advance_on_commit()
    return applied


class _Changed:
    """What one batch touches: positions to be saved, events to be written, alerts to be raised."""

    def __init__(self, locked: dict[int, Position], now: datetime) -> None:
        self.positions: dict[int, Position] = dict(locked)
        self.happenings: list[Happening] = []
        self.alerts: list[Callable[[], object]] = []
        self.now = now

    def tell(self, kind: str, order: Order, **data: object) -> None:
        self.happenings.append(
            Happening(
                kind=kind,
                account_ref=order.account_id,
                position_ref=order.position_id,
                order_ref=order.pk,
                data=data,
            )
        )


def _match(account_id: int, reports: Sequence[OrderReport]) -> dict[str, tuple[int, int | None]]:
    """Return (order id, position id) by client id and by broker id, without locks."""
    client_ids = {report.client_order_id for report in reports if report.client_order_id}
    broker_ids = {report.broker_order_id for report in reports if report.broker_order_id}
    rows = Order.objects.filter(
        Q(client_order_id__in=client_ids) | Q(broker_order_id__in=broker_ids), account_id=account_id
    ).values_list("pk", "position_id", "client_order_id", "broker_order_id")
    known: dict[str, tuple[int, int | None]] = {}
    for pk, position_id, client_id, broker_id in rows:
        known[client_id] = (pk, position_id)
        if broker_id:
            known[broker_id] = (pk, position_id)
    return known


def _insert_fills(pairs: Sequence[tuple[Order, OrderReport]], *, now: datetime) -> set[str]:
    """Journal executions and return the ids of those that were new; the unique key decides, not a look before."""
    rows = [(order, execution) for order, report in pairs for execution in report.executions]
    if not rows:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders_fill (order_id, account_id, execution_id, quantity, price, fee, filled_at, booked_at)
            SELECT o, a, e, q, p, f, t, %s
              FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::numeric[], %s::numeric[], %s::numeric[],
                          %s::timestamptz[]) AS new (o, a, e, q, p, f, t)
            ON CONFLICT (account_id, execution_id) DO NOTHING
            RETURNING execution_id
            """,
            [
                now,
                [order.pk for order, _ in rows],
                [order.account_id for order, _ in rows],
                [execution.execution_id for _, execution in rows],
                [execution.quantity for _, execution in rows],
                [execution.price for _, execution in rows],
                [execution.fee for _, execution in rows],
                [execution.at for _, execution in rows],
            ],
        )
        return {execution_id for (execution_id,) in cursor.fetchall()}


def _apply_one(order: Order, report: OrderReport, *, booked: set[str], changed: _Changed) -> None:
    before = OrderState(order.state)
    order.heard_at = changed.now
    order.broker_order_id = order.broker_order_id or report.broker_order_id
    for execution in report.executions:
        if execution.execution_id in booked:
            booked.discard(execution.execution_id)  # the same execution may be told twice in one batch
            _book(order, execution, changed=changed)
    event = _event(order, report)
    order.state = next_state(before, event)
    if report.state is ReportedState.UNRECOGNISED:
        log.error("broker_status_unrecognised order_id=%s status=%s", order.pk, report.raw_status)
    if report.filled_quantity > order.filled_quantity:
        order.heard_at = None  # fills we have not seen yet: sync asks for them at once
    if order.accepted_at is None and event not in (OrderEvent.REJECTED,):
        order.accepted_at = changed.now
        changed.tell("order_accepted", order, broker_order_id=order.broker_order_id)
    order.next_attempt_at = None if order.state not in (OrderState.PENDING,) else order.next_attempt_at
    order.lease_until = None
    if order.state in TERMINAL and before in LIVE:
        _end(order, report, changed=changed)


def _event(order: Order, report: OrderReport) -> OrderEvent:
    """Return what the report means for the order; an end is believed only once all its fills are booked."""
    if order.filled_quantity >= order.quantity:
        return OrderEvent.FILLED
    complete = order.filled_quantity >= report.filled_quantity
    if complete and report.state in _ENDS:
        order.last_error = report.reason or order.last_error
        return _ENDS[report.state]
    return OrderEvent.PART_FILLED if order.filled_quantity > 0 else OrderEvent.ACCEPTED


def _book(order: Order, execution: Execution, *, changed: _Changed) -> None:
    order.filled_quantity += execution.quantity
    order.filled_value += execution.quantity * execution.price
    order.news = True
    changed.tell(
        "order_fill", order, quantity=execution.quantity, price=execution.price, execution_id=execution.execution_id
    )
    if order.intent == Intent.ENTRY:
        _book_entry(order, execution, changed=changed)
    else:
        _book_exit(order, execution, changed=changed)


def _book_entry(order: Order, execution: Execution, *, changed: _Changed) -> None:
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


def _book_exit(order: Order, execution: Execution, *, changed: _Changed) -> None:
    position = order.position
    assert position is not None  # noqa: S101 - the database refuses an exit without one
    released = min(order.reserved, execution.quantity)
    order.reserved -= released
    was = position.status
    try:
        ledger.add_exit_fill(
            position,
            quantity=execution.quantity,
            price=execution.price,
            fee=execution.fee,
            at=execution.at,
            order_id=order.pk,
            reason=order.reason,
            released=released,
        )
    except Oversold as error:
        ledger.release(position, quantity=released)
        changed.tell("position_oversold", order, error=str(error), price=execution.price)
        changed.alerts.append(lambda: _alert_oversold(order, str(error), now=changed.now))
        return
    if position.status == PositionStatus.CLOSED and was != PositionStatus.CLOSED:
        changed.tell("position_closed", order, realized_pnl=position.realized_pnl, reason=order.reason)


def _end(order: Order, report: OrderReport, *, changed: _Changed) -> None:
    order.ended_at = changed.now
    order.news = True
    position = order.position
    if order.intent == Intent.EXIT and position is not None:
        released, order.reserved = order.reserved, Decimal(0)
        ledger.release(position, quantity=released)
    changed.tell(
        f"order_{order.state}",
        order,
        filled=order.filled_quantity,
        average_price=order.average_fill_price,
        reason=report.reason,
    )


def _alert_oversold(order: Order, error: str, *, now: datetime) -> None:
    raise_alert(
        kind="position_oversold",
        severity=Severity.CRITICAL,
        title=f"Position {order.position_id} in {order.instrument} was sold beyond its size",
        message=f"{error}. Compare the position with the broker and correct the difference there.",
        dedupe_key=f"position_oversold:{order.position_id}",
        requires_action=True,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
