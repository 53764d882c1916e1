"""The table of sessions: its fill from the package, and what it says of half days, holidays and clock changes."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command

from positions.models import Instrument, Session
from positions.sessions import (
    NoSessions,
    calendars_in_use,
    calendars_short_of,
    fill_sessions,
    is_open,
    next_close,
    next_open,
)
from positions.trading_days import CalendarUnavailable

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def at(text: str) -> datetime:
    """Return a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def new_york() -> None:
    """Fill the table with New York's sessions from the spring of 2026 to the next."""
    fill_sessions("XNYS", now=NOW, ahead=timedelta(days=120), behind=timedelta(days=270))


@pytest.mark.parametrize(
    ("_case", "moment", "opens", "closes", "is_on"),
    [
        ("a summer morning", "2026-07-07T13:00", "2026-07-07T13:30", "2026-07-07T20:00", False),
        ("the opening", "2026-07-07T13:30", "2026-07-07T13:30", "2026-07-07T20:00", True),
        ("within", "2026-07-07T15:00", "2026-07-07T15:00", "2026-07-07T20:00", True),
        ("the last moment", "2026-07-07T19:59:59", "2026-07-07T19:59:59", "2026-07-07T20:00", True),
        ("the close", "2026-07-07T20:00", "2026-07-08T13:30", "2026-07-08T20:00", False),
        ("a Friday's evening", "2026-07-10T21:00", "2026-07-13T13:30", "2026-07-13T20:00", False),
        ("the eve of Thanksgiving", "2026-11-25T22:00", "2026-11-27T14:30", "2026-11-27T18:00", False),
        ("the half day after it", "2026-11-27T17:00", "2026-11-27T17:00", "2026-11-27T18:00", True),
        ("that afternoon", "2026-11-27T18:00", "2026-11-30T14:30", "2026-11-30T21:00", False),
        ("Christmas", "2026-12-25T15:00", "2026-12-28T14:30", "2026-12-28T21:00", False),
        ("before the clocks go forward", "2026-03-06T21:00", "2026-03-09T13:30", "2026-03-09T20:00", False),
        ("before the clocks go back", "2026-10-30T20:00", "2026-11-02T14:30", "2026-11-02T21:00", False),
    ],
)
def test_sessions_of_new_york(new_york: None, _case: str, moment: str, opens: str, closes: str, is_on: bool) -> None:
    when = at(moment)
    assert (next_open("XNYS", when), next_close("XNYS", when), is_open("XNYS", when)) == (at(opens), at(closes), is_on)


def test_what_never_closes_needs_no_table() -> None:
    assert (next_open("24/7", NOW), next_close("24/7", NOW), is_open("24/7", NOW)) == (NOW, None, True)


@pytest.mark.parametrize("ask", [next_close, next_open, is_open])
def test_a_table_that_ends_is_an_error(new_york: None, ask: object) -> None:
    assert callable(ask)
    with pytest.raises(NoSessions, match="no session of XNYS after 2027-06-01 00:00 UTC is known"):
        ask("XNYS", at("2027-06-01"))
    with pytest.raises(NoSessions, match="no session of XLON"):
        ask("XLON", NOW)


def test_filling_again_replaces_what_the_table_had(new_york: None) -> None:
    sessions = Session.objects.order_by("opens_at").values_list("opens_at", "closes_at")
    before = list(sessions)
    half_day = Session.objects.get(closes_at=at("2026-11-27T18:00"))
    Session.objects.filter(pk=half_day.pk).update(closes_at=at("2026-11-27T21:00"))
    Session.objects.create(calendar="XNYS", opens_at=at("2026-12-25T14:30"), closes_at=at("2026-12-25T21:00"))
    Session.objects.create(calendar="XLON", opens_at=at("2026-12-25T08:00"), closes_at=at("2026-12-25T12:00"))

    until = fill_sessions("XNYS", now=NOW, ahead=timedelta(days=120), behind=timedelta(days=270))

    assert list(sessions.filter(calendar="XNYS")) == before
    assert before[-1][1] == until
    assert Session.objects.filter(calendar="XLON").count() == 1


def test_the_past_that_was_filled_before_stays(new_york: None) -> None:
    first = Session.objects.earliest("opens_at").opens_at
    fill_sessions("XNYS", now=NOW, ahead=timedelta(days=120), behind=timedelta(days=3))
    assert Session.objects.earliest("opens_at").opens_at == first


def test_a_calendar_whose_past_cannot_be_built_has_its_future() -> None:
    until = fill_sessions("XTAE", now=NOW, ahead=timedelta(days=60), behind=timedelta(days=730))
    assert until > NOW + timedelta(days=50)
    assert Session.objects.earliest("opens_at").opens_at > NOW - timedelta(days=1)


def test_a_calendar_that_is_recorded_to_a_year_is_filled_to_it() -> None:
    until = fill_sessions("XSHG", now=NOW, ahead=timedelta(days=20_000), behind=timedelta(days=10))
    assert (until.month, until.day) >= (12, 29)
    assert until < NOW + timedelta(days=20_000)


def test_nothing_to_fill_is_an_error() -> None:
    with pytest.raises(CalendarUnavailable, match="has no session"):
        fill_sessions("XNYS", now=at("2026-11-21T12:00"), ahead=timedelta(days=1), behind=timedelta(0))


def test_calendars_that_run_short_are_named(new_york: None) -> None:
    known = Session.objects.latest("closes_at").closes_at
    assert calendars_short_of(known, calendars=["XNYS", "XLON"]) == ["XLON"]
    assert calendars_short_of(known + timedelta(seconds=1), calendars=["XNYS", "XLON"]) == ["XLON", "XNYS"]
    assert calendars_short_of(known, calendars=[]) == []


def test_calendars_in_use_are_those_of_instruments() -> None:
    for symbol, calendar in (("AAPL", "XNYS"), ("MSFT", "XNYS"), ("BTC/USD", "24/7"), ("SAP", "XETR")):
        Instrument.objects.create(symbol=symbol, calendar=calendar)
    assert calendars_in_use() == {"XNYS", "XETR"}


def test_the_command_fills_what_is_in_use() -> None:
    Instrument.objects.create(symbol="AAPL", calendar="XNYS")
    said = io.StringIO()
    call_command("sessions", "--ahead-days", "30", "--past-days", "0", stdout=said)
    assert said.getvalue().startswith("XNYS: sessions are known until 20")
    assert Session.objects.filter(calendar="XNYS").count() >= 15


@pytest.mark.parametrize(
    ("_case", "arguments", "says", "code"),
    [
        ("an unknown calendar", ["NYSE"], "did you mean XNYS?", 2),
        ("no days", ["XNYS", "--ahead-days", "0"], "--ahead-days must be 1 or more", 2),
        ("no sessions", ["24/7"], "it never closes", 1),
    ],
)
def test_the_command_refuses_with_a_reason(_case: str, arguments: list[str], says: str, code: int) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("sessions", *arguments)
    assert says in str(refused.value)
    assert refused.value.returncode == code
    assert not Session.objects.exists()


def test_a_calendar_that_fails_does_not_stop_the_others() -> None:
    with pytest.raises(CommandError, match="24/7 has no sessions"):
        call_command("sessions", "24/7", "XNYS", "--ahead-days", "30", stdout=io.StringIO())
    assert set(Session.objects.values_list("calendar", flat=True)) == {"XNYS"}


def test_reading_the_table_loads_no_pandas() -> None:
    code = (
        "import django, sys; django.setup(); import positions.sessions, exitmgr.measures, exitmgr.tasks;"
        "print(sorted({'pandas', 'numpy', 'exchange_calendars', 'arch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
