"""Keeps the table of trading sessions ahead of the clock, and calls a person when a calendar comes to its end.

The sessions are computed in a process of their own, which nobody waits for: it would double a worker's memory, and
hold up what else the worker has to do. A later round sees what it came to.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings

from alerts.models import Alert, Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.sweep import beat, is_silent
from positions.sessions import ENOUGH, calendars_in_use, calendars_short_of

log = logging.getLogger(__name__)

#: A calendar that ends sooner than this needs a person.
ALARM: Final = timedelta(days=14)
#: How long a filling may take before it is tried again: of a calendar that is about to end, and of others.
TRY_AGAIN: Final = timedelta(minutes=10)
TRY_AGAIN_LATER: Final = timedelta(days=1)
_ALERT: Final = "calendar_ends"


def start_filling(calendars: Sequence[str]) -> None:
    """Start the command that fills the table; what it says goes where our own log goes."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "sessions", *calendars]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def keep_sessions(*, now: datetime, start: Callable[[Sequence[str]], None] = start_filling) -> list[str]:
    """Have the calendars filled of which too little is left, and return those that needed it.

    One that was filled and is about to end all the same raises an alert, which is settled once it no longer is.
    """
    used = calendars_in_use()
    wanting = calendars_short_of(now + ENOUGH, calendars=used)
    ending = calendars_short_of(now + ALARM, calendars=wanting)
    due = [
        calendar
        for calendar in wanting
        if is_silent(name=_filling(calendar), now=now, after=TRY_AGAIN if calendar in ending else TRY_AGAIN_LATER)
    ]
    for calendar in due:
        if calendar in ending and not is_silent(name=_filling(calendar), now=now, after=TRY_AGAIN_LATER):
            _call_for_help(calendar, now=now)
        beat(name=_filling(calendar), now=now)
    if due:
        log.info("sessions_wanted calendars=%s", ",".join(due))
        start(due)
    _settle(ending, now=now)
    return due


def _filling(calendar: str) -> str:
    return f"sessions of {calendar}"


def _call_for_help(calendar: str, *, now: datetime) -> None:
    raise_alert(
        kind=_ALERT,
        severity=Severity.WARNING,
        title=f"The exchange calendar {calendar} ends within {ALARM.days} days",
        message=(
            "After its end, exits at the session's close go by the usual hours, which know of no holidays and half "
            f"days. Update the package exchange_calendars, then run: manage.py sessions {calendar}"
        ),
        dedupe_key=f"{_ALERT}:{calendar}",
        requires_action=True,
        now=now,
    )


def _settle(ending: Sequence[str], *, now: datetime) -> None:
    raised = Alert.objects.filter(kind=_ALERT, resolved_at__isnull=True).values_list("dedupe_key", flat=True)
    for key in set(raised) - {f"{_ALERT}:{calendar}" for calendar in ending}:
        resolve_alerts(dedupe_key=key, now=now)
