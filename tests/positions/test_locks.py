"""The lock of a position: who holds it, who waits, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from positions.locks import lock_position, lock_positions
from positions.models import Account, Instrument, Position
from tests.positions.sessions import in_thread, somebody_waits_for_us
from tests.simulator.box import eventually

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def make_positions(count: int) -> list[int]:
    """Return the ids of stored positions."""
    account = Account.objects.create(name="a", broker="paper", created_at=NOW, updated_at=NOW)
    instrument = Instrument.objects.create(symbol="AAPL")
    made = [
        Position.objects.create(account=account, instrument=instrument, side=1, quantity=1, entry_cost=1, opened_at=NOW)
        for _ in range(count)
    ]
    return [position.pk for position in made]


@pytest.mark.django_db
def test_positions_come_back_by_id_and_are_locked_in_one_ordered_statement() -> None:
    first, second, third = make_positions(3)

    with transaction.atomic(), CaptureQueriesContext(connection) as asked:
        found = lock_positions([third, first, third, 10**12])

    assert list(found) == [first, third]
    assert {pk: position.pk for pk, position in found.items()} == {first: first, third: third}
    assert found[first].instrument.symbol == "AAPL"
    assert second not in found
    (statement,) = asked.captured_queries
    assert statement["sql"].endswith('ORDER BY "positions_position"."id" ASC FOR NO KEY UPDATE OF "positions_position"')


@pytest.mark.django_db
def test_nothing_to_lock_asks_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert lock_positions([]) == {}


@pytest.mark.django_db
def test_a_position_that_is_not_there_is_told() -> None:
    with pytest.raises(Position.DoesNotExist, match="there is no position 5"):
        lock_position(5)


@pytest.mark.django_db(transaction=True)
def test_a_lock_needs_a_transaction() -> None:
    (only,) = make_positions(1)

    with pytest.raises(TransactionManagementError):
        lock_position(only)


@pytest.mark.django_db(transaction=True)
def test_the_second_waits_and_sees_what_the_first_did() -> None:
    (only,) = make_positions(1)
    seen: list[str] = []

    def second() -> None:
        with transaction.atomic():
            seen.append(lock_position(only).strategy)

    with transaction.atomic():
        held = lock_position(only)
        waiting = in_thread(second)
        eventually(somebody_waits_for_us)
        assert seen == []
        held.strategy = "changed"
        held.save()
    waiting.join(timeout=5)

    assert seen == ["changed"]


@pytest.mark.django_db(transaction=True)
def test_opposite_orders_do_not_deadlock() -> None:
    first, second = make_positions(2)
    done: list[list[int]] = []

    def lock(ids: list[int]) -> None:
        for _ in range(20):
            with transaction.atomic():
                done.append(list(lock_positions(ids)))

    threads = [in_thread(lambda: lock([first, second])), in_thread(lambda: lock([second, first]))]
    for thread in threads:
        thread.join(timeout=20)

    assert done == [[first, second]] * 40


@pytest.mark.django_db(transaction=True)
def test_rows_that_refer_to_a_locked_position_can_be_added() -> None:
    (only,) = make_positions(1)
    added: list[int] = []

    def refer() -> None:
        with connection.cursor() as cursor:  # what a foreign key does on insert
            cursor.execute("SELECT id FROM positions_position WHERE id = %s FOR KEY SHARE NOWAIT", [only])
            added.append(cursor.fetchone()[0])

    with transaction.atomic():
        lock_position(only)
        in_thread(refer).join(timeout=5)

    assert added == [only]
