"""What becomes of an order the broker did not take: released for a later try, unknown, or given up with an alert."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from orders.endings import end_order, lock_order
from orders.errors import (
    AccountRefused,
    BrokerError,
    LeaseOver,
    NeverProven,
    NotSent,
    OutcomeUnknown,
    RefusalKind,
    Refused,
    StillUnknown,
)
from orders.in_the_way import make_room
from orders.lanes import ring_advance_on_commit
from orders.limits import (
    HELD_ATTEMPTS,
    HELD_CEILING_SECONDS,
    HELD_SECONDS,
    QUARANTINE_RECHECK_SECONDS,
    UNKNOWN_ALERT_SECONDS,
    UNKNOWN_RECHECK_SECONDS,
    UNREACHABLE_CEILING_SECONDS,
    backoff_seconds,
)
from orders.models import Intent, Order
from orders.states import OrderEvent, OrderState, next_state
from positions import ledger
from positions.sessions import NoSessions, next_open

log = logging.getLogger(__name__)

#: Stops and what is more urgent: the room above sends them again after they were given up.
_STOP = 10

_WRITTEN = [
    "state",
    "tries",
    "next_attempt_at",
    "lease_until",
    "last_error",
    "reserved",
    "ended_at",
    "news",
    "maybe_sent_at",
    "waits",
    "held_tries",
    "quarantined_at",
]


def settle_failure(*, order_id: int, epoch: int, error: BrokerError, now: datetime) -> OrderState | None:
    """Record a failed try and return the order's new state, or None when the claim is no longer ours.

    `NotSent` and a refusal with tries left go back to pending with a later attempt; an unknown outcome is looked up
    before anything else; the last refusal cancels the order and calls a person.
    """
    with transaction.atomic(durable=True):
        order = lock_order(order_id)
        if order.epoch != epoch or order.state != OrderState.SUBMITTING:
            log.warning("settle_of_stale_claim order_id=%s epoch=%s now=%s", order_id, epoch, order.epoch)
            return None
        event = _decide(order, error, now=now)
        order.state = next_state(OrderState.SUBMITTING, event)
        order.lease_until = None
        order.last_error = str(error)
        if event is OrderEvent.GAVE_UP:
            freed = end_order(order, now=now)
            if freed is not None:
                ledger.save_positions([freed])
            _alert_given_up(order, error, now=now)
            ring_advance_on_commit()
        elif order.epoch >= order.retry_attempts and isinstance(error, NotSent) and not isinstance(error, LeaseOver):
            _alert_unreachable(order, error, now=now)
        elif event is OrderEvent.LOST and (order.quarantined_at or _is_overdue(order, now=now)):
            _alert_outcome_unknown(order, error, now=now)
        order.save(update_fields=_WRITTEN)
        write_events([_told(order, event, error)], now=now)
    if isinstance(error, Refused) and _is_in_the_way(order, error):
        make_room(order, error, now=now)
    return OrderState(order.state)


def _decide(order: Order, error: BrokerError, *, now: datetime) -> OrderEvent:
    if isinstance(error, OutcomeUnknown):
        if not isinstance(error, StillUnknown):
            order.maybe_sent_at = now
        if isinstance(error, NeverProven):
            order.quarantined_at = order.quarantined_at or now
            order.next_attempt_at = now + timedelta(seconds=QUARANTINE_RECHECK_SECONDS)
            return OrderEvent.LOST
        order.next_attempt_at = now + timedelta(seconds=UNKNOWN_RECHECK_SECONDS)
        return OrderEvent.LOST
    if isinstance(error, NotSent):
        # nobody is there: that says nothing against the order, so it costs no try and never gives up
        wait = error.retry_after or backoff_seconds(tries=order.epoch, base=1.0, ceiling=UNREACHABLE_CEILING_SECONDS)
        order.next_attempt_at = now + timedelta(seconds=wait)
        return OrderEvent.RELEASED
    assert isinstance(error, Refused)  # noqa: S101 - the third of three kinds
    if _is_put_off(order, error, now=now):
        return OrderEvent.RELEASED
    order.tries += 1
    if error.permanent or order.tries >= order.retry_attempts:
        return OrderEvent.GAVE_UP
    wait = backoff_seconds(tries=order.tries, base=order.retry_delay_seconds)
    order.next_attempt_at = now + timedelta(seconds=wait)
    return OrderEvent.RELEASED


def _is_put_off(order: Order, error: Refused, *, now: datetime) -> bool:
    """Give a refusal that says nothing against the order a later time; return whether it was one: it costs no try."""
    wait: float | None = None
    if error.retry_after is not None or error.kind is RefusalKind.RATE_LIMITED:
        # told to wait, with or without a time: nobody looked at the order
        wait = error.retry_after or backoff_seconds(
            tries=order.epoch, base=order.retry_delay_seconds, ceiling=UNREACHABLE_CEILING_SECONDS
        )
    elif error.kind is RefusalKind.MARKET_CLOSED and order.intent == Intent.EXIT:
        order.next_attempt_at = _opening(order, now=now)
        return True
    elif _is_in_the_way(order, error) and order.held_tries < HELD_ATTEMPTS:
        order.held_tries += 1
        wait = backoff_seconds(tries=order.held_tries, base=HELD_SECONDS, ceiling=HELD_CEILING_SECONDS)
    if wait is not None:
        order.next_attempt_at = now + timedelta(seconds=wait)
    return wait is not None


def _opening(order: Order, *, now: datetime) -> datetime:
    soon = now + timedelta(seconds=UNREACHABLE_CEILING_SECONDS)
    try:
        return max(next_open(order.instrument.calendar, now), soon)
    except NoSessions:
        return soon


def _is_in_the_way(order: Order, error: BrokerError) -> bool:
    """Return whether an exit was refused for what other orders at the broker hold or do, which can be ended."""
    return (
        isinstance(error, Refused)
        and order.intent == Intent.EXIT
        and not error.permanent
        and error.kind in (RefusalKind.HELD_QUANTITY, RefusalKind.WASH_TRADE)
    )


def exit_failed_key(position_id: int) -> str:
    """Return the key of the alert that a position could not be left."""
    return f"exit_failed:{position_id}"


def unreachable_key(account_id: int) -> str:
    """Return the key of the alert that an account's broker cannot be reached."""
    return f"broker_unreachable:{account_id}"


def outcome_unknown_key(order_id: int) -> str:
    """Return the key of the alert that nobody knows whether an order arrived."""
    return f"order_outcome_unknown:{order_id}"


def _is_overdue(order: Order, *, now: datetime) -> bool:
    return order.submitted_at is not None and now - order.submitted_at > timedelta(seconds=UNKNOWN_ALERT_SECONDS)


def _told(order: Order, event: OrderEvent, error: BrokerError) -> Happening:
    kind = {OrderEvent.GAVE_UP: "order_given_up", OrderEvent.LOST: "order_outcome_unknown"}.get(event, "order_retried")
    return Happening(
        kind=kind,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        data={"error": str(error), "tries": order.tries, "next_attempt_at": order.next_attempt_at},
    )


def _alert_given_up(order: Order, error: BrokerError, *, now: datetime) -> None:
    is_exit = order.intent == Intent.EXIT
    again = ", but tried again every minute" if order.urgency <= _STOP else ""
    action = (
        f"The position is NOT being left{again}: retry order {order.pk} or close the position at the broker."
        if is_exit
        else "The entry was dropped; enter again if you still want it."
    )
    raise_alert(
        kind="account_refused" if isinstance(error, AccountRefused) else f"{order.intent}_failed",
        severity=Severity.CRITICAL if order.intent == Intent.EXIT else Severity.WARNING,
        title=f"{order.intent} of {order.quantity} {order.instrument} was refused",
        message=f"The broker said: {error}. {action}",
        dedupe_key=exit_failed_key(order.position_id) if is_exit and order.position_id else f"order_failed:{order.pk}",
        requires_action=order.intent == Intent.EXIT,
        data={"tries": order.tries, "reason": order.reason, "error": str(error)},
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )


def _alert_unreachable(order: Order, error: BrokerError, *, now: datetime) -> None:
    raise_alert(
        kind="broker_unreachable",
        severity=Severity.CRITICAL,
        title=f"The broker of account {order.account_id} cannot be reached",
        message=f"{error}. Orders keep trying at least every {UNREACHABLE_CEILING_SECONDS:.0f} s; check the broker's "
        "address and status.",
        dedupe_key=unreachable_key(order.account_id),
        requires_action=True,
        account_ref=order.account_id,
        order_ref=order.pk,
        now=now,
    )


def _alert_outcome_unknown(order: Order, error: BrokerError, *, now: datetime) -> None:
    what_follows = (
        "This venue would take it twice, so it is never sent again by itself: settle it as arrived or not"
        if order.quarantined_at
        else f"It is asked about every {UNKNOWN_RECHECK_SECONDS:.0f} s and sent again only once it is certain that it "
        "never arrived"
    )
    raise_alert(
        kind="order_outcome_unknown",
        severity=Severity.CRITICAL,
        title=f"Nobody knows whether order {order.pk} reached the broker",
        message=f"{error}. {what_follows}; look for client id {order.client_order_id} at the broker.",
        dedupe_key=outcome_unknown_key(order.pk),
        requires_action=True,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
