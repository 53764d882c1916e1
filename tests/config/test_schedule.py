"""Beat: started as often as one likes, one ticks; when its session dies the next takes over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.db import connection

from config.schedule import RETRY_SECONDS, SoleScheduler
from tests.races.crowd import at_once

pytestmark = pytest.mark.django_db(transaction=True)


class Recording(SoleScheduler):
    """Notes what it would send; whatever is scheduled is always due."""

    producer: Any = None

    def __init__(self) -> None:
        app = Celery("beats", set_as_current=False)
        self.sent: list[str] = []
        super().__init__(app, lazy=True)
        self.update_from_dict({"scan": {"task": "exitmgr.scan", "schedule": timedelta(0)}})

    def apply_async(self, entry: Any, *_args: Any, **_options: Any) -> None:
        """Note the task."""
        self.reserve(entry)
        self.sent.append(entry.task)


def in_a_session_of_its_own(call: Any) -> Any:
    """Run a call on another connection, which is closed afterwards."""
    (end,) = at_once(call)
    if isinstance(end, Exception):
        raise end
    return end


def session_id() -> int:
    """Return the id of this thread's database session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_one_of_two_beats_ticks():
    first, second = Recording(), Recording()
    first.tick()
    assert in_a_session_of_its_own(second.tick) == RETRY_SECONDS
    first.tick()
    assert (first.sent, second.sent) == (["exitmgr.scan"] * 2, [])
    connection.close()


def test_a_beat_never_sleeps_longer_than_a_second():
    beat = Recording()
    beat.update_from_dict({"rare": {"task": "rare", "schedule": timedelta(hours=1)}})
    assert 0 <= beat.tick() <= RETRY_SECONDS
    connection.close()


def test_the_next_beat_takes_over_when_the_session_of_the_first_dies():
    first, second = Recording(), Recording()
    first.tick()
    holder = session_id()

    def kill_and_tick() -> float:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [holder])
            assert cursor.fetchone() == (True,)
        return second.tick()

    in_a_session_of_its_own(kill_and_tick)
    assert second.sent == ["exitmgr.scan"]
    assert first.tick() == RETRY_SECONDS, "ticked without knowing whether it still may"
    assert first.sent == ["exitmgr.scan"]
    first.tick()  # the second is gone by now
    assert first.sent == ["exitmgr.scan"] * 2
    connection.close()


def test_a_session_that_was_replaced_unseen_does_not_tick_on_the_lock_of_another():
    first, second = Recording(), Recording()
    first.tick()
    connection.close()  # the lock is gone with it

    def tick_both() -> tuple[float, list[str]]:
        second.tick()
        (end,) = at_once(first.tick)
        assert isinstance(end, float), end
        return end, list(first.sent)

    assert in_a_session_of_its_own(tick_both) == (RETRY_SECONDS, ["exitmgr.scan"])
    assert second.sent == ["exitmgr.scan"]


def test_while_the_database_is_away_nothing_is_sent(monkeypatch, caplog):
    beat = Recording()
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    connection.close()
    assert beat.tick() == RETRY_SECONDS
    assert (beat.sent, "beat_lost_database" in caplog.text) == ([], True)
    monkeypatch.undo()
    beat.tick()
    assert beat.sent == ["exitmgr.scan"]
    connection.close()
