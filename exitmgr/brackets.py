"""Brackets: the exit plan of a position, armed by its entry's fill and completed by its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.arming import LIVE_TRIGGERS, write_triggers
from exitmgr.measures import entry_of
from exitmgr.models import Bracket, Trigger
from exitmgr.modes import choose_mode
from exitmgr.policy.current import policy_for
from exitmgr.policy.layers import NOTHING
from exitmgr.policy.plan_choice import ChosenPlan, range_terms
from exitmgr.resting import rest_stop
from exitmgr.rules.compile import Compiled, compile_plan
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan, plan_as_json
from exitmgr.states import BRACKET_MOVES, BracketEvent, BracketStatus, TriggerStatus, next_bracket_status
from orders.models import Order
from positions.doorbells import ring
from positions.fields import plain
from positions.models import Account, Position

_OPEN = (BracketStatus.PENDING, BracketStatus.ACTIVE, BracketStatus.ERROR)


def create_pending_bracket(
    *, entry_order: Order, chosen: ChosenPlan, now: datetime, settings: Mapping[str, Any] = NOTHING
) -> Bracket:
    """Write the plan of an entry down, with the settings of its position alone; its fill will arm it."""
    bracket = Bracket.objects.create(entry_order=entry_order, created_at=now, **_origin(chosen, settings))
    _tell(bracket, "bracket_created", now=now, account_ref=entry_order.account_id, order_ref=entry_order.pk)
    return bracket


def create_bracket(
    *, position: Position, chosen: ChosenPlan, now: datetime, settings: Mapping[str, Any] = NOTHING
) -> Bracket:
    """Give a position that is already held its plan, with the settings of it alone, and arm it.

    :raises InvalidPlan: a level on the wrong side of the entry price, or a time limit that is over.
    """
    bracket = Bracket.objects.create(position=position, created_at=now, **_origin(chosen, settings))
    _tell(bracket, "bracket_created", now=now, account_ref=position.account_id)
    arm(bracket, position=position, now=now, held_before=True)
    return bracket


def _origin(chosen: ChosenPlan, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "plan": plan_as_json(chosen.plan),
        "notes": list(chosen.notes),
        "policy_version_id": chosen.version_id,
        "from_policy": not chosen.given,
        "overrides": dict(settings),
    }


def arm(bracket: Bracket, *, position: Position, now: datetime, held_before: bool = False) -> None:
    """Compile the plan on the position's average entry and arm what it says, or re-arm it after more was filled.

    Rungs and stops that already fired stay as they are. The position's lock is held; its instrument is scanned
    again after the commit, because the price may already be beyond a level.

    :raises InvalidPlan: a level on the wrong side of the entry price; for a position that was `held_before` also a
        time limit that is over.
    """
    plan = parse_plan(bracket.plan)
    by_hand = bracket.changed_at is not None
    compiled = compile_for(
        position, plan, now=now, overrides=bracket.overrides, moved_by_hand=by_hand, held_before=held_before
    )
    notes = list(compiled.notes)
    if bracket.armed_at is None:
        chosen = choose_mode(position, overrides=bracket.overrides, now=now)
        bracket.mode = chosen.mode
        notes = [*bracket.notes, *chosen.notes, *notes]
    bracket.position = position
    bracket.status = next_bracket_status(BracketStatus(bracket.status), BracketEvent.ARMED)
    bracket.armed_at = bracket.armed_at or now
    note_compiled(bracket, compiled, entry_price=position.average_entry)
    bracket.notes = notes
    bracket.save()
    # a stop that protects is not taken away because more was filled, not even where fees leave no room for a new one
    write_triggers(bracket, compiled.triggers, position=position, now=now, keep=("break_even",))
    rest_stop(bracket, position, now=now)
    _tell(
        bracket,
        "bracket_armed",
        now=now,
        account_ref=position.account_id,
        entry_price=bracket.entry_price,
        stop_price=bracket.stop_price,
        target_prices=bracket.target_prices,
        quantity=position.quantity,
        **({"notes": bracket.notes} if bracket.notes else {}),
    )
    ring_scan_on_commit(position.instrument_id)


def compile_for(
    position: Position,
    plan: Plan,
    *,
    now: datetime,
    overrides: Mapping[str, Any],
    moved_by_hand: bool,
    held_before: bool = False,
) -> Compiled:
    """Return what a plan comes to on a position as it is now, measured as the configuration has it.

    A stagnation is measured from now, because nobody has watched before. The session that ends is the one of the
    entry; of a plan that is given later, the one of now.

    :raises InvalidPlan: the plan does not fit the position.
    """
    # the name alone: credentials need not be decrypted to compile a plan
    account = Account.objects.values_list("name", flat=True).get(pk=position.account_id)
    policy = policy_for(account=account, symbol=position.instrument.symbol, now=now, overrides=overrides)
    later = moved_by_hand or held_before
    entry = entry_of(position=position, plan=plan, now=now, closes_after=now if later else None, **range_terms(policy))
    return compile_plan(
        plan,
        entry=replace(entry, now=now if held_before else None, stagnant_since=now, moved_by_hand=moved_by_hand),
    )


def open_bracket(position: Position) -> Bracket | None:
    """Return the bracket that looks after a position, None when it has none."""
    return Bracket.objects.filter(position=position, status__in=_OPEN).prefetch_related("triggers").first()


def ring_scan_on_commit(instrument_id: int) -> None:
    """Have an instrument scanned once this is committed: the price may be beyond a new level already."""
    transaction.on_commit(
        lambda: ring("exitmgr.scan", queue="scan", kwargs={"instrument_ids": [instrument_id]}, expires=5), robust=True
    )


def note_compiled(bracket: Bracket, compiled: Compiled, *, entry_price: Decimal) -> None:
    """Write into a bracket what its plan came to."""
    bracket.entry_price = entry_price
    bracket.stop_price = None if compiled.stop_price is None else plain(compiled.stop_price)
    bracket.target_prices = [f"{plain(target):f}" for target in compiled.target_prices]
    bracket.ratio = compiled.ratio
    bracket.atr = compiled.atr
    bracket.notes = list(compiled.notes)


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
            message=f"Its plan does not fit the fill at {position.average_entry:f}: {error}. "
            "Change its plan, or exit it by hand.",
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
    bracket.triggers.filter(status__in=LIVE_TRIGGERS).update(status=TriggerStatus.CANCELLED)
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
    Bracket.objects.filter(pk__in=ids).update(status=BracketStatus.COMPLETED, ended_at=now, swap="")
    Trigger.objects.filter(bracket__in=ids, status__in=LIVE_TRIGGERS).update(status=TriggerStatus.CANCELLED)
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
