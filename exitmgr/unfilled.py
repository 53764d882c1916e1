"""Exits that do not fill: called off after their time, and what follows their end.

A target whose price has left its level waits for it again; everything else goes out anew, in the end at the market.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final

from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Value

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.exits import HUNDRED, ExitIntent, make_exits
from exitmgr.models import Trigger
from exitmgr.policy.of_positions import policies_of
from exitmgr.policy.schema import ExitManager
from exitmgr.rules.types import Decision, OrderTerms, TriggerKind, Urgency
from exitmgr.states import BracketStatus, TriggerStatus
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.limits import RESUBMIT_DELAY_SECONDS, backoff_seconds
from orders.models import CancelFor, Intent, Order
from orders.outcomes import exit_failed_key
from orders.rounding import limit_for_exit
from orders.states import TERMINAL, OrderState
from positions.models import Position, Quote
from positions.sessions import NoSessions, is_open, next_open
from positions.values import Side, tradable_basis

log = logging.getLogger(__name__)

UNFILLED: Final = sorted(TERMINAL - {OrderState.FILLED})
_FINEST: Final = Decimal("1e-9")


def call_off_overdue(*, now: datetime) -> int:
    """Ask for the end of every exit that has worked for its time without being filled; return how many were asked.

    Only time in which the venue trades counts: what waits at the broker for the opening is not late.

    :raises OperationalError: the database went away.
    """
    allowed = ExpressionWrapper(F("work_seconds") * Value(timedelta(seconds=1)), DurationField())
    overdue = (
        Order.objects.filter(
            intent=Intent.EXIT,
            state__in=[OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED],
            resting=False,
            work_seconds__isnull=False,
        )
        .annotate(late_from=ExpressionWrapper(F("accepted_at") + allowed, DateTimeField()))
        .filter(late_from__lte=now)
        .order_by("urgency", "pk")
        .values_list("pk", "instrument__calendar", "work_seconds")
    )
    asked = 0
    for order_id, calendar, seconds in overdue:
        if not _has_traded_for(calendar, timedelta(seconds=seconds or 0), now=now):
            continue
        try:
            why = f"not filled within {seconds} s"
            request_cancel(order_id=order_id, now=now, actor="exitmgr", why=why, cancel_for=CancelFor.OVERDUE)
            asked += 1
        except NotCancellable as error:
            log.info("overdue_exit_not_called_off order_id=%s why=%s", order_id, error)
    return asked


def _has_traded_for(calendar: str, span: timedelta, *, now: datetime) -> bool:
    try:
        return is_open(calendar, now) and is_open(calendar, now - span)
    except NoSessions:
        return True  # an exit is not left alone because a table is short


def follow_unfilled(order: Order, position: Position, *, now: datetime) -> None:
    """Do what follows an exit that ended before it was filled, under its position's lock.

    The former attempt is terminal and its fills are booked. What a person called off is not sent again.
    """
    if not _is_to_be_followed(order):
        return
    price = fresh_price(position, now=now)
    if order.urgency >= Urgency.TARGET and (order.cancel_for == CancelFor.ROOM or _has_left(order, position, price)):
        _wait_again(order, position, now=now)
        return
    rules = policies_of([position], now=now)[position.pk].exit_manager
    if _spent(order) > rules.max_resubmit_attempts:
        _alert_unfinished(order, position, now=now)
        return
    limit = _new_limit(order, position, price, rules=rules)
    intent = ExitIntent(
        position=position,
        decision=Decision(
            reason=order.reason,
            fraction_pct=HUNDRED,
            trigger_price=order.trigger_price,
            seen_price=order.expected_price,
            order=OrderTerms(time_in_force=_lasting(order.time_in_force) if limit is not None else ""),
        ),
        at_most=order.quantity - order.filled_quantity,
        priced_at=order.priced_at,
        quote=order.priced_from,
        attempt=order.attempt + 1,
        retry_of_id=order.pk,
        not_before=_not_before(order, now=now),
        max_slippage_bps=order.max_slippage_bps,
        limit_price=limit,
    )
    make_exits([intent], now=now, actor="advance")


def _is_to_be_followed(order: Order) -> bool:
    if order.filled_quantity >= order.quantity or order.state not in UNFILLED or order.resting:
        return False
    if order.cancel_asked_at is None:
        return order.broker_order_id != ""  # else it was given up, and a person was called
    return order.cancel_for != ""


def _spent(order: Order) -> int:
    """Return how many attempts ended unfilled although the venue was open and no other exit wanted room."""
    spent, attempt = 0, order
    while True:
        ended_by_session = attempt.state == OrderState.EXPIRED and not _is_open(attempt, at=attempt.ended_at)
        spent += attempt.cancel_for != CancelFor.ROOM and not ended_by_session
        if attempt.retry_of is None:
            return spent
        attempt = attempt.retry_of


def _is_open(order: Order, *, at: datetime | None) -> bool:
    try:
        return at is None or is_open(order.instrument.calendar, at)
    except NoSessions:
        return True


def _not_before(order: Order, *, now: datetime) -> datetime | None:
    if order.cancel_for:
        return None
    if order.state == OrderState.EXPIRED and not _is_open(order, at=now):
        return next_open(order.instrument.calendar, now)
    return now + timedelta(seconds=backoff_seconds(tries=order.attempt, base=RESUBMIT_DELAY_SECONDS))


def fresh_price(position: Position, *, now: datetime) -> Decimal | None:
    """Return what the position could trade at, None where no fresh price is known."""
    quote = Quote.objects.filter(pk=position.instrument_id).first()
    if quote is None or quote.received_at < now - timedelta(seconds=position.instrument.max_age_seconds):
        return None
    price: Decimal = getattr(quote, str(tradable_basis(Side(position.side))))
    return price


def _has_left(order: Order, position: Position, price: Decimal | None) -> bool:
    """Return whether a limit exit's price is no longer there; without a price a profit is not taken."""
    if order.order_type != OrderType.LIMIT or order.trigger_price is None:
        return False
    return price is None or (price - order.trigger_price) * position.side < 0


def _new_limit(order: Order, position: Position, price: Decimal | None, *, rules: ExitManager) -> Decimal | None:
    """Return the limit of the next attempt, None where it goes out at the market."""
    if order.order_type != OrderType.LIMIT or rules.limit_exit.then != "reprice":
        return None
    if price is None or order.trigger_price is None:
        return None
    side, tick = Side(position.side), position.instrument.tick
    worst = limit_for_exit(
        level=order.trigger_price, side=side, tick=tick, protective=True, max_slippage_bps=order.max_slippage_bps
    )
    protective = order.urgency < Urgency.TARGET
    if protective and (order.attempt >= rules.max_resubmit_attempts or (price - worst) * side < 0):
        return None
    there = limit_for_exit(level=price, side=side, tick=tick, protective=True)
    return max(there, worst) if side is Side.LONG else min(there, worst)


def _lasting(time_in_force: str) -> str:
    return time_in_force if time_in_force in ("day", "gtc") else ""


def _wait_again(order: Order, position: Position, *, now: datetime) -> None:
    """Arm anew the trigger whose target gave way, for what of it is unsold, on prices from now on."""
    first = order
    while first.retry_of is not None:
        first = first.retry_of
    fired = Trigger.objects.filter(
        order=first, status=TriggerStatus.FIRED, kind=TriggerKind.LEVEL, bracket__status=BracketStatus.ACTIVE
    ).first()
    if fired is None or _is_live_again(fired):
        return  # its plan has been changed since
    rest = order.quantity - order.filled_quantity
    share = HUNDRED
    if rest < position.available:
        share = (rest / position.available * HUNDRED).quantize(_FINEST, rounding=ROUND_CEILING)
    again = Trigger.objects.get(pk=fired.pk)
    again.pk = None
    again._state.adding = True
    again.fraction_pct = min(share, HUNDRED)
    again.status, again.after = TriggerStatus.ARMED, ""
    again.order = again.fired_at = again.seen_price = None
    again.armed_at = now
    again.armed_seq = Quote.objects.filter(pk=position.instrument_id).values_list("seq", flat=True).first() or 0
    again.save()
    write_events(
        [
            Happening(
                kind="target_waits_again",
                account_ref=position.account_id,
                position_ref=position.pk,
                order_ref=order.pk,
                data={"reason": order.reason, "level": again.level, "unsold": rest},
            )
        ],
        now=now,
    )


def _is_live_again(fired: Trigger) -> bool:
    later = Trigger.objects.filter(bracket=fired.bracket_id, slot=fired.slot, pk__gt=fired.pk)
    return later.exclude(status=TriggerStatus.CANCELLED).exists()


def _alert_unfinished(order: Order, position: Position, *, now: datetime) -> None:
    again = " It is tried again every minute." if order.urgency <= Urgency.STOP else ""
    raise_alert(
        kind="exit_failed",
        severity=Severity.CRITICAL,
        title=f"Position {position.pk} in {position.instrument} could not be left",
        message=f"{order.attempt} orders ended unfilled, the last as {order.state}: {order.last_error}.{again} "
        f"Retry order {order.pk} or close the position at the broker.",
        dedupe_key=exit_failed_key(position.pk),
        requires_action=True,
        account_ref=position.account_id,
        position_ref=position.pk,
        order_ref=order.pk,
        now=now,
    )
    write_events(
        [Happening(kind="exit_failed", account_ref=position.account_id, position_ref=position.pk, order_ref=order.pk)],
        now=now,
    )
