"""Doors for Celery: clock, worker name, one call each."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task
from celery.app.task import Task

from orders import submit, sync
from orders.brokers.registry import connect
from orders.metered import metered


def _clock() -> datetime:
    return datetime.now(UTC)


@shared_task(name="orders.submit", bind=True)
def submit_orders(self: Task[..., int], /, *, order_ids: list[int], **_later: object) -> int:
    """Send pending orders; a second delivery finds them claimed and stops."""
    return submit.submit(order_ids=order_ids, worker=str(self.request.hostname), connect=connect, clock=_clock)


@shared_task(name="orders.sync")
def sync_orders(**_later: object) -> int:
    """Ask brokers about working orders that have been quiet."""
    return sync.poll_quiet_orders(connect=metered(connect, clock=_clock), now=_clock())
