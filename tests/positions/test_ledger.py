"""The money side of stored positions: entries, reservations, exits, and what is written back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from positions.ledger import (
    add_entry_fill,
    add_exit_fill,
    book_of,
    open_position,
    release,
    reserve,
    save_positions,
)
from positions.models import Account, Instrument, Position
from positions.pnl import Oversold
from positions.states import IllegalMove, PositionStatus
from positions.values import Side

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
D = Decimal


def opened(*, side: Side = Side.LONG, quantity: Any = 10, price: Any = 100, fee: Any = 0) -> Position:
    """Return a stored position."""
    account = Account.objects.create(name="a", broker="paper", created_at=NOW, updated_at=NOW)
    instrument = Instrument.objects.create(symbol="AAPL")
    return open_position(
        account=account, instrument=instrument, side=side, quantity=D(quantity), price=D(price), fee=D(fee),
        opened_at=NOW, strategy="trend",
    )  # fmt: skip


def sell(position: Position, *, quantity: Any, price: Any, fee: Any = 0, released: Any = None) -> None:
    """Book one exit fill of order 7."""
    add_exit_fill(
        position, quantity=D(quantity), price=D(price), fee=D(fee), at=LATER, order_id=7, reason="stop_loss",
        released=D(quantity if released is None else released),
    )  # fmt: skip


def test_an_entry_opens_a_position(db: None) -> None:
    opened(side=Side.SHORT, quantity="2.5", price="40", fee="0.5")

    held = Position.objects.get()
    assert (held.side, held.status, held.strategy, held.opened_at) == (-1, "open", "trend", NOW)
    assert (held.quantity, held.entry_cost, held.fees, held.realized_pnl) == (D("2.5"), 100, D("0.5"), D("-0.5"))
    assert (held.exited, held.reserved, held.exit_seq, held.closed_at) == (0, 0, 0, None)


def test_more_entries_move_the_average(db: None) -> None:
    position = opened()
    add_entry_fill(position, quantity=D(30), price=D(104), fee=D(1))
    save_positions([position])

    held = Position.objects.get()
    assert (held.quantity, held.entry_cost, held.average_entry) == (40, 4120, 103)
    assert (held.fees, held.realized_pnl, held.status) == (1, -1, "open")


def test_each_exit_gets_its_own_number(db: None) -> None:
    position = opened()

    assert [reserve(position, quantity=D(4)), reserve(position, quantity=D(6))] == [1, 2]
    save_positions([position])
    held = Position.objects.get()
    assert (held.reserved, held.available, held.exit_seq, held.status) == (10, 0, 2, "exit_pending")


@pytest.mark.parametrize(
    ("_case", "side", "price", "realized"),
    [
        ("a long that gained", Side.LONG, 103, "8.5"),
        ("a long that lost", Side.LONG, 97, "-15.5"),
        ("a short that gained", Side.SHORT, 97, "8.5"),
        ("a short that lost", Side.SHORT, 103, "-15.5"),
    ],
)
def test_a_partial_exit_realises_its_share(db: None, _case: str, side: Side, price: int, realized: str) -> None:
    position = opened(side=side, fee=2)
    reserve(position, quantity=D(10))
    sell(position, quantity=4, price=price, fee="1.5")
    save_positions([position])

    held = Position.objects.get()
    assert (held.exited, held.reserved, held.remaining, held.status) == (4, 6, 6, "exit_pending")
    assert (held.realized_pnl, held.fees, held.exit_value) == (D(realized), D("3.5"), 4 * price)
    assert (held.last_exit_price, held.last_exit_at, held.last_exit_order_id) == (price, LATER, 7)
    assert (held.exit_reason, held.closed_at) == ("stop_loss", None)


def test_the_last_fill_closes(db: None) -> None:
    position = opened()
    reserve(position, quantity=D(10))
    sell(position, quantity=4, price=103)
    sell(position, quantity=6, price=99)
    save_positions([position])

    held = Position.objects.get()
    assert (held.status, held.closed_at, held.remaining, held.reserved) == ("closed", LATER, 0, 0)
    assert held.realized_pnl == 4 * 3 - 6


@pytest.mark.parametrize(
    ("_case", "left", "status"),
    [
        ("just below the dust", "0.000999999", PositionStatus.CLOSED),
        ("exactly the dust", "0.001", PositionStatus.EXIT_PENDING),
    ],
)
def test_dust_counts_as_closed(db: None, _case: str, left: str, status: PositionStatus) -> None:
    position = opened()
    reserve(position, quantity=D(10))
    sell(position, quantity=D(10) - D(left), price=100)

    assert position.status == status
    assert position.closed_at == (LATER if status == PositionStatus.CLOSED else None)
    assert position.remaining == D(left)


def test_more_than_is_held_cannot_be_sold(db: None) -> None:
    position = opened()
    reserve(position, quantity=D(10))
    before = book_of(position)

    with pytest.raises(Oversold):
        sell(position, quantity="10.000000001", price=100)

    assert book_of(position) == before
    assert (position.reserved, position.status, position.last_exit_price) == (10, "exit_pending", None)


@pytest.mark.parametrize(
    ("_case", "sold", "status"),
    [("nothing was sold", 0, PositionStatus.OPEN), ("some was sold", 4, PositionStatus.PARTIAL_EXIT)],
)
def test_an_exit_that_ends_frees_what_it_claimed(db: None, _case: str, sold: int, status: PositionStatus) -> None:
    position = opened()
    reserve(position, quantity=D(10))
    if sold:
        sell(position, quantity=sold, price=100)
    release(position, quantity=D(10 - sold))
    save_positions([position])

    held = Position.objects.get()
    assert (held.reserved, held.status, held.available) == (0, status, 10 - sold)


def test_a_second_live_exit_keeps_the_position_pending(db: None) -> None:
    position = opened()
    reserve(position, quantity=D(4))
    reserve(position, quantity=D(6))

    release(position, quantity=D(4))
    assert (position.reserved, position.status) == (6, "exit_pending")
    release(position, quantity=D(6))
    assert (position.reserved, position.status) == (0, "open")


def test_a_closed_position_takes_no_entry(db: None) -> None:
    position = opened()
    reserve(position, quantity=D(10))
    sell(position, quantity=10, price=100)

    with pytest.raises(IllegalMove):
        add_entry_fill(position, quantity=D(1), price=D(100), fee=D(0))
    with pytest.raises(IllegalMove):
        reserve(position, quantity=D(1))

    assert (position.quantity, position.reserved, position.exit_seq) == (10, 0, 1)


def test_many_positions_are_written_in_one_statement(db: None, django_assert_num_queries: Any) -> None:
    first = opened()
    second = open_position(
        account=first.account, instrument=first.instrument, side=Side.SHORT, quantity=D(1), price=D(50), opened_at=NOW
    )  # fmt: skip
    reserve(first, quantity=D(3))
    reserve(second, quantity=D(1))

    with django_assert_num_queries(1):
        save_positions([first, second])
    with django_assert_num_queries(0):
        save_positions([])

    assert list(Position.objects.order_by("pk").values_list("reserved", flat=True)) == [3, 1]
