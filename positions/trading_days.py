"""Trading sessions straight from the package exchange_calendars; it loads pandas, so workers read the table instead."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from positions.calendars import ALWAYS_OPEN, require_calendar

#: Longer than any exchange was ever closed in a row.
_LONGEST_CLOSURE: Final = timedelta(days=21)


class TradingSession(NamedTuple):
    """When a session opens and closes; a break at noon belongs to it."""

    opens_at: datetime
    closes_at: datetime


class CalendarUnavailable(Exception):
    """The package cannot say what was asked; the message says why."""


def sessions_between(calendar: str, *, start: date, end: date) -> list[TradingSession]:
    """Return the sessions of the days from start to end, as far ahead as the package knows them.

    :raises UnknownCalendar: there is no such calendar.
    :raises CalendarUnavailable: the package cannot build it for these days; a venue that never closes has none.
    """
    if require_calendar(calendar) == ALWAYS_OPEN:
        raise CalendarUnavailable(f"{calendar} has no sessions: it never closes")
    # a calendar without a single session is an error to the package
    schedule = _schedule(calendar, start, end + _LONGEST_CLOSURE)
    return [
        TradingSession(opens_at.to_pydatetime().astimezone(UTC), closes_at.to_pydatetime().astimezone(UTC))
        for day, opens_at, closes_at in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
        if start <= day.date() <= end
    ]


def calendar_closes(calendar: str, start: datetime, end: datetime) -> list[datetime]:
    """Return every close after `start`, up to the first one at or after `end`; none for a venue that never closes.

    :raises UnknownCalendar: there is no such calendar.
    :raises CalendarUnavailable: the package cannot build it for these days, or does not know a close so late.
    """
    if require_calendar(calendar) == ALWAYS_OPEN:
        return []
    first, last = start.astimezone(UTC).date() - timedelta(days=1), end.astimezone(UTC).date() + _LONGEST_CLOSURE
    closes = [session.closes_at for session in sessions_between(calendar, start=first, end=last)]
    found = [close for close in closes if close > start]
    later = next((place for place, close in enumerate(found) if close >= end), None)
    if later is None:
        raise CalendarUnavailable(f"the calendar {calendar} does not reach {end:%Y-%m-%d}")
    return found[: later + 1]


def _schedule(calendar: str, start: date, end: date) -> Any:
    import exchange_calendars
    from pandas.errors import Pandas4Warning

    # some calendars are only recorded to the end of a year, and take no later end than the one they choose themselves
    first_error = ""
    for last in (end.isoformat(), None):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Pandas4Warning)  # the package's affair with the next pandas, not ours
                return exchange_calendars.get_calendar(calendar, start=start.isoformat(), end=last).schedule
        except (ValueError, NotImplementedError) as error:
            first_error = first_error or str(error)
    raise CalendarUnavailable(f"the calendar {calendar} cannot be built from {start}: {first_error[:200]}")
