"""Asking the broker: the fallback behind the stream, and the repair of everything the stream did not tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q

from alerts.models import Severity
from alerts.notices import raise_alert
from orders.brokers.protocol import Broker, OrderRef
from orders.cancel import send_cancel
from orders.errors import BrokerError
from orders.limits import POLL_AFTER_SECONDS, RING_AGAIN_SECONDS
from orders.models import Intent, Lane, Order
from orders.states import AT_BROKER, CLAIMABLE, OrderState
from orders.submit import BrokerFor, Connect
from orders.updates import apply_reports
from positions.values import TradingState

log = logging.getLogger(__name__)

POLL_LIMIT = 50
RING_LIMIT = 500


def poll_quiet_orders(*, connect: Connect, now: datetime) -> int:
    """Ask about working orders nothing was heard of lately, the most urgent first; return how many were asked about."""
    quiet = Order.objects.filter(
        Q(heard_at__isnull=True) | Q(heard_at__lt=now - timedelta(seconds=POLL_AFTER_SECONDS)), state__in=AT_BROKER
    ).order_by("urgency", F("heard_at").asc(nulls_first=True))
    account_ids = list(quiet.order_by("account_id").values_list("account_id", flat=True).distinct())
    broker_for = connect(account_ids)
    return sum(
        _poll_account(list(quiet.filter(account_id=account_id)[:POLL_LIMIT]), broker_for=broker_for, now=now)
        for account_id in account_ids
    )


def _poll_account(orders: Sequence[Order], *, broker_for: BrokerFor, now: datetime) -> int:
    """Ask about orders of one account until its broker fails to answer: a dead one must not hold up the others."""
    for asked, order in enumerate(orders, start=1):
        try:
            _poll(order, broker=broker_for(order.account_id), now=now)
        except BrokerError as error:
            log.warning("poll_failed order_id=%s error=%s", order.pk, error)
            return asked
    return len(orders)


def _poll(order: Order, *, broker: Broker, now: datetime) -> None:
    if order.state == OrderState.CANCEL_REQUESTED:
        send_cancel(order, broker=broker)
    report = broker.find_order(OrderRef(client_order_id=order.client_order_id, broker_order_id=order.broker_order_id))
    if report is not None:
        apply_reports(account_id=order.account_id, reports=[report], now=now)
        return
    Order.objects.filter(pk=order.pk).update(heard_at=now)
    raise_alert(
        kind="order_unknown_to_broker",
        severity=Severity.CRITICAL,
        title=f"Order {order.pk} is working here but unknown to the broker",
        message=f"The broker has no order with client id {order.client_order_id}. Check the account at the broker.",
        dedupe_key=f"order_unknown_to_broker:{order.pk}",
        requires_action=True,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )


def distrust_account(*, account_id: int) -> int:
    """Have every working order of an account asked about at once, as after a stream was cut; return how many."""
    return Order.objects.filter(account_id=account_id, state__in=AT_BROKER).update(heard_at=None)


def due_orders(*, now: datetime) -> list[tuple[int, str]]:
    """Return (id, lane) of orders that should be on their way and that nobody holds, the most urgent first.

    Each is handed out at most every two seconds, so that a long lane is not filled with echoes of itself.
    """
    again = now - timedelta(seconds=RING_AGAIN_SECONDS)
    with transaction.atomic():
        ids = list(
            Order.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
            .filter(
                Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=now),
                Q(lease_until__isnull=True) | Q(lease_until__lt=now),
                Q(rung_at__isnull=True) | Q(rung_at__lt=again),
                Q(lane=Lane.EMERGENCY)
                | Q(account__trading_state=TradingState.ACTIVE)
                | Q(account__trading_state=TradingState.REDUCE_ONLY, intent=Intent.EXIT),
                state__in=CLAIMABLE,
                created_at__lt=now - timedelta(seconds=1),
            )
            .order_by("urgency", "pk")
            .values_list("pk", "lane")[:RING_LIMIT]
        )
        Order.objects.filter(pk__in=[pk for pk, _ in ids]).update(rung_at=now)
    return ids
