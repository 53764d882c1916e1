"""The sweep: whatever a lost message, a killed worker or a silent broker left behind is taken up again."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from exitmgr.advance import advance
from exitmgr.models import Heartbeat
from orders.lanes import ring_lanes
from orders.sync import due_orders

log = logging.getLogger(__name__)


def sweep(*, now: datetime) -> int:
    """Ring again for orders that nobody holds and advance orders with news; return how many were rung."""
    due = due_orders(now=now)
    if due:
        ring_lanes(due)
        log.info("sweep_rang orders=%s", len(due))
    advance(now=now)
    return len(due)


def beat(*, name: str, now: datetime) -> None:
    """Note that a part of the system has just done its work."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": now})


def is_silent(*, name: str, now: datetime, after: timedelta) -> bool:
    """Return whether nothing was heard of a part for longer than `after`, or ever."""
    return not Heartbeat.objects.filter(name=name, at__gte=now - after).exists()
