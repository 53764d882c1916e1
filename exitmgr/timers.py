"""What time alone brings about: timers that are due, and decaying targets that take their next step."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Exists, F, OuterRef, Q

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.armed import armed_triggers
from exitmgr.arming import take_steps
from exitmgr.firing import Fired, fire
from exitmgr.models import Trigger
from exitmgr.probes import Candidate
from exitmgr.rules.types import TriggerKind
from exitmgr.states import TriggerStatus
from orders.models import Order
from positions.locks import lock_positions
from positions.models import Quote

log = logging.getLogger(__name__)

TRIGGERS_AT_ONCE: Final = 250
_ALL: Final = Q()


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
    """Leave the positions whose time has come, at whatever price there is; return how many exit orders were made.

    A timer that cannot be judged calls a person and does not hold up the others.

    :raises OperationalError: the database went away.
    """
    total = 0
    failed: set[int] = set()
    while True:
        due = due_timers(now=now, leave_out=failed)
        if not due:
            return total
        done, failing = _fire_together(due, now=now)
        total += done.orders
        failed |= failing
        if not done.changed and not failing:
            return total


def _fire_together(due: Sequence[Candidate], *, now: datetime) -> tuple[Fired, set[int]]:
    """Fire these timers, one by one if they cannot be fired together; return what came of it and which failed."""
    try:
        with transaction.atomic(durable=True):
            return fire(due, now=now), set()
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("timers_failed trigger_ids=%s", [candidate.trigger_id for candidate in due])
        if len(due) == 1:
            _alert_not_judged(due[0], error, now=now)
            return Fired(), {due[0].trigger_id}
    outcomes = [_fire_together([candidate], now=now) for candidate in due]
    orders = sum(done.orders for done, _ in outcomes)
    changed = sum(done.changed for done, _ in outcomes)
    return Fired(orders=orders, changed=changed), set().union(*(failing for _, failing in outcomes))


def due_timers(*, now: datetime, leave_out: Collection[int] = ()) -> list[Candidate]:
    """Return timers that are due; those of positions wholly claimed wait for what the other exits give back.

    A stop that rests at the broker makes room for them, so it does not count as a claim.
    """
    resting = Order.objects.filter(position=OuterRef("position"), resting=True, ended_at__isnull=True)
    unclaimed = Q(position__quantity__gt=F("position__exited") + F("position__reserved")) | Exists(resting)
    return _due(TriggerKind.TIMER, unclaimed & ~Q(pk__in=leave_out), now=now)


def _due(kind: TriggerKind, which: Q = _ALL, *, now: datetime) -> list[Candidate]:
    live = Trigger.objects.filter(kind=kind, status=TriggerStatus.ARMED, position__frozen_at__isnull=True)
    rows = live.filter(which, due_at__lte=now)
    found = rows.order_by("due_at", "pk").values_list("pk", "position_id", "instrument_id")[:TRIGGERS_AT_ONCE]
    return [Candidate(*row) for row in found]


def _alert_not_judged(candidate: Candidate, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="timer_failed",
        severity=Severity.CRITICAL,
        title=f"Position {candidate.position_id} was to be left by now and was not",
        message=f"Its timer cannot be judged: {type(error).__name__}: {error}. Exit it by hand.",
        dedupe_key=f"timer_failed:{candidate.trigger_id}",
        requires_action=True,
        position_ref=candidate.position_id,
        now=now,
    )
