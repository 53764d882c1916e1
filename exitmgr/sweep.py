"""The sweep: whatever a lost message, a killed worker or a silent broker left behind is taken up again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from django.db import InterfaceError, OperationalError

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.advance import advance
from exitmgr.backstop import watch_resting_stops
from exitmgr.models import Heartbeat
from exitmgr.protection import watch_protection
from exitmgr.upkeep import keep_stops_at_rest
from orders.lanes import ring_lanes
from orders.sync import due_orders

log = logging.getLogger(__name__)

#: It looks at every open position, so not at each sweep.
PROTECTION_EVERY: Final = timedelta(seconds=3)
_PROTECTION: Final = "protection"


def sweep(*, now: datetime) -> int:
    """Ring again for orders that nobody holds and advance orders with news; return how many were rung."""
    due = due_orders(now=now)
    if due:
        ring_lanes(due)
        log.info("sweep_rang orders=%s", len(due))
    advance(now=now)
    for tend in (watch_resting_stops, keep_stops_at_rest):
        _tend(tend, now=now)
    if is_silent(name=_PROTECTION, now=now, after=PROTECTION_EVERY):
        _tend(watch_protection, now=now)
        beat(name=_PROTECTION, now=now)
    return len(due)


def _tend(work: Callable[..., object], *, now: datetime) -> None:
    """Look after protection; what cannot be done calls a person and does not hold up the rest of the sweep."""
    try:
        work(now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("sweep_failed work=%s", work.__name__)
        raise_alert(
            kind="sweep_failed",
            severity=Severity.CRITICAL,
            title=f"The sweep cannot {work.__name__.replace('_', ' ')}",
            message=f"{type(error).__name__}: {error}. Everything else goes on; what is armed here fires as ever.",
            dedupe_key=f"sweep_failed:{work.__name__}",
            requires_action=True,
            now=now,
        )


def beat(*, name: str, now: datetime) -> None:
    """Note that a part of the system has just done its work."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": now})


def is_silent(*, name: str, now: datetime, after: timedelta) -> bool:
    """Return whether nothing was heard of a part for longer than `after`, or ever."""
    return not Heartbeat.objects.filter(name=name, at__gte=now - after).exists()
