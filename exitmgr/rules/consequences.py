"""What a fired trigger, or time, changes about the others of its plan. Pure; scan and replay share it.

A stop only ever tightens by itself: what is started joins the stops that are armed, it replaces none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import overload

from exitmgr.rules.compile import moved_level
from exitmgr.rules.types import LevelTrigger, Step, TimerTrigger, TrailTrigger


@overload
def start(waiting: LevelTrigger, *, price: Decimal) -> LevelTrigger: ...
@overload
def start(waiting: TrailTrigger, *, price: Decimal) -> TrailTrigger: ...
def start(waiting: LevelTrigger | TrailTrigger, *, price: Decimal) -> LevelTrigger | TrailTrigger:
    """Return a trigger armed by the one it waited for; a trail is measured from the price that started it."""
    if isinstance(waiting, TrailTrigger):
        return replace(waiting, after="", best=price)
    return replace(waiting, after="")


def restart(timer: TimerTrigger, *, at: datetime) -> TimerTrigger:
    """Return a stagnation measured anew from a moment at which the price had moved far enough."""
    return replace(timer, due_at=at + timedelta(seconds=timer.span_seconds or 0))


def restart_gate(gate: LevelTrigger, *, price: Decimal, move_pct: Decimal) -> LevelTrigger:
    """Return a stagnation's level, so many percent away from the price it is measured from now."""
    return replace(gate, level=moved_level(price, pct=move_pct, direction=gate.direction))


def step_in_force(steps: Sequence[Step], *, at: datetime) -> Step | None:
    """Return the step a decaying target has reached, None before its first one."""
    return max((step for step in steps if step.due_at <= at), key=lambda step: step.due_at, default=None)


def next_step(steps: Sequence[Step], *, at: datetime) -> Step | None:
    """Return the step a decaying target will take next, None after its last one."""
    return min((step for step in steps if step.due_at > at), key=lambda step: step.due_at, default=None)
