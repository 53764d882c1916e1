"""Doors for Celery: the clock and one call each."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from exitmgr import advance as advancing
from exitmgr import calendar_watch, external_risk, history, scans, stale_prices, trails, watch
from exitmgr import sweep as sweeping
from exitmgr.reconcile.looks import look_once, ring_for_due_accounts
from orders.brokers.registry import connect


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


@shared_task(name="exitmgr.tidy_cohorts")
def tidy_cohorts(**_later: object) -> int:
    """Forget trails that are armed no more."""
    return trails.tidy_cohorts()


@shared_task(name="exitmgr.tell_of_stale_prices")
def tell_of_stale_prices(**_later: object) -> int:
    """Call people where a price that is needed has stopped coming."""
    return stale_prices.tell_of_stale_prices(now=datetime.now(UTC))


@shared_task(name="exitmgr.refresh_bars")
def refresh_bars(**_later: object) -> int:
    """Fetch bars of what is held from its brokers."""
    return history.refresh_held_bars(now=datetime.now(UTC), connect=connect)


@shared_task(name="exitmgr.ask_about_exits")
def ask_about_exits(**_later: object) -> int:
    """Ask the external risk system about exits that are on their way."""
    return external_risk.ask_about_exits(now=datetime.now(UTC))


@shared_task(name="exitmgr.reconcile")
def reconcile(*, account_id: int | None = None, **_later: object) -> int:
    """Compare an account with its broker; without one ring for each that is due."""
    if account_id is None:
        return ring_for_due_accounts(now=datetime.now(UTC))
    return look_once(account_id=account_id, connect=connect, clock=lambda: datetime.now(UTC))


@shared_task(name="exitmgr.keep_sessions")
def keep_sessions(**_later: object) -> int:
    """Have the table of trading sessions filled where it runs short."""
    return len(calendar_watch.keep_sessions(now=datetime.now(UTC)))
