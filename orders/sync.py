"""Asking the broker: the fallback behind the stream, and the repair of everything the stream did not tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from orders.brokers.protocol import Broker
from orders.cancel import send_cancel
from orders.errors import BrokerError, LeaseOver
from orders.limits import (
    CANCEL_ALERT_SECONDS,
    POLL_AFTER_SECONDS,
    POLLS_FAILED,
    REPLACE_SECONDS,
    RING_AGAIN_SECONDS,
)
from orders.models import Intent, Lane, Order
from orders.replace import drop_if_not_replaced, ref_of, send_replace
from orders.states import AT_BROKER, CLAIMABLE, OrderState
from orders.submit import BrokerFor, Connect
from orders.updates import apply_reports
from positions.models import TradingSwitch
from positions.values import TradingState

log = logging.getLogger(__name__)

POLL_LIMIT = 50
RING_LIMIT = 500


def poll_quiet_orders(*, connect: Connect, now: datetime) -> int:
    """Ask about working orders nothing was heard of lately, the most urgent first; return how many were asked about."""
    long_ago = now - timedelta(seconds=POLL_AFTER_SECONDS)
    working = Q(state__in=AT_BROKER) & (Q(heard_at__isnull=True) | Q(heard_at__lt=long_ago))
    # what no worker takes up, as its account is halted: a look-up sends nothing
    lost = Q(state=OrderState.UNKNOWN, next_attempt_at__lt=long_ago)
    quiet = Order.objects.filter(working | lost).order_by("urgency", F("heard_at").asc(nulls_first=True))
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
            if not isinstance(error, LeaseOver):  # held back by ourselves: nobody was asked
                _note_failed_poll(order, error, now=now)
            return asked
        if order.polls_failed:
            Order.objects.filter(pk=order.pk).update(polls_failed=0)
            resolve_alerts(dedupe_key=polls_failed_key(order.account_id), now=now)
    return len(orders)


def _poll(order: Order, *, broker: Broker, now: datetime) -> None:
    if order.state == OrderState.CANCEL_REQUESTED:
        send_cancel(order, broker=broker)
        if order.cancel_asked_at and order.cancel_asked_at < now - timedelta(seconds=CANCEL_ALERT_SECONDS):
            _alert_unconfirmed(order, now=now)
    error = send_replace(order, broker=broker, now=now)
    report = broker.find_order(ref_of(order))
    if report is not None:
        settle = timedelta(seconds=max(REPLACE_SECONDS, broker.capabilities.settle_after_seconds))
        drop_if_not_replaced(order, report, error, settle=settle, now=now)
        apply_reports(account_id=order.account_id, reports=[report], now=now)
        return
    if order.state == OrderState.UNKNOWN:
        return  # that it is not found proves nothing yet
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


def polls_failed_key(account_id: int) -> str:
    """Return the key of the alert that an account's broker does not answer when asked about orders."""
    return f"polls_failed:{account_id}"


def _note_failed_poll(order: Order, error: BrokerError, *, now: datetime) -> None:
    Order.objects.filter(pk=order.pk).update(polls_failed=F("polls_failed") + 1)
    if order.polls_failed + 1 < POLLS_FAILED:
        return
    raise_alert(
        kind="polls_failed",
        severity=Severity.CRITICAL,
        title=f"The broker of account {order.account_id} does not say what became of its orders",
        message=f"{error}. {order.polls_failed + 1} questions about order {order.pk} failed in a row; look at the "
        "account's working orders at the broker.",
        dedupe_key=polls_failed_key(order.account_id),
        requires_action=True,
        account_ref=order.account_id,
        order_ref=order.pk,
        now=now,
    )


def _alert_unconfirmed(order: Order, *, now: datetime) -> None:
    raise_alert(
        kind="cancel_not_confirmed",
        severity=Severity.CRITICAL,
        title=f"The broker does not confirm that order {order.pk} is called off",
        message="It is asked again every few seconds, and what the order holds stays bound until then. Cancel it "
        "at the broker.",
        dedupe_key=f"cancel_not_confirmed:{order.pk}",
        requires_action=True,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )


def distrust_account(*, account_id: int) -> int:
    """Have every working order of an account asked about at once, as after a stream was cut; return how many."""
    return Order.objects.filter(account_id=account_id, state__in=AT_BROKER).update(heard_at=None)


def _may_leave() -> Q:
    """Return what the switches let through now; the claim decides, here it only saves vain bells."""
    overall = TradingSwitch.objects.values_list("state", flat=True).first() or TradingState.ACTIVE
    exits = Q(account__trading_state__in=[TradingState.ACTIVE, TradingState.REDUCE_ONLY], intent=Intent.EXIT)
    if overall == TradingState.HALTED:
        return Q(lane=Lane.EMERGENCY)
    if overall == TradingState.REDUCE_ONLY:
        return Q(lane=Lane.EMERGENCY) | exits
    return Q(lane=Lane.EMERGENCY) | exits | Q(account__trading_state=TradingState.ACTIVE)


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
                _may_leave(),
                state__in=CLAIMABLE,
                waits=False,
                created_at__lt=now - timedelta(seconds=1),
            )
            .order_by("urgency", "pk")
            .values_list("pk", "lane")[:RING_LIMIT]
        )
        Order.objects.filter(pk__in=[pk for pk, _ in ids]).update(rung_at=now)
    return ids
