"""When exchanges open and close, from the table of sessions: half days, holidays and daylight saving included.

The table reaches from two years back to a year ahead. A calendar it does not reach is an error here, never a guess:
`usual_close` of `positions.calendars` is the guess, for who must have one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction
from django.db.models import Max

from positions.calendars import ALWAYS_OPEN
from positions.models import Instrument, Session
from positions.trading_days import CalendarUnavailable, TradingSession, sessions_between

#: What the table is filled with, around now.
AHEAD: Final = timedelta(days=400)
BEHIND: Final = timedelta(days=730)
#: It is filled again when less than this is left of it.
ENOUGH: Final = timedelta(days=390)


class NoSessions(LookupError):
    """The table holds no session of this calendar that ends after the moment asked about."""


def next_close(calendar: str, after: datetime) -> datetime | None:
    """Return the end of the session a moment lies in, or else of the next one; None where the venue never closes.

    :raises NoSessions: the table does not reach that far.
    """
    session = _session_after(calendar, after)
    return session.closes_at if session else None


def is_open(calendar: str, at: datetime) -> bool:
    """Return whether a session is on; it is at its opening and no more at its close. A break at noon counts as open.

    :raises NoSessions: the table does not reach that far.
    """
    session = _session_after(calendar, at)
    return session is None or session.opens_at <= at


def next_open(calendar: str, at: datetime) -> datetime:
    """Return when the venue opens next, or the moment itself while it is open.

    :raises NoSessions: the table does not reach that far.
    """
    session = _session_after(calendar, at)
    return at if session is None else max(at, session.opens_at)


def _session_after(calendar: str, at: datetime) -> TradingSession | None:
    """Return the first session that ends after a moment, None where the venue never closes."""
    if calendar == ALWAYS_OPEN:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT opens_at, closes_at FROM positions_session WHERE calendar = %s AND closes_at > %s"
            " ORDER BY closes_at LIMIT 1",
            [calendar, at],
        )
        row = cursor.fetchone()
    if row is None:
        raise NoSessions(f"no session of {calendar} after {at:%Y-%m-%d %H:%M} UTC is known")
    return TradingSession(*row)


def calendars_in_use() -> set[str]:
    """Return the calendars of all instruments, less the one that needs no sessions."""
    names = Instrument.objects.exclude(calendar=ALWAYS_OPEN).order_by().values_list("calendar", flat=True)
    return set(names.distinct())


def calendars_short_of(until: datetime, *, calendars: Collection[str]) -> list[str]:
    """Return those calendars of which the table knows no session that ends so late, by name."""
    known = Session.objects.filter(calendar__in=calendars).values_list("calendar").annotate(last=Max("closes_at"))
    reached = {name for name, last in known.order_by() if last >= until}
    return sorted(set(calendars) - reached)


def fill_sessions(calendar: str, *, now: datetime, ahead: timedelta = AHEAD, behind: timedelta = BEHIND) -> datetime:
    """Write a calendar's sessions around now over what the table had, and return the end of the last one.

    :raises UnknownCalendar: there is no such calendar.
    :raises CalendarUnavailable: the package cannot say its sessions.
    """
    start, today, end = (moment.date() for moment in (now - behind, now, now + ahead))
    try:
        found = sessions_between(calendar, start=start, end=end)
    except CalendarUnavailable:  # of some only the past is broken
        found = sessions_between(calendar, start=today, end=end)
    if not found:
        raise CalendarUnavailable(f"the calendar {calendar} has no session from {today} to {end}")
    _replace(calendar, found)
    return found[-1].closes_at


def _replace(calendar: str, sessions: Sequence[TradingSession]) -> None:
    """Let the table say of these days what the sessions say; a half day may have become a holiday."""
    rows = [Session(calendar=calendar, opens_at=session.opens_at, closes_at=session.closes_at) for session in sessions]
    with transaction.atomic():
        Session.objects.filter(calendar=calendar, opens_at__gte=sessions[0].opens_at).delete()
        Session.objects.bulk_create(rows)
