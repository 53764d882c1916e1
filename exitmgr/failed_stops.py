"""Stops that were refused or not filled are never silently over: they go out again, while a person stays called."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from exitmgr.exits import HUNDRED, ExitIntent, make_exits
from exitmgr.models import Trigger
from exitmgr.rules.types import Act, Decision, ExitReason, Urgency
from exitmgr.states import TriggerStatus
from exitmgr.unfilled import UNFILLED, fresh_price
from orders.models import CancelFor, Intent, Order
from positions.locks import lock_position
from positions.states import PositionStatus

#: A stop goes out again so long after the last one ended ...
AGAIN_AFTER: Final = timedelta(seconds=60)
#: ... until it has been tried so often, or for so long.
MOST_ATTEMPTS: Final = 20
_LATELY: Final = timedelta(days=1)


def send_failed_stops_again(*, now: datetime) -> int:
    """Send stops again that were refused or not filled, a minute after their end; return how many were.

    A person was called when it ended and stays called: this goes on until the position is left, its plan has a new
    stop, a person called it off, or so many attempts have failed.

    :raises OperationalError: the database went away.
    """
    ids = list(_failed_stops(now=now).values_list("pk", "position_id"))
    sent = 0
    for order_id, position_id in ids:
        if position_id is not None:
            sent += _send_again(order_id, position_id, now=now)
    return sent


def _failed_stops(*, now: datetime) -> QuerySet[Order]:
    later = Order.objects.filter(
        position=OuterRef("position"), intent=Intent.EXIT, urgency__lte=Urgency.STOP, pk__gt=OuterRef("pk")
    )
    newer_stop = Trigger.objects.filter(
        position=OuterRef("position"),
        act=Act.EXIT,
        urgency__lte=Urgency.STOP,
        armed_at__gt=OuterRef("ended_at"),
        status__in=[TriggerStatus.ARMED, TriggerStatus.BREACHED],
    )
    unclaimed = Q(position__quantity__gt=F("position__exited") + F("position__reserved"))
    return (
        Order.objects.filter(
            ~Exists(later),
            ~Exists(newer_stop),
            unclaimed,
            Q(cancel_asked_at__isnull=True) | Q(cancel_for=CancelFor.OVERDUE),
            intent=Intent.EXIT,
            urgency__lte=Urgency.STOP,
            state__in=UNFILLED,
            resting=False,
            ended_at__gt=now - _LATELY,
            ended_at__lte=now - AGAIN_AFTER,
            attempt__lt=MOST_ATTEMPTS,
            filled_quantity__lt=F("quantity"),
            position__frozen_at__isnull=True,
        )
        .exclude(position__status=PositionStatus.CLOSED)
        .exclude(reason__in=[ExitReason.DAILY_LOSS, ExitReason.DRAWDOWN])  # their limit sends them again itself
        .order_by("pk")
    )


def _send_again(order_id: int, position_id: int, *, now: datetime) -> int:
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        order = _failed_stops(now=now).filter(pk=order_id).first()
        if order is None:
            return 0  # somebody was quicker
        intent = ExitIntent(
            position=position,
            decision=Decision(
                reason=order.reason,
                fraction_pct=HUNDRED,
                trigger_price=order.trigger_price,
                seen_price=fresh_price(position, now=now) or order.expected_price,
            ),
            at_most=order.quantity - order.filled_quantity,
            priced_at=order.priced_at,
            quote=order.priced_from,
            attempt=order.attempt + 1,
            retry_of_id=order.pk,
        )
        return len(make_exits([intent], now=now, actor="advance"))
