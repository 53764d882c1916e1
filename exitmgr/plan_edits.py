"""Changing the plan of an open position: shown before it is done, refused when it would sell at once unless meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.notices import resolve_alerts
from exitmgr.armed import best_prices, judge_spec
from exitmgr.arming import write_triggers
from exitmgr.brackets import compile_for, note_compiled, open_bracket, ring_scan_on_commit
from exitmgr.models import Bracket, Trigger
from exitmgr.probes import snapshots_of
from exitmgr.rules.compile import Compiled
from exitmgr.rules.plan import Plan, parse_plan, plan_as_json
from exitmgr.rules.types import Act, AnyTrigger, Direction, LevelTrigger, TrailTrigger
from exitmgr.states import BracketEvent, BracketStatus, TriggerStatus, next_bracket_status
from orders.states import TERMINAL
from positions.locks import lock_position
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side, Snapshot

_SPENT: Final = (TriggerStatus.FIRED, TriggerStatus.BREACHED)


class PlanRefused(Exception):
    """A plan was not changed; the message says why and what can be done."""


class WouldFireNow(PlanRefused):
    """The new plan would sell at once; `preview` says what."""

    def __init__(self, preview: PlanPreview) -> None:
        super().__init__(
            f"it would leave the position at once ({', '.join(preview.would_fire)}); confirm it if that is meant"
        )
        self.preview = preview


@dataclass(frozen=True, kw_only=True)
class PlanPreview:
    """What a new plan would change, prices in the quote currency.

    `would_fire` names the triggers the present price, or the clock, has reached already; `loosens` says that the stop
    would give away more than it does now. Without a price nobody can say what would fire: `price` is None then.
    """

    plan: Plan
    stop_before: Decimal | None
    stop_after: Decimal | None
    targets_before: tuple[Decimal, ...]
    targets_after: tuple[Decimal, ...]
    price: Decimal | None
    would_fire: tuple[str, ...]
    loosens: bool
    notes: tuple[str, ...]


def merged_plan(current: Mapping[str, Any], changes: Mapping[str, Any]) -> Plan:
    """Return the plan with some of its parts replaced; a part given as null is taken out.

    :raises InvalidPlan: the outcome is no plan.
    """
    merged = {**current, **changes}
    return parse_plan({key: part for key, part in merged.items() if part is not None})


def preview_plan(position: Position, plan: Plan, *, now: datetime) -> PlanPreview:
    """Return what giving an open position this plan would change and fire.

    :raises InvalidPlan: the plan does not fit the position.
    """
    bracket = open_bracket(position)
    compiled = compile_for(position, plan, now=now, moved_by_hand=True, overrides=bracket.overrides if bracket else {})
    return _preview(position, bracket, plan, compiled, now=now)


def change_plan(
    *, position_id: int, plan: Plan, now: datetime, actor: str, confirm: bool = False, note: str = ""
) -> tuple[Bracket, PlanPreview]:
    """Give an open position this plan, whole; what has fired stays fired. One without a plan gets its first.

    :raises Position.DoesNotExist: no such position.
    :raises PlanRefused: the position is closed.
    :raises WouldFireNow: the plan would sell at once and this is not confirmed.
    :raises InvalidPlan: the plan does not fit the position.
    """
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        if position.status == PositionStatus.CLOSED:
            raise PlanRefused(f"position {position_id} is closed; there is nothing left to plan for")
        bracket = open_bracket(position)
        compiled = compile_for(
            position, plan, now=now, moved_by_hand=True, overrides=bracket.overrides if bracket else {}
        )
        preview = _preview(position, bracket, plan, compiled, now=now)
        if preview.would_fire and not confirm:
            raise WouldFireNow(preview)
        before = dict(bracket.plan) if bracket else None
        bracket = bracket or Bracket.objects.create(position=position, plan={}, created_at=now)
        event = BracketEvent.REPAIRED if bracket.status == BracketStatus.ERROR else BracketEvent.ARMED
        bracket.status = next_bracket_status(BracketStatus(bracket.status), event)
        bracket.plan, bracket.changed_at, bracket.error = plan_as_json(plan), now, ""
        bracket.armed_at = bracket.armed_at or now
        note_compiled(bracket, compiled, entry_price=position.average_entry)
        bracket.save()
        write_triggers(bracket, compiled.triggers, position=position, now=now, anew=_failed_slots(bracket))
        resolve_alerts(dedupe_key=f"bracket_error:{bracket.pk}", now=now)
        _tell(bracket, preview, before=before, actor=actor, note=note, now=now)
        ring_scan_on_commit(position.instrument_id)
    return bracket, preview


def _preview(
    position: Position, bracket: Bracket | None, plan: Plan, compiled: Compiled, *, now: datetime
) -> PlanPreview:
    seen = snapshots_of([position.instrument_id]).get(position.instrument_id, (None, {}))[0]
    side = Side(position.side)
    before = bracket.stop_price if bracket else None
    after = compiled.stop_price
    return PlanPreview(
        plan=plan,
        stop_before=before,
        stop_after=after,
        targets_before=tuple(Decimal(price) for price in bracket.target_prices) if bracket else (),
        targets_after=compiled.target_prices,
        price=None if seen is None else (seen.bid if side is Side.LONG else seen.ask).price,
        would_fire=_would_fire(bracket, compiled.triggers, seen, now=now),
        loosens=before is not None and (after is None or side * (after - before) < 0),
        notes=compiled.notes,
    )


def _would_fire(
    bracket: Bracket | None, specs: tuple[AnyTrigger, ...], seen: Snapshot | None, *, now: datetime
) -> tuple[str, ...]:
    """Return the slots of the exits that would fire as soon as they are armed."""
    known = {row.slot: row for row in bracket.triggers.all()} if bracket else {}
    spent = {slot for slot, row in known.items() if row.status in _SPENT}
    spent -= _failed_slots(bracket) if bracket else set()
    so_far = best_prices(row.pk for row in known.values() if row.kind == "trail")
    found: list[str] = []
    for spec in specs:
        waits = spec.after and spec.after not in spent
        gate = isinstance(spec, LevelTrigger) and spec.act is not Act.EXIT
        if spec.slot in spent or waits or gate:
            continue
        if judge_spec(_as_followed(spec, known.get(spec.slot), so_far), seen, now=now) is not None:
            found.append(spec.slot)
    return tuple(found)


def _failed_slots(bracket: Bracket) -> set[str]:
    """Return the slots that wanted everything out and did not get it: their order has ended, the position has not."""
    fired = bracket.triggers.filter(status=TriggerStatus.FIRED, fraction_pct=100, order__state__in=TERMINAL)
    return set(fired.values_list("slot", flat=True))


def _as_followed(spec: AnyTrigger, row: Trigger | None, so_far: Mapping[int, tuple[Decimal, int]]) -> AnyTrigger:
    """Return a trail with the better of the best prices it has and would begin with."""
    if not isinstance(spec, TrailTrigger) or row is None or row.pk not in so_far:
        return spec
    better = max if spec.direction is Direction.FALL else min
    known = so_far[row.pk][0]
    return replace(spec, best=known if spec.best is None else better(spec.best, known))


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
