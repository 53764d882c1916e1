"""The watch of a stop worker: when beat or Redis falls silent it scans, sweeps and sends by itself, from Postgres."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import Error, close_old_connections

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.advance import advance
from exitmgr.scans import scan
from exitmgr.sweep import beat, is_silent
from orders.models import Lane
from orders.submit import Connect, submit
from orders.sync import due_orders

log = logging.getLogger(__name__)

#: Three missed beats.
SILENCE = timedelta(seconds=3)
HEARTBEAT = "scan"
_ALERT_KEY = "scan_silent"
_PROTECTIVE = (Lane.EMERGENCY, Lane.STOP_LOSS)


def keep_watch(
    *, clock: Callable[[], datetime], sleep: Callable[[float], object], connect: Connect, worker: str
) -> None:
    """Look each second, for ever; a database that is away is waited for, and no failure ends it."""
    standing_in: bool | None = None
    sleep(SILENCE.total_seconds())  # after a start of everything, beat has its three seconds like any other time
    while True:
        sleep(1.0)
        try:
            close_old_connections()
            standing_in = stand_in_if_silent(clock=clock, connect=connect, worker=worker, was=standing_in)
        except Error as error:
            log.warning("watch_lost_database error=%s", error)
        except Exception:
            log.exception("watch_failed")  # nobody stands in for the one who stands in


def stand_in_if_silent(*, clock: Callable[[], datetime], connect: Connect, worker: str, was: bool | None) -> bool:
    """Do one round of scan, sweep and sending when no scheduled scan was heard of lately; return whether it was needed.

    `was` is what the last round returned, None before the first: an alert may be left of a watch that was restarted.
    """
    now = clock()
    if not is_silent(name=HEARTBEAT, now=now, after=SILENCE):
        if was is not False:
            log.info("watch_sees_scans")
            resolve_alerts(dedupe_key=_ALERT_KEY, now=now)
        return False
    if not was:
        log.error("watch_stands_in: no scheduled scan for %s", SILENCE)
        raise_alert(
            kind="scan_silent",
            severity=Severity.CRITICAL,
            title="Scheduled scans have stopped",
            message="The stop worker scans and sends stops by itself; check beat, the scan worker and Redis.",
            dedupe_key=_ALERT_KEY,
            requires_action=True,
            now=now,
        )
    scan(now=now, everything=True)
    advance(now=now)
    due = [order_id for order_id, lane in due_orders(now=now) if lane in _PROTECTIVE]
    if due:
        submit(order_ids=due, worker=f"watch of {worker}", connect=connect, clock=clock)
    return True


def note_scan(*, now: datetime) -> None:
    """Leave the sign of life that the watch looks for."""
    beat(name=HEARTBEAT, now=now)
