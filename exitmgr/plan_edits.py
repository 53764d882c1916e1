"""Changing the plan of an open position: shown before it is done, refused when it would sell at once unless meant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.notices import resolve_alerts
from exitmgr.arming import write_triggers
from exitmgr.brackets import compile_for, note_compiled, open_bracket, ring_scan_on_commit
from exitmgr.models import Bracket
from exitmgr.plan_previews import PlanPreview, preview_of, require_fired_rungs_kept, slots_anew
from exitmgr.rules.compile import Compiled
from exitmgr.rules.plan import Plan, parse_plan, plan_as_json
from exitmgr.states import BracketEvent, BracketStatus, next_bracket_status
from positions.locks import lock_position
from positions.models import Position, Quote
from positions.states import PositionStatus


class PlanRefused(Exception):
    """A plan was not changed; the message says why and what can be done."""


class WouldFireNow(PlanRefused):
    """The new plan would sell at once; `preview` says what."""

    def __init__(self, preview: PlanPreview) -> None:
        super().__init__(
            f"it would leave the position at once ({', '.join(preview.would_fire)}); confirm it if that is meant"
        )
        self.preview = preview


class PlanChangedMeanwhile(PlanRefused):
    """The plan is not the one any more that the change was made for."""


def merged_plan(current: Mapping[str, Any], changes: Mapping[str, Any]) -> Plan:
    """Return the plan with some of its parts replaced; a part given as null is taken out.

    :raises InvalidPlan: the outcome is no plan.
    """
    merged = {**current, **changes}
    return parse_plan({key: part for key, part in merged.items() if part is not None})


def preview_plan(position: Position, plan: Plan, *, now: datetime) -> PlanPreview:
    """Return what giving an open position this plan would change and fire.

    :raises PlanRefused: the position is closed.
    :raises InvalidPlan: the plan does not fit the position.
    """
    _require_open(position)
    bracket = open_bracket(position)
    compiled = _compiled(position, bracket, plan, now=now)
    return preview_of(position, bracket, plan, compiled, now=now)


def change_plan(
    *,
    position_id: int,
    plan: Plan,
    now: datetime,
    actor: str,
    confirm: bool = False,
    note: str = "",
    based_on: Mapping[str, Any] | None = None,
) -> tuple[Bracket, PlanPreview]:
    """Give an open position this plan, whole; what has fired stays fired. One without a plan gets its first.

    `based_on` is the plan as the change found it, empty for none; without it whatever is there is replaced.

    :raises Position.DoesNotExist: no such position.
    :raises PlanRefused: the position is closed.
    :raises PlanChangedMeanwhile: the plan is another one than `based_on`.
    :raises WouldFireNow: the plan would sell at once and this is not confirmed.
    :raises InvalidPlan: the plan does not fit the position.
    """
    with transaction.atomic(durable=True):
        position = _lock(position_id)
        _require_open(position)
        bracket = open_bracket(position)
        if based_on is not None and based_on != (bracket.plan if bracket else {}):
            raise PlanChangedMeanwhile(f"the plan of position {position_id} was changed meanwhile; look at it again")
        compiled = _compiled(position, bracket, plan, now=now)
        preview = preview_of(position, bracket, plan, compiled, now=now)
        if preview.would_fire and not confirm:
            raise WouldFireNow(preview)
        before = dict(bracket.plan) if bracket else None
        anew = slots_anew(bracket) if bracket else frozenset()
        bracket = bracket or Bracket.objects.create(position=position, plan={}, created_at=now)
        event = BracketEvent.REPAIRED if bracket.status == BracketStatus.ERROR else BracketEvent.ARMED
        bracket.status = next_bracket_status(BracketStatus(bracket.status), event)
        bracket.plan, bracket.changed_at, bracket.error = plan_as_json(plan), now, ""
        bracket.armed_at, bracket.from_policy = bracket.armed_at or now, False
        note_compiled(bracket, compiled, entry_price=position.average_entry)
        bracket.save()
        write_triggers(bracket, compiled.triggers, position=position, now=now, anew=anew)
        resolve_alerts(dedupe_key=f"bracket_error:{bracket.pk}", now=now)
        _tell(bracket, preview, before=before, actor=actor, note=note.strip(), now=now)
        ring_scan_on_commit(position.instrument_id)
    return bracket, preview


def _lock(position_id: int) -> Position:
    """Lock a position, its instrument's quote first: a scan must not follow its trails while they are moved."""
    of_position = Position.objects.filter(pk=position_id).values_list("instrument", flat=True)
    Quote.objects.select_for_update(no_key=True).filter(pk__in=list(of_position)).first()
    return lock_position(position_id)


def _require_open(position: Position) -> None:
    if position.status == PositionStatus.CLOSED:
        raise PlanRefused(f"position {position.pk} is closed; there is nothing left to plan for")


def _compiled(position: Position, bracket: Bracket | None, plan: Plan, *, now: datetime) -> Compiled:
    if bracket is not None:
        require_fired_rungs_kept(bracket, plan)
    overrides = bracket.overrides if bracket else {}
    return compile_for(position, plan, now=now, moved_by_hand=True, overrides=overrides)


def _tell(
    bracket: Bracket, preview: PlanPreview, *, before: Mapping[str, Any] | None, actor: str, note: str, now: datetime
) -> None:
    write_events(
        [
            Happening(
                kind="plan_changed",
                actor=actor,
                account_ref=bracket.position.account_id if bracket.position else None,
                position_ref=bracket.position_id,
                bracket_ref=bracket.pk,
                data={
                    "before": before,
                    "after": bracket.plan,
                    "stop_before": preview.stop_before,
                    "stop_after": preview.stop_after,
                    "would_fire": list(preview.would_fire),
                    **({"note": note} if note else {}),
                },
            )
        ],
        now=now,
    )
