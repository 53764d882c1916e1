"""What stands in the way of an exit at the broker: orders of ours are called off, anybody else's call a person."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from django.db.models import Q, QuerySet

from alerts.models import Severity
from alerts.notices import raise_alert
from orders.cancel import NotCancellable, request_cancel
from orders.errors import Refused
from orders.models import CancelFor, Intent, Order
from orders.states import LIVE, OrderState

log = logging.getLogger(__name__)


def make_room(order: Order, error: Refused, *, now: datetime) -> int:
    """Ask for the end of our own orders that an exit was refused for, and return how many were asked.

    Those are entries that still work in its instrument and exits of its own position that are less urgent, or rest.
    Outside of any transaction; a crash in between is healed by the next refusal.
    """
    asked = 0
    for pk in _ours(order).values_list("pk", flat=True):
        try:
            request_cancel(
                order_id=pk,
                now=now,
                actor="orders",
                why=f"order {order.pk} is refused for it",
                cancel_for=CancelFor.ROOM,
            )
            asked += 1
        except NotCancellable as reason:
            log.info("not_called_off order_id=%s why=%s", pk, reason)
    foreign = _foreign(order, error.related_orders)
    if foreign or (asked == 0 and order.held_tries > 1):
        _alert_held(order, error, foreign, now=now)
    return asked


def held_key(order_id: int) -> str:
    """Return the key of the alert that others' orders stand in the way of an exit."""
    return f"order_held:{order_id}"


def _ours(order: Order) -> QuerySet[Order]:
    entries = Q(intent=Intent.ENTRY, instrument_id=order.instrument_id)
    gives_way = Q(urgency__gt=order.urgency) | Q(resting=True)
    exits = Q(gives_way, intent=Intent.EXIT, position_id=order.position_id, waits=False)
    return (
        Order.objects.filter(entries | exits, account_id=order.account_id, state__in=LIVE)
        .exclude(pk=order.pk)
        .exclude(state=OrderState.CANCEL_REQUESTED)
        .order_by("pk")
    )


def _foreign(order: Order, broker_ids: Collection[str]) -> list[str]:
    """Return those of the named broker ids that are none of our orders."""
    known = Order.objects.filter(account_id=order.account_id, broker_order_id__in=broker_ids)
    return sorted(set(broker_ids) - set(known.values_list("broker_order_id", flat=True)))


def _alert_held(order: Order, error: Refused, foreign: Collection[str], *, now: datetime) -> None:
    named = f" ({', '.join(foreign)})" if foreign else ""
    raise_alert(
        kind="order_held",
        severity=Severity.CRITICAL,
        title=f"Orders that are not ours stand in the way of leaving {order.instrument}",
        message=f"The broker said: {error}. End them{named} at the broker: order {order.pk} is sent again until it is "
        "given up.",
        dedupe_key=held_key(order.pk),
        requires_action=True,
        data={"related_orders": list(foreign)},
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
