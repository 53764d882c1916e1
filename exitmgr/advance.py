"""What follows when orders have news: brackets are armed and completed, the rest of an unfinished exit goes out again.

Orders carry a mark (`news`); whoever takes the mark does the work in one transaction, so a crash leaves it set.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import InterfaceError, OperationalError, transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.brackets import arm_or_alert, complete_brackets, end_bracket
from exitmgr.exits import ExitIntent, leg_of, make_exits
from exitmgr.models import Bracket, Trigger
from exitmgr.policy.of_positions import policies_of
from exitmgr.preemption import pre_empt
from exitmgr.rules.types import Act, Decision, OrderTerms, Urgency
from exitmgr.states import BracketEvent, BracketStatus, TriggerStatus
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.limits import RESUBMIT_DELAY_SECONDS, backoff_seconds
from orders.models import Intent, Order
from orders.states import LIVE, TERMINAL, OrderState
from positions.locks import lock_positions
from positions.models import Position
from positions.rows import write_back
from positions.states import PositionStatus

log = logging.getLogger(__name__)

BATCH = 100
HUNDRED = Decimal(100)


def advance(*, now: datetime) -> int:
    """Work off every order that has news and return how many there were.

    An order that cannot be worked off calls a person, keeps its mark, and does not hold up the others. Exits that
    stand in the way of a breached stop are called off.

    :raises OperationalError: the database went away.
    """
    total = after = 0
    while ids := list(
        Order.objects.filter(news=True, pk__gt=after).order_by("pk").values_list("pk", flat=True)[:BATCH]
    ):
        after = ids[-1]
        total += _advance_together(ids, now=now)
    pre_empt(now=now)
    return total


def _advance_together(ids: Sequence[int], *, now: datetime) -> int:
    try:
        return len(_advance_batch(ids, now=now))
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("advance_failed order_ids=%s", ids)
        if len(ids) == 1:
            _alert_stuck(ids[0], error, now=now)
            return 0
    return sum(_advance_together([order_id], now=now) for order_id in ids)


def _advance_batch(ids: Sequence[int], *, now: datetime) -> list[int]:
    with transaction.atomic(durable=True):
        position_ids = Order.objects.filter(pk__in=ids, position__isnull=False).values_list("position_id", flat=True)
        positions = lock_positions(position_ids)
        orders = list(
            Order.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("instrument")
            .filter(pk__in=ids, news=True)
            .order_by("pk")
        )
        taken = [order for order in orders if order.position_id is None or order.position_id in positions]
        closed = [position.pk for position in positions.values() if position.status == PositionStatus.CLOSED]
        complete_brackets(position_ids=closed, now=now)
        for order in taken:
            position = positions.get(order.position_id) if order.position_id else None
            if order.intent == Intent.ENTRY:
                _advance_entry(order, position, now=now)
            elif position is not None and position.status != PositionStatus.CLOSED:
                _advance_exit(order, position, now=now)
        cancels = _stale_entries(list(positions.values()))
        Order.objects.filter(pk__in=[order.pk for order in taken]).update(news=False)
    for order_id in cancels:
        _cancel_entry(order_id, now=now)
    return [order.pk for order in taken]


def _advance_entry(order: Order, position: Position | None, *, now: datetime) -> None:
    bracket = Bracket.objects.filter(entry_order=order).first()
    if bracket is None:
        return
    if position is None:
        if order.state in TERMINAL and bracket.status == BracketStatus.PENDING:
            end_bracket(bracket, event=BracketEvent.CALLED_OFF, now=now)
        return
    if position.status == PositionStatus.CLOSED:
        return
    if bracket.position_id not in (None, position.pk):
        # the first holding was left before this fill came; the new one gets the same plan
        bracket = Bracket.objects.filter(position=position).first() or Bracket.objects.create(
            position=position, plan=bracket.plan, mode=bracket.mode, created_at=now
        )
    if bracket.status in (BracketStatus.PENDING, BracketStatus.ACTIVE):
        arm_or_alert(bracket, position=position, now=now)
    _exit_breached(position, now=now)


def _advance_exit(order: Order, position: Position, *, now: datetime) -> None:
    if order.state in LIVE or position.available <= 0:
        return
    if _exit_breached(position, now=now):
        return
    if _ended_by_broker(order):
        _resubmit(order, position, now=now)
    if order.leg != leg_of(order.reason, Urgency.STOP) or order.state == OrderState.FILLED:
        _follow_fired_stop(position, now=now)


def _exit_breached(position: Position, *, now: datetime) -> bool:
    """Send what a stop wanted to sell while another exit held it; return whether there was such a stop."""
    waiting = list(Trigger.objects.filter(position=position, status=TriggerStatus.BREACHED).order_by("urgency", "pk"))
    if not waiting:
        return False
    intents = [
        ExitIntent(
            position=position,
            decision=_decision_of(trigger),
            priced_at=trigger.fired_at,
        )
        for trigger in waiting
    ]
    made = make_exits(intents, now=now, actor="advance")
    fired = []
    for index, made_order in made.items():
        waiting[index].status, waiting[index].order = TriggerStatus.FIRED, made_order
        fired.append(waiting[index])
    write_back(fired, fields=["status", "order"])
    return bool(made)


def _follow_fired_stop(position: Position, *, now: datetime) -> None:
    """Send what became free after a full stop fired: what the entry filled since, or what another exit gave back."""
    stop = (
        Trigger.objects.filter(
            position=position, status=TriggerStatus.FIRED, act=Act.EXIT, urgency__lte=Urgency.STOP, fraction_pct=HUNDRED
        )
        .order_by("-fired_at")
        .first()
    )
    if stop is None or position.available <= 0:
        return
    intent = ExitIntent(position=position, decision=_decision_of(stop), priced_at=stop.fired_at)
    make_exits([intent], now=now, actor="advance")


def _decision_of(trigger: Trigger) -> Decision:
    return Decision(
        reason=trigger.reason,
        fraction_pct=trigger.fraction_pct,
        trigger_price=trigger.level,
        seen_price=trigger.seen_price,
        order=OrderTerms(limit=trigger.order_type == OrderType.LIMIT, time_in_force=trigger.time_in_force),
    )


def _ended_by_broker(order: Order) -> bool:
    """Return whether the broker, not a person nor our own last attempt, ended the order before it was filled."""
    if order.filled_quantity >= order.quantity or order.broker_order_id == "":
        return False
    ended = order.state in (OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED)
    return ended and order.cancel_asked_at is None


def _resubmit(order: Order, position: Position, *, now: datetime) -> None:
    """Send the rest of an exit again under a new client id; the former attempt is terminal and its fills are booked."""
    if order.attempt > policies_of([position], now=now)[position.pk].exit_manager.max_resubmit_attempts:
        _alert_unfinished(order, position, now=now)
        return
    wait = backoff_seconds(tries=order.attempt, base=RESUBMIT_DELAY_SECONDS)
    intent = ExitIntent(
        position=position,
        decision=Decision(
            reason=order.reason,
            fraction_pct=HUNDRED,
            trigger_price=order.trigger_price,
            seen_price=order.expected_price,
        ),
        at_most=order.quantity - order.filled_quantity,
        priced_at=order.priced_at,
        quote=order.priced_from,
        attempt=order.attempt + 1,
        retry_of_id=order.pk,
        not_before=now + timedelta(seconds=wait),
    )
    make_exits([intent], now=now, actor="advance")


def _stale_entries(positions: Sequence[Position]) -> list[int]:
    """Return working entries of positions that are being left: filling them further would work against the exit."""
    leaving = [position.pk for position in positions if position.status != PositionStatus.OPEN]
    return list(
        Order.objects.filter(position_id__in=leaving, intent=Intent.ENTRY, state__in=LIVE)
        .exclude(state=OrderState.CANCEL_REQUESTED)
        .values_list("pk", flat=True)
    )


def _cancel_entry(order_id: int, *, now: datetime) -> None:
    try:
        request_cancel(order_id=order_id, now=now, actor="advance", why="its position is being left")
    except NotCancellable as error:
        log.info("entry_not_cancelled order_id=%s why=%s", order_id, error)


def _alert_unfinished(order: Order, position: Position, *, now: datetime) -> None:
    raise_alert(
        kind="exit_failed",
        severity=Severity.CRITICAL,
        title=f"Position {position.pk} in {position.instrument} could not be left",
        message=f"The broker ended {order.attempt} orders unfilled, the last as {order.state}: {order.last_error}. "
        f"Retry order {order.pk} or close the position at the broker.",
        dedupe_key=f"exit_failed:{position.pk}",
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


def _alert_stuck(order_id: int, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="advance_failed",
        severity=Severity.CRITICAL,
        title=f"What order {order_id} changed could not be followed up",
        message=f"{type(error).__name__}: {error}. Its position may be without protection: look at it, and exit it or "
        "give it a new plan.",
        dedupe_key=f"advance_failed:{order_id}",
        requires_action=True,
        order_ref=order_id,
        now=now,
    )
