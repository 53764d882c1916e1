"""Trigger rows as the rules see them: what a scan found is read again under the positions' locks and judged there."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from exitmgr.models import Trigger
from exitmgr.rules.consequences import step_in_force
from exitmgr.rules.fire import fire_level, fire_timer, fire_trail
from exitmgr.rules.types import (
    Act,
    AnyTrigger,
    Decision,
    Direction,
    LevelTrigger,
    OrderTerms,
    Step,
    TimerTrigger,
    TrailTrigger,
    TriggerKind,
)
from exitmgr.states import TriggerStatus
from orders.brokers.protocol import OrderType
from positions.fields import plain
from positions.values import Basis, Snapshot

_COLUMNS = (
    "pk", "bracket_id", "position_id", "instrument_id", "kind", "slot", "reason", "basis", "direction", "level",
    "offset_pct", "offset", "due_at", "fraction_pct", "rung", "act", "after", "steps", "span_seconds", "move_pct",
    "order_type", "time_in_force", "armed_seq",
)  # fmt: skip


#: Spelled out because every scan that fires anything waits for it, and building the query took longer than running it.
_ARMED: Final = f"""
    SELECT {", ".join(f"t.{'id' if name == 'pk' else name}" for name in _COLUMNS)}, c.best, c.seen_seq
      FROM exitmgr_trigger t
      LEFT JOIN exitmgr_trail m ON m.trigger_id = t.id AND t.kind = 'trail'
      LEFT JOIN exitmgr_trailcohort c ON c.id = m.cohort_id
     WHERE t.id = ANY(%s::bigint[]) AND t.status = 'armed'
     ORDER BY t.urgency, t.id
"""  # noqa: S608 - names of our own columns


@dataclass(frozen=True, slots=True)
class Armed:
    """One live trigger; `armed_seq` is the price it was armed at, or its best price already takes into account."""

    trigger_id: int
    bracket_id: int
    position_id: int
    instrument_id: int
    rule: AnyTrigger
    armed_seq: int

    @property
    def act(self) -> Act:
        """Return what follows when it fires."""
        return self.rule.act if isinstance(self.rule, LevelTrigger) else Act.EXIT


def armed_triggers(ids: Collection[int]) -> list[Armed]:
    """Return those of these triggers that are armed, the most urgent first, trails with their best price so far."""
    with connection.cursor() as cursor:
        cursor.execute(_ARMED, [list(ids)])
        return [_armed(row[:-2], row[-2], row[-1] or 0) for row in map(_plainly, cursor.fetchall())]


def _plainly(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(plain(value) if isinstance(value, Decimal) else value for value in row)


def waiting_triggers(*, bracket_ids: Collection[int], after: Collection[str]) -> list[Armed]:
    """Return the triggers of these brackets that wait for one of these slots."""
    rows = Trigger.objects.filter(bracket_id__in=bracket_ids, after__in=after, status=TriggerStatus.WAITING)
    return [_armed(row, None, 0) for row in rows.order_by("pk").values_list(*_COLUMNS)]


def triggers_in_slots(*, bracket_ids: Collection[int], slots: Collection[str]) -> list[Armed]:
    """Return the armed triggers of these brackets in these slots."""
    rows = Trigger.objects.filter(bracket_id__in=bracket_ids, slot__in=slots, status=TriggerStatus.ARMED)
    return [_armed(row, None, 0) for row in rows.order_by("pk").values_list(*_COLUMNS)]


def best_prices(trigger_ids: Iterable[int]) -> dict[int, tuple[Decimal, int]]:
    """Return the best price of each armed trail so far, and the price number it takes into account."""
    rows = Trigger.objects.filter(pk__in=list(trigger_ids), trail__isnull=False)
    return {
        pk: (best, seq) for pk, best, seq in rows.values_list("pk", "trail__cohort__best", "trail__cohort__seen_seq")
    }


def judge(armed: Armed, seen: Snapshot | None, *, now: datetime) -> Decision | None:
    """Return what the rules decide about a trigger at a price; only a timer can do without one."""
    rule = armed.rule
    if isinstance(rule, TimerTrigger):
        return fire_timer(rule, seen, now=now)
    if seen is None:
        return None
    if isinstance(rule, TrailTrigger):
        return fire_trail(rule, seen, armed_seq=armed.armed_seq)
    return fire_level(rule, seen, armed_seq=armed.armed_seq)


def judge_spec(spec: AnyTrigger, seen: Snapshot | None, *, now: datetime) -> Decision | None:
    """Return what the rules would decide about a trigger that is armed now, on the price now."""
    if isinstance(spec, LevelTrigger) and spec.steps:
        reached = step_in_force(spec.steps, at=now)
        spec = replace(spec, level=reached.level if reached else None)
    armed_seq = seen.seq + 1 if seen is not None else 0
    return judge(Armed(0, 0, 0, 0, spec, armed_seq), seen, now=now)


def steps_of(stored: Sequence[Sequence[str]]) -> tuple[Step, ...]:
    """Return the steps of a decaying target from how they are stored."""
    return tuple(Step(due_at=datetime.fromisoformat(due_at), level=Decimal(level)) for due_at, level in stored)


def stored_steps(steps: Iterable[Step]) -> list[list[str]]:
    """Return the steps of a decaying target as they are stored."""
    return [[step.due_at.isoformat(), f"{step.level:f}"] for step in steps]


def _armed(row: tuple[Any, ...], best: Decimal | None, seen_seq: int) -> Armed:
    named = dict(zip(_COLUMNS, row, strict=True))
    if isinstance(named["steps"], str):  # as a plain cursor reads JSON
        named["steps"] = json.loads(named["steps"])
    return Armed(
        trigger_id=named["pk"],
        bracket_id=named["bracket_id"],
        position_id=named["position_id"],
        instrument_id=named["instrument_id"],
        rule=_rule(named, best),
        armed_seq=max(named["armed_seq"], seen_seq),
    )


def _rule(named: dict[str, Any], best: Decimal | None) -> AnyTrigger:
    shared: dict[str, Any] = {
        "slot": named["slot"],
        "reason": named["reason"],
        "basis": Basis(named["basis"]),
        "direction": Direction(named["direction"]),
        "fraction_pct": named["fraction_pct"],
        "after": named["after"],
        "order": OrderTerms(limit=named["order_type"] == OrderType.LIMIT, time_in_force=named["time_in_force"]),
    }
    if named["kind"] == TriggerKind.TIMER:
        return TimerTrigger(
            due_at=named["due_at"], span_seconds=named["span_seconds"], move_pct=named["move_pct"], **shared
        )
    if named["kind"] == TriggerKind.TRAIL:
        return TrailTrigger(best=best, offset_pct=named["offset_pct"], offset=named["offset"], **shared)
    return LevelTrigger(
        level=named["level"], rung=named["rung"], act=Act(named["act"]), steps=steps_of(named["steps"]), **shared
    )
