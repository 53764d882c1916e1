"""Doors for Celery: the clock and one call each."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from exitmgr import advance as advancing
from exitmgr import scans, watch
from exitmgr import sweep as sweeping


@shared_task(name="exitmgr.scan")
def scan(*, instrument_ids: list[int] | None = None, scheduled: bool = False, **_later: object) -> int:
    """Fire what the latest prices have reached; the scheduled one looks at everything and leaves a sign of life."""
    done = scans.scan(
        now=datetime.now(UTC), instrument_ids=instrument_ids, everything=scheduled, after_batch=_give_sign_of_life
    )
    if scheduled:
        _give_sign_of_life()
    return done.orders


def _give_sign_of_life() -> None:
    """A long scan is no silence: in a crash nobody needs the alarm that scans have stopped."""
    watch.note_scan(now=datetime.now(UTC))


@shared_task(name="exitmgr.advance")
def advance(**_later: object) -> int:
    """Work off orders that have news."""
    return advancing.advance(now=datetime.now(UTC))


@shared_task(name="exitmgr.sweep")
def sweep(**_later: object) -> int:
    """Take up what was left behind."""
    return sweeping.sweep(now=datetime.now(UTC))
