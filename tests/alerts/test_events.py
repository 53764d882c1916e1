"""The journal: written in order, with exact figures, and never changed, deleted or emptied."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection, transaction

from alerts.events import Happening, write_events
from alerts.models import Event

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def test_events_keep_their_order_and_their_figures():
    write_events(
        (
            Happening(kind=f"step_{number}", actor="ann", order_ref=number, data={"price": Decimal("1.10"), "at": NOW})
            for number in range(50)
        ),
        now=NOW,
    )
    events = list(Event.objects.order_by("pk"))
    assert [event.kind for event in events] == [f"step_{number}" for number in range(50)]
    assert [event.order_ref for event in events] == list(range(50))
    assert events[0].data == {"price": "1.10", "at": "2026-03-02T14:30:00Z"}
    assert {(event.at, event.actor, event.position_ref) for event in events} == {(NOW, "ann", None)}


def test_no_events_are_no_statement(django_assert_num_queries):
    with django_assert_num_queries(0):
        write_events([], now=NOW)


def test_an_event_is_gone_with_the_change_it_tells():
    with pytest.raises(RuntimeError, match="rolled back"), transaction.atomic():
        write_events([Happening(kind="never")], now=NOW)
        raise RuntimeError("rolled back")
    assert Event.objects.count() == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE alerts_event SET kind = 'changed'",
        "UPDATE alerts_event SET at = now() WHERE id = 0 OR true",
        "DELETE FROM alerts_event",
    ],
)
def test_an_event_is_never_changed_nor_deleted(sql):
    write_events([Happening(kind="kept")], now=NOW)
    with pytest.raises(DatabaseError, match="Cannot update or delete rows"), transaction.atomic():
        _run(sql)
    assert list(Event.objects.values_list("kind", "at")) == [("kept", NOW)]


def test_the_journal_is_never_emptied():
    """The runner of this suite needs the guard off between tests; here it stands as it does in production."""
    write_events([Happening(kind="kept")], now=NOW)
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE '%%event_is_never_emptied%%'")
        (name,) = cursor.fetchone()
    with pytest.raises(DatabaseError, match="the journal is append-only"), transaction.atomic():
        _run(f'ALTER TABLE alerts_event ENABLE TRIGGER "{name}"')
        _run("TRUNCATE alerts_event")
    assert Event.objects.count() == 1


def _run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
