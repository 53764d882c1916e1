"""Beat: started as often as one likes, one ticks; when its session dies the next takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from celery import Celery
from django.db import connection

from config.schedule import RETRY_SECONDS, SoleScheduler

pytestmark = pytest.mark.django_db


class Recording(SoleScheduler):
    """Notes what it would send."""

    producer: Any = None

    def __init__(self, *, every: timedelta = timedelta(0)) -> None:
        self.sent: list[str] = []
        super().__init__(Celery("beats", set_as_current=False), lazy=True)
        self.update_from_dict({"scan": {"task": "exitmgr.scan", "schedule": every}})

    def apply_async(self, entry: Any, *_args: Any, **_options: Any) -> None:
        """Note the task."""
        self.reserve(entry)
        self.sent.append(entry.task)


@pytest.fixture
def database_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let beats compete for the lock of the test database, not for that of a stack that runs beside the tests."""
    known = connection.settings_dict
    password = quote(known["PASSWORD"], safe="")
    url = f"postgresql://{known['USER']}:{password}@{known['HOST']}:{known['PORT']}/{known['NAME']}"
    monkeypatch.setenv("DATABASE_URL", url)
    return url


@pytest.fixture
def new_beat(database_url: str) -> Iterator[Callable[..., Recording]]:
    """Return a maker of beats, which are closed in the end."""
    made: list[Recording] = []

    def make(**options: Any) -> Recording:
        made.append(Recording(**options))
        return made[-1]

    yield make
    for beat in made:
        if beat._session is not None:
            beat._session.close()


def end_session_of(beat: Recording, *, url: str) -> None:
    """End a beat's session from outside, as a restart of Postgres or a cut line would."""
    assert beat._session is not None
    with psycopg.connect(url) as other:
        ended = other.execute("SELECT pg_terminate_backend(%s, 5000)", [beat._session.info.backend_pid]).fetchone()
    assert ended == (True,)


def test_one_of_two_beats_ticks(new_beat):
    first, second = new_beat(), new_beat()
    first.tick()
    assert second.tick() == RETRY_SECONDS
    first.tick()
    assert (first.sent, second.sent) == (["exitmgr.scan"] * 2, [])


def test_a_beat_never_sleeps_longer_than_a_second(new_beat):
    assert new_beat(every=timedelta(hours=1)).tick() == RETRY_SECONDS


def test_the_next_beat_takes_over_when_the_session_of_the_first_dies(new_beat, database_url, caplog):
    first, second = new_beat(), new_beat()
    first.tick()
    end_session_of(first, url=database_url)
    second.tick()
    assert second.sent == ["exitmgr.scan"]
    assert first.tick() == RETRY_SECONDS, "ticked without knowing whether it still may"
    assert "beat_lost_database" in caplog.text
    assert first.tick() == RETRY_SECONDS
    assert first.sent == ["exitmgr.scan"]
    end_session_of(second, url=database_url)
    first.tick()
    assert first.sent == ["exitmgr.scan"] * 2


def test_a_beat_that_ends_gives_its_place_up_at_once(new_beat):
    first, second = new_beat(), new_beat()
    first.tick()
    first.close()
    second.tick()
    assert second.sent == ["exitmgr.scan"]


def test_while_the_database_is_away_nothing_is_sent(new_beat, database_url, monkeypatch, caplog):
    beat = new_beat()
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert beat.tick() == RETRY_SECONDS
    assert (beat.sent, "beat_lost_database" in caplog.text) == ([], True)
    monkeypatch.setenv("DATABASE_URL", database_url)
    beat.tick()
    assert beat.sent == ["exitmgr.scan"]
