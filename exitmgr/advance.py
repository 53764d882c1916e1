"""What follows when orders have news: brackets are armed and completed, the rest of an unfinished exit goes out again.

Orders carry a mark (`news`); whoever takes the mark does the work in one transaction, so a crash leaves it set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

from django.db import InterfaceError, OperationalError, transaction

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.brackets import arm_or_alert, complete_brackets, end_bracket
from exitmgr.exits import ExitIntent, leg_of, make_exits
from exitmgr.failed_stops import send_failed_stops_again
from exitmgr.models import Bracket, Trigger
from exitmgr.preemption import pre_empt
from exitmgr.resting import follow_stop
from exitmgr.rules.types import Act, Decision, OrderTerms, Urgency
from exitmgr.states import BracketEvent, BracketStatus, TriggerStatus
from exitmgr.swaps import tend_swaps
from exitmgr.unfilled import call_off_overdue, follow_unfilled
from exitmgr.waiting import give_room, serve_waiting
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Order
from orders.outcomes import exit_failed_key
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

    An order that cannot be worked off calls a person, keeps its mark, and does not hold up the others. Then whatever
    waits gets what came free, and exits that stand in the way of a more urgent one, or do not fill, are called off.

    :raises OperationalError: the database went away.
    """
    total = after = 0
    while ids := list(
        Order.objects.filter(news=True, pk__gt=after).order_by("pk").values_list("pk", flat=True)[:BATCH]
    ):
        after = ids[-1]
        total += _advance_together(ids, now=now)
    for step in (serve_waiting, pre_empt, tend_swaps, send_failed_stops_again, call_off_overdue):
        _do_apart(step, now=now)
    return total


def _do_apart(step: Callable[..., object], *, now: datetime) -> None:
    """Do one step of the follow-up; what it cannot do calls a person and does not hold up the next one."""
    try:
        step(now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        name = step.__name__
        log.exception("advance_step_failed step=%s", name)
        raise_alert(
            kind="advance_failed",
            severity=Severity.CRITICAL,
            title=f"Exits are not followed up: {name}",
            message=f"{type(error).__name__}: {error}. Look at the positions that are being left, and exit them by "
            "hand where nothing happens.",
            dedupe_key=f"advance_failed:{name}",
            requires_action=True,
            now=now,
        )


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
        _settle_alerts(closed, now=now)
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
    give_room(position, now=now, below=Urgency.STOP)
    if _exit_breached(position, now=now):
        return
    give_room(position, now=now)
    if position.available <= 0:
        return
    if order.resting:
        follow_stop(order, position, now=now)
        return
    follow_unfilled(order, position, now=now)
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


def _settle_alerts(closed: Sequence[int], *, now: datetime) -> None:
    """Settle what called a person because positions could not be left: they have been."""
    for position_id in closed:
        resolve_alerts(dedupe_key=exit_failed_key(position_id), now=now)


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
