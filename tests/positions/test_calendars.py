"""The calendars known by name: as the package has them, near matches for others, and the usual hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import exchange_calendars
import pytest
from exchange_calendars.errors import InvalidCalendarName

from positions.calendars import ALIASES, ALWAYS_OPEN, USUAL_HOURS, UnknownCalendar, require_calendar, usual_close
from positions.trading_days import CalendarUnavailable, calendar_closes, sessions_between

#: With the pinned pandas the package cannot build these: they reckon by Orthodox Easter.
BROKEN = {"ASEX", "XBEL", "XBSE", "XCYS"}
SPRING = ("2026-03-02", "2026-04-01")
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of the package itself


def at(text: str) -> datetime:
    """Return a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_names_are_those_of_the_package() -> None:
    assert set(exchange_calendars.get_calendar_names(include_aliases=False)) == {
        *USUAL_HOURS, ALWAYS_OPEN, *BROKEN,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(USUAL_HOURS))
def test_the_usual_hours_are_those_of_the_package(name: str) -> None:
    calendar = exchange_calendars.get_calendar(name, *SPRING)
    zone, close, days = USUAL_HOURS[name]
    shift = calendar.close_offset  # a session that ends the day after begins on the day the package counts
    mask = calendar.weekmask[-shift:] + calendar.weekmask[:-shift] if shift else calendar.weekmask
    assert (zone, close, days) == (str(calendar.tz), f"{calendar.close_times[-1][1]:%H:%M}", mask)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_the_package_cannot_build_is_left_out(name: str) -> None:
    with pytest.raises(NotImplementedError):
        exchange_calendars.get_calendar(name, *SPRING)


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_aliases_are_those_of_the_package(alias: str, name: str) -> None:
    assert exchange_calendars.resolve_alias(alias) == name


@pytest.mark.parametrize(
    ("_case", "name", "hint"),
    [
        ("an alias", "NASDAQ", "did you mean XNYS?"),
        ("small letters", "xnys", "did you mean XNYS"),
        ("a slip", "XNYX", "did you mean XNYS"),
        ("round the clock, otherwise", "24x7", "did you mean 24/7"),
        ("nothing like it", "?", "use the exchange's market identifier"),
        ("nothing", "", "use the exchange's market identifier"),
    ],
)
def test_an_unknown_calendar_is_refused_with_what_may_be_meant(_case: str, name: str, hint: str) -> None:
    with pytest.raises(UnknownCalendar) as refused:
        require_calendar(name)
    assert hint in str(refused.value)
    assert repr(name) in str(refused.value)


def test_known_calendars_pass() -> None:
    assert [require_calendar(name) for name in ("XNYS", "24/7", "24/5")] == ["XNYS", "24/7", "24/5"]


@pytest.mark.parametrize(
    ("_case", "calendar", "after", "close"),
    [
        ("in winter", "XNYS", "2026-03-05T15:00", "2026-03-05T21:00"),
        ("in summer", "XNYS", "2026-03-10T15:00", "2026-03-10T20:00"),
        ("at the close itself", "XNYS", "2026-03-05T21:00", "2026-03-06T21:00"),
        ("from Friday's evening over the change of clocks", "XNYS", "2026-03-06T22:00", "2026-03-09T20:00"),
        ("before the day begins in Tokyo", "XTKS", "2026-03-05T23:00", "2026-03-06T06:30"),
        ("a Sunday that trades", "XSAU", "2026-03-07T09:00", "2026-03-08T12:00"),
        ("five days round the clock", "24/5", "2026-03-06T12:00", "2026-03-07T00:00"),
        ("the same over the weekend", "24/5", "2026-03-07T00:00", "2026-03-10T00:00"),
    ],
)
def test_the_usual_close(_case: str, calendar: str, after: str, close: str) -> None:
    assert usual_close(calendar, after=at(after)) == at(close)


def test_what_never_closes_has_no_close() -> None:
    assert usual_close("24/7", after=at("2026-03-05T15:00")) is None
    assert calendar_closes("24/7", at("2026-03-05T15:00"), at("2026-03-09T15:00")) == []
    with pytest.raises(CalendarUnavailable, match="it never closes"):
        sessions_between("24/7", start=date(2026, 3, 2), end=date(2026, 3, 6))


@pytest.mark.parametrize(
    ("_case", "start", "end", "closes"),
    [
        (
            "Thanksgiving and the half day after it",
            "2026-11-25T12:00",
            "2026-11-30T12:00",
            ["2026-11-25T21:00", "2026-11-27T18:00", "2026-11-30T21:00"],
        ),
        ("from a close on", "2026-11-25T21:00", "2026-11-27T18:00", ["2026-11-27T18:00"]),
        ("within one session", "2026-11-24T15:00", "2026-11-24T16:00", ["2026-11-24T21:00"]),
        (
            "over the change of clocks in autumn",
            "2026-10-30T19:00",
            "2026-11-02T15:00",
            ["2026-10-30T20:00", "2026-11-02T21:00"],
        ),
        (
            "the week without a market",
            "2001-09-10T15:00",
            "2001-09-14T15:00",
            ["2001-09-10T20:00", "2001-09-17T20:00"],
        ),
    ],
)
def test_the_closes_of_new_york(_case: str, start: str, end: str, closes: list[str]) -> None:
    assert calendar_closes("XNYS", at(start), at(end)) == [at(close) for close in closes]


def test_closes_beyond_what_is_recorded_are_an_error() -> None:
    recorded_until = exchange_calendars.get_calendar("XSHG").bound_max()
    beyond = at(f"{recorded_until.year + 1}-06-01")
    with pytest.raises(CalendarUnavailable, match="the calendar XSHG does not reach"):
        calendar_closes("XSHG", beyond - timedelta(days=400), beyond)


def test_sessions_carry_moments_in_utc() -> None:
    session = sessions_between("XTKS", start=date(2026, 3, 6), end=date(2026, 3, 8))
    assert session == [(at("2026-03-06T00:00"), at("2026-03-06T06:30"))]
    assert session[0].opens_at.tzinfo is UTC
    assert session[0].opens_at.astimezone(ZoneInfo("Asia/Tokyo")).hour == 9


def test_a_calendar_nobody_knows_is_an_error() -> None:
    with pytest.raises(UnknownCalendar):
        calendar_closes("NOPE", at("2026-03-05T15:00"), at("2026-03-06T15:00"))
    with pytest.raises(InvalidCalendarName):
        exchange_calendars.get_calendar("NOPE")
