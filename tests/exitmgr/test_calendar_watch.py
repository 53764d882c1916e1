"""The table of sessions stays ahead of the clock, and a calendar that ends calls a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from alerts.models import Alert
from exitmgr.calendar_watch import keep_sessions, start_filling
from positions.models import Session
from tests.factories import make_instrument

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
DAY = timedelta(days=1)
pytestmark = pytest.mark.django_db


def reaching(calendar: str, days: int) -> None:
    """Let the table know a calendar for so many days."""
    Session.objects.filter(calendar=calendar).delete()
    last = NOW + days * DAY
    Session.objects.create(calendar=calendar, opens_at=last - timedelta(hours=6), closes_at=last)


class Filler:
    """Fills calendars for as long as it is told to, and notes which it was asked for."""

    def __init__(self, days: int | None) -> None:
        self.days, self.asked = days, list[list[str]]()

    def __call__(self, calendars: Sequence[str]) -> None:
        self.asked.append(list(calendars))
        for calendar in calendars:
            if self.days is not None:
                reaching(calendar, self.days)


def open_alerts() -> list[str]:
    """Return the keys of the alerts that are not settled."""
    keys = Alert.objects.filter(resolved_at__isnull=True).order_by("dedupe_key")
    return list(keys.values_list("dedupe_key", flat=True))


@pytest.fixture(autouse=True)
def instruments() -> None:
    """Trade in New York, in Shanghai, and around the clock."""
    for symbol, calendar in (("AAPL", "XNYS"), ("600519", "XSHG"), ("BTC/USD", "24/7")):
        make_instrument(symbol, calendar=calendar)


def test_what_is_missing_is_filled_once() -> None:
    fill = Filler(days=400)
    assert keep_sessions(now=NOW, start=fill) == ["XNYS", "XSHG"]
    assert keep_sessions(now=NOW, start=fill) == []
    assert fill.asked == [["XNYS", "XSHG"]]
    assert open_alerts() == []


@pytest.mark.parametrize(
    ("_case", "days", "asked"),
    [("ten days after a fill", 390, []), ("a day later", 389, [["XNYS"]]), ("about to end", 13, [["XNYS"]])],
)
def test_what_runs_short_is_filled(_case: str, days: int, asked: list[list[str]]) -> None:
    reaching("XNYS", days)
    reaching("XSHG", 400)
    fill = Filler(days=400)
    keep_sessions(now=NOW, start=fill)
    assert fill.asked == asked


@pytest.mark.parametrize(
    ("_case", "days", "later", "rounds"),
    [
        ("short, within the day", 41, DAY, 1),
        ("short, after it", 41, DAY + timedelta(microseconds=1), 2),
        ("ending, within ten minutes", 13, timedelta(minutes=10), 1),
        ("ending, after them", 13, timedelta(minutes=10, microseconds=1), 2),
    ],
)
def test_what_could_not_be_filled_is_tried_again_later(_case: str, days: int, later: timedelta, rounds: int) -> None:
    reaching("XNYS", 400)
    reaching("XSHG", days)
    fill = Filler(days=None)
    for now in (NOW, NOW + later):
        keep_sessions(now=now, start=fill)
    assert fill.asked == [["XSHG"]] * rounds


def test_a_calendar_that_ends_calls_a_person_until_it_goes_on() -> None:
    reaching("XNYS", 400)
    reaching("XSHG", 13)
    seen = []
    for minutes, fill in (
        (0, Filler(None)),
        (5, Filler(None)),
        (11, Filler(None)),
        (22, Filler(400)),
        (23, Filler(400)),
    ):
        keep_sessions(now=NOW + timedelta(minutes=minutes), start=fill)
        seen.append(open_alerts())
    assert seen == [[], [], ["calendar_ends:XSHG"], ["calendar_ends:XSHG"], []]
    alert = Alert.objects.get()
    assert "manage.py sessions XSHG" in alert.message
    assert alert.requires_action


@pytest.mark.django_db(transaction=True)
def test_the_filling_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    children: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def watched(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        child = popen(*args, **kwargs)  # type: ignore[call-overload]
        children.append(child)
        return child  # type: ignore[no-any-return]

    settings = connection.settings_dict
    url = (
        f"postgres://{settings['USER']}:{settings['PASSWORD']}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    )
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setattr(subprocess, "Popen", watched)

    start_filling(["XNYS"])

    assert children[0].wait(timeout=60) == 0
    assert Session.objects.filter(calendar="XNYS", closes_at__gt=datetime.now(UTC) + 390 * DAY).exists()
