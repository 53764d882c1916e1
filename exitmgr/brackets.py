"""Brackets: the exit plan of a position, armed by its entry's fill and completed by its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.models import Bracket, Trigger
from exitmgr.rules.compile import compile_plan
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan, plan_as_json
from exitmgr.rules.types import LevelTrigger, TriggerKind, urgency_of
from exitmgr.states import BRACKET_MOVES, BracketEvent, BracketStatus, TriggerStatus, next_bracket_status
from orders.models import Order
from positions.doorbells import ring
from positions.fields import plain
from positions.models import Position, Quote
from positions.rows import write_back
from positions.values import Side

#: What a position gets when nobody said otherwise: out at 1 % against, 2 % in favour.
DEFAULT_PLAN: Mapping[str, Any] = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}

_LIVE_TRIGGERS = (TriggerStatus.ARMED, TriggerStatus.BREACHED)


def create_pending_bracket(*, entry_order: Order, plan: Plan, now: datetime) -> Bracket:
    """Write the plan of an entry down; its fill will arm it."""
    bracket = Bracket.objects.create(entry_order=entry_order, plan=plan_as_json(plan), created_at=now)
    _tell(bracket, "bracket_created", now=now, account_ref=entry_order.account_id, order_ref=entry_order.pk)
    return bracket


def create_bracket(*, position: Position, plan: Plan, now: datetime) -> Bracket:
    """Give a position that is already held its plan and arm it.

    :raises InvalidPlan: a level on the wrong side of the entry price.
    """
    bracket = Bracket.objects.create(position=position, plan=plan_as_json(plan), created_at=now)
    _tell(bracket, "bracket_created", now=now, account_ref=position.account_id)
    arm(bracket, position=position, now=now)
    return bracket


def arm(bracket: Bracket, *, position: Position, now: datetime) -> None:
    """Compile the plan on the position's average entry and arm what it says, or re-arm it after more was filled.

    Rungs and stops that already fired stay as they are. The position's lock is held; its instrument is scanned
    again after the commit, because the price may already be beyond a level.

    :raises InvalidPlan: a level on the wrong side of the entry price.
    """
    plan = parse_plan(bracket.plan)
    levels = compile_plan(plan, side=Side(position.side), entry_price=position.average_entry)
    bracket.position = position
    bracket.status = next_bracket_status(BracketStatus(bracket.status), BracketEvent.ARMED)
    bracket.armed_at = bracket.armed_at or now
    _note_prices(bracket, levels, entry_price=position.average_entry)
    bracket.save()
    _write_triggers(bracket, levels, position=position, now=now)
    _tell(
        bracket,
        "bracket_armed",
        now=now,
        account_ref=position.account_id,
        entry_price=bracket.entry_price,
        stop_price=bracket.stop_price,
        target_prices=bracket.target_prices,
        quantity=position.quantity,
    )
    instrument_id = position.instrument_id
    transaction.on_commit(
        lambda: ring("exitmgr.scan", queue="scan", kwargs={"instrument_ids": [instrument_id]}, expires=5), robust=True
    )


def _note_prices(bracket: Bracket, levels: Sequence[LevelTrigger], *, entry_price: Decimal) -> None:
    stops = [plain(level.level) for level in levels if level.rung == 0]
    targets = [plain(level.level) for level in levels if level.rung > 0]
    bracket.entry_price = entry_price
    bracket.stop_price = stops[0] if stops else None
    bracket.target_prices = [f"{target:f}" for target in targets]
    if stops and targets and stops[0] != entry_price:
        bracket.ratio = abs(targets[0] - entry_price) / abs(entry_price - stops[0])


def _write_triggers(bracket: Bracket, levels: Sequence[LevelTrigger], *, position: Position, now: datetime) -> None:
    known = {trigger.reason: trigger for trigger in bracket.triggers.all()}
    seq = Quote.objects.filter(pk=position.instrument_id).values_list("seq", flat=True).first() or 0
    fresh: list[Trigger] = []
    moved: list[Trigger] = []
    for level in levels:
        trigger = known.get(level.reason)
        if trigger is None:
            fresh.append(_trigger(bracket, level, position=position, seq=seq, now=now))
        elif trigger.status == TriggerStatus.ARMED and trigger.level != level.level:
            trigger.level, trigger.armed_seq, trigger.armed_at = level.level, seq, now
            moved.append(trigger)
    Trigger.objects.bulk_create(fresh)
    write_back(moved, fields=["level", "armed_seq", "armed_at"])


def _trigger(bracket: Bracket, level: LevelTrigger, *, position: Position, seq: int, now: datetime) -> Trigger:
    return Trigger(
        bracket=bracket,
        position=position,
        instrument_id=position.instrument_id,
        kind=TriggerKind.LEVEL,
        basis=level.basis,
        direction=level.direction,
        level=level.level,
        fraction_pct=level.fraction_pct,
        reason=level.reason,
        urgency=urgency_of(level.reason),
        rung=level.rung,
        armed_seq=seq,
        armed_at=now,
    )


def arm_or_alert(bracket: Bracket, *, position: Position, now: datetime) -> None:
    """Arm a bracket whose entry filled; a plan that does not fit the fill leaves it in error and calls a person."""
    try:
        arm(bracket, position=position, now=now)
    except InvalidPlan as error:
        bracket.position = position
        bracket.status = next_bracket_status(BracketStatus(bracket.status), BracketEvent.FAILED)
        bracket.error = str(error)
        bracket.save()
        _tell(bracket, "bracket_error", now=now, account_ref=position.account_id, error=str(error))
        raise_alert(
            kind="bracket_error",
            severity=Severity.CRITICAL,
            title=f"Position {position.pk} in {position.instrument} has no protection",
            message=f"Its plan does not fit the fill at {position.average_entry:f}: {error}. Exit it by hand.",
            dedupe_key=f"bracket_error:{bracket.pk}",
            requires_action=True,
            account_ref=position.account_id,
            position_ref=position.pk,
            now=now,
        )


def end_bracket(bracket: Bracket, *, event: BracketEvent, now: datetime) -> None:
    """End a bracket and take its live triggers out of the scan."""
    before = bracket.status
    bracket.status = next_bracket_status(BracketStatus(bracket.status), event)
    if bracket.status == before:
        return
    bracket.ended_at = now
    bracket.save(update_fields=["status", "ended_at"])
    bracket.triggers.filter(status__in=_LIVE_TRIGGERS).update(status=TriggerStatus.CANCELLED)
    account_ref = bracket.position.account_id if bracket.position else None
    _tell(bracket, f"bracket_{bracket.status}", now=now, account_ref=account_ref)


def complete_brackets(*, position_ids: Collection[int], now: datetime) -> int:
    """End the live brackets of positions that are closed, and take their triggers out of the scan; return how many."""
    ending = [
        status
        for (status, event), after in BRACKET_MOVES.items()
        if event is BracketEvent.POSITION_CLOSED and after is not status
    ]
    brackets = list(
        Bracket.objects.filter(position_id__in=position_ids, status__in=ending)
        .select_related("position")
        .order_by("pk")
    )
    if not brackets:
        return 0
    ids = [bracket.pk for bracket in brackets]
    Bracket.objects.filter(pk__in=ids).update(status=BracketStatus.COMPLETED, ended_at=now)
    Trigger.objects.filter(bracket__in=ids, status__in=_LIVE_TRIGGERS).update(status=TriggerStatus.CANCELLED)
    write_events(
        (
            Happening(
                kind="bracket_completed",
                account_ref=bracket.position.account_id if bracket.position else None,
                position_ref=bracket.position_id,
                order_ref=bracket.entry_order_id,
                bracket_ref=bracket.pk,
            )
            for bracket in brackets
        ),
        now=now,
    )
    return len(ids)


def _tell(
    bracket: Bracket, kind: str, *, now: datetime, account_ref: int | None, order_ref: int | None = None, **data: object
) -> None:
    write_events(
        [
            Happening(
                kind=kind,
                account_ref=account_ref,
                position_ref=bracket.position_id,
                order_ref=order_ref or bracket.entry_order_id,
                bracket_ref=bracket.pk,
                data=data,
            )
        ],
        now=now,
    )
