"""What a broker says of our orders, by whatever way we heard it: stream, poll, lookup, or the answer to a submit.

One function, idempotent and independent of order: a fill books once, a state only moves as its table says, a
reservation is freed exactly when the order ends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q

from alerts.events import write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from orders.acceptances import accept_orders, is_plain_acknowledgement
from orders.booking import Changed, book_end, book_fill
from orders.brokers.protocol import OrderReport, ReportedState
from orders.groups import adopt_legs
from orders.lanes import ring_advance_on_commit
from orders.models import Order
from orders.states import LIVE, TERMINAL, OrderEvent, OrderState, next_state
from positions import ledger
from positions.locks import lock_positions
from positions.rows import write_back

log = logging.getLogger(__name__)

_WRITTEN = (
    "state", "position", "filled_quantity", "filled_value", "reserved", "broker_order_id", "accepted_at", "heard_at",
    "ended_at", "news", "last_error", "next_attempt_at", "lease_until", "quantity", "waits",
)  # fmt: skip
_ENDS = {
    ReportedState.CANCELLED: OrderEvent.CANCELLED,
    ReportedState.REJECTED: OrderEvent.REJECTED,
    ReportedState.EXPIRED: OrderEvent.EXPIRED,
    ReportedState.REPLACED: OrderEvent.CANCELLED,
}
_RACES = 5


@dataclass(slots=True)
class Applied:
    """What a batch of reports changed."""

    fills: int = 0
    #: Reports of orders we have no row for; they are the caller's to judge.
    unmatched: list[OrderReport] = field(default_factory=list)


class _Moved(RuntimeError):
    """An entry got its position while we were waiting for locks; take them again in the right order."""


def apply_reports(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> Applied:
    """Bring orders, fills and positions up to what the broker said; repeats and old news change nothing.

    A report that cannot be booked calls a person and does not take the others of its batch along.

    :raises OperationalError: the database went away; nothing of the batch is kept, and it can be applied again.
    """
    try:
        return _apply_together(account_id=account_id, reports=reports, now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("reports_not_applied account_id=%s reports=%s", account_id, len(reports))
        if len(reports) == 1:
            _alert_not_applied(account_id, reports[0], error, now=now)
            return Applied()
    total = Applied()
    for report in reports:
        applied = apply_reports(account_id=account_id, reports=[report], now=now)
        total.fills += applied.fills
        total.unmatched += applied.unmatched
    return total


def _apply_together(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> Applied:
    reports = adopt_legs(account_id=account_id, reports=reports, now=now)
    plain = [report for report in reports if is_plain_acknowledgement(report)]
    accepted: set[str] = set()
    if plain:
        with transaction.atomic(durable=True):  # apart from the rest, which locks positions before orders
            accepted = accept_orders(account_id=account_id, reports=plain, now=now)
    rest = [
        report for report in reports if report.client_order_id not in accepted or not is_plain_acknowledgement(report)
    ]
    if not rest:
        return Applied()
    for _ in range(_RACES):
        try:
            with transaction.atomic(durable=True):
                return _apply(account_id=account_id, reports=rest, now=now)
        except _Moved:
            continue
    raise _Moved(f"positions of {len(reports)} reports kept moving")


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
    changed = Changed(positions, orders, now)
    for order, report in pairs:
        _apply_one(order, report, booked=booked, changed=changed)
    ledger.save_positions(list(changed.positions.values()))
    write_back(list(orders.values()), fields=_WRITTEN)
    for order in changed.replaced:
        order.save(update_fields=["cancel_asked_at", "cancel_for", "replacing"])
    for successor in changed.successors:
        successor.save(force_insert=True)
        changed.tell("order_replaced", successor, replaces=successor.replaces_id, quantity=successor.quantity)
    write_events(changed.happenings, now=now)
    for alert in changed.alerts:
        alert()
    if any(order.news for order in orders.values()):
        ring_advance_on_commit()
    return applied


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


def _apply_one(order: Order, report: OrderReport, *, booked: set[str], changed: Changed) -> None:
    before = OrderState(order.state)
    order.heard_at = changed.now
    order.broker_order_id = order.broker_order_id or report.broker_order_id
    for execution in report.executions:
        if execution.execution_id in booked:
            booked.discard(execution.execution_id)  # the same execution may be told twice in one batch
            book_fill(order, execution, changed=changed)
    event = _event(order, report)
    order.state = next_state(before, event)
    if report.state is ReportedState.UNRECOGNISED:
        log.error("broker_status_unrecognised order_id=%s status=%s", order.pk, report.raw_status)
        raise_alert(
            kind="broker_status_unrecognised",
            severity=Severity.WARNING,
            title=f"The broker says {report.raw_status!r} of order {order.pk}, which nobody here knows",
            message="The order is treated as still working; look at it at the broker.",
            dedupe_key=f"broker_status_unrecognised:{order.account_id}:{report.raw_status}"[:128],
            account_ref=order.account_id,
            position_ref=order.position_id,
            order_ref=order.pk,
            now=changed.now,
        )
    if report.filled_quantity > order.filled_quantity:
        order.heard_at = None  # fills we have not seen yet: sync asks for them at once
    if order.accepted_at is None and event not in (OrderEvent.REJECTED,):
        order.accepted_at = changed.now
        changed.tell("order_accepted", order, broker_order_id=order.broker_order_id)
    order.next_attempt_at = None if order.state not in (OrderState.PENDING,) else order.next_attempt_at
    order.lease_until = None
    if order.state in TERMINAL and before in LIVE:
        book_end(order, report, changed=changed)


def _event(order: Order, report: OrderReport) -> OrderEvent:
    """Return what the report means for the order; an end is believed only once all its fills are booked."""
    if order.filled_quantity >= order.quantity:
        return OrderEvent.FILLED
    complete = order.filled_quantity >= report.filled_quantity
    if complete and report.state in _ENDS:
        order.last_error = report.reason or order.last_error
        return _ENDS[report.state]
    return OrderEvent.PART_FILLED if order.filled_quantity > 0 else OrderEvent.ACCEPTED


def _alert_not_applied(account_id: int, report: OrderReport, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="report_not_applied",
        severity=Severity.CRITICAL,
        title=f"What the broker says of {report.client_order_id or report.broker_order_id} cannot be booked",
        message=f"{type(error).__name__}: {error}. The broker says {report.state}, {report.filled_quantity:f} of "
        f"{report.quantity:f} {report.symbol}. Compare the order with the broker and correct the difference there.",
        dedupe_key=f"report_not_applied:{account_id}:{report.client_order_id or report.broker_order_id}"[:128],
        requires_action=True,
        account_ref=account_id,
        now=now,
    )
