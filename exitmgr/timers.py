"""What time alone brings about: timers that are due, and decaying targets that take their next step."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import F

from exitmgr.armed import armed_triggers
from exitmgr.arming import take_steps
from exitmgr.firing import Fired, fire
from exitmgr.models import Trigger
from exitmgr.probes import Candidate
from exitmgr.rules.types import TriggerKind
from exitmgr.states import TriggerStatus
from positions.locks import lock_positions
from positions.models import Quote

TRIGGERS_AT_ONCE: Final = 250


def take_due_steps(*, now: datetime) -> int:
    """Move every decaying target whose step is due; return how many. The scan that follows judges them."""
    total = 0
    while True:
        with transaction.atomic(durable=True):
            due = _due(TriggerKind.LEVEL, now=now)
            if not due:
                return total
            lock_positions(candidate.position_id for candidate in due)
            armed = armed_triggers([candidate.trigger_id for candidate in due])
            seqs = dict(
                Quote.objects.filter(pk__in={trigger.instrument_id for trigger in armed}).values_list("pk", "seq")
            )
            moved = take_steps(armed, seqs=seqs, now=now)
            total += moved
            if not moved:
                return total


def fire_timers(*, now: datetime) -> int:
    """Leave the positions whose time has come, at whatever price there is; return how many exit orders were made."""
    total = 0
    while True:
        with transaction.atomic(durable=True):
            due = _due(TriggerKind.TIMER, now=now)
            done: Fired = fire(due, now=now)
            total += done.orders
        if len(due) < TRIGGERS_AT_ONCE or not done.changed:
            return total


def _due(kind: TriggerKind, *, now: datetime) -> list[Candidate]:
    """Return what is due; timers of positions that are wholly claimed wait for what the other exits give back."""
    rows = Trigger.objects.filter(kind=kind, status=TriggerStatus.ARMED, due_at__lte=now)
    if kind is TriggerKind.TIMER:
        rows = rows.filter(position__quantity__gt=F("position__exited") + F("position__reserved"))
    found = rows.order_by("due_at", "pk").values_list("pk", "position_id", "instrument_id")[:TRIGGERS_AT_ONCE]
    return [Candidate(*row) for row in found]
