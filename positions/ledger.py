"""The money side of positions. Every change of a quantity goes through here, with the position's lock held.

Functions change the instance in memory; `save_positions` writes them back in one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from positions.models import Account, Instrument, Position
from positions.pnl import Book, book_entry, book_exit
from positions.rows import write_back
from positions.states import PositionEvent, PositionStatus, next_status
from positions.values import Side

_WRITTEN = (
    "status", "quantity", "exited", "reserved", "entry_cost", "exit_value", "fees", "realized_pnl", "exit_seq",
    "exit_reason", "last_exit_price", "last_exit_at", "last_exit_order_id", "closed_at",
)  # fmt: skip


def book_of(position: Position) -> Book:
    """Return the position's figures as the pure arithmetic wants them."""
    return Book(
        side=Side(position.side),
        entered=position.quantity,
        exited=position.exited,
        entry_cost=position.entry_cost,
        exit_value=position.exit_value,
        fees=position.fees,
        realized_pnl=position.realized_pnl,
    )


def _take_over(position: Position, book: Book) -> None:
    position.quantity = book.entered
    position.exited = book.exited
    position.entry_cost = book.entry_cost
    position.exit_value = book.exit_value
    position.fees = book.fees
    position.realized_pnl = book.realized_pnl


def _move(position: Position, event: PositionEvent) -> None:
    position.status = next_status(PositionStatus(position.status), event)


def open_position(
    *,
    account: Account,
    instrument: Instrument,
    side: Side,
    quantity: Decimal,
    price: Decimal,
    opened_at: datetime,
    fee: Decimal = Decimal(0),
    strategy: str = "",
) -> Position:
    """Create a position from its first entry fill, or from a holding somebody tells us about."""
    book = book_entry(Book(side=side), quantity=quantity, price=price, fee=fee)
    return Position.objects.create(
        account=account,
        instrument=instrument,
        strategy=strategy,
        side=side,
        quantity=book.entered,
        entry_cost=book.entry_cost,
        fees=book.fees,
        realized_pnl=book.realized_pnl,
        opened_at=opened_at,
    )


def add_entry_fill(position: Position, *, quantity: Decimal, price: Decimal, fee: Decimal) -> None:
    """Add one more entry fill.

    :raises IllegalMove: the position is closed; a later fill opens a new one.
    """
    _move(position, PositionEvent.ENTRY_FILLED)
    _take_over(position, book_entry(book_of(position), quantity=quantity, price=price, fee=fee))


def reserve(position: Position, *, quantity: Decimal) -> int:
    """Bind a quantity to a new exit and return the exit's sequence number within the position."""
    _move(position, PositionEvent.EXIT_REQUESTED)
    position.reserved += quantity
    position.exit_seq += 1
    return position.exit_seq


def bind(position: Position, *, quantity: Decimal) -> int:
    """Bind a quantity to protection that rests, by which the position is not being left; return the exit's number."""
    position.reserved += quantity
    position.exit_seq += 1
    return position.exit_seq


def note_at_rest(position: Position) -> None:
    """Note that of its live exits only protection that rests is left: the position is not being left any more."""
    if position.status == PositionStatus.EXIT_PENDING:
        sold = position.exited > 0
        _move(position, PositionEvent.EXIT_ENDED_PART_SOLD if sold else PositionEvent.EXIT_ENDED_UNSOLD)


def add_exit_fill(
    position: Position,
    *,
    quantity: Decimal,
    price: Decimal,
    fee: Decimal,
    at: datetime,
    order_id: int | None,
    reason: str,
    released: Decimal,
) -> None:
    """Book one exit fill and free what it had reserved; a remainder below the instrument's dust closes the position.

    Without an order it was sold by somebody else.

    :raises Oversold: the fill is larger than what remains.
    """
    _take_over(position, book_exit(book_of(position), quantity=quantity, price=price, fee=fee))
    position.reserved = _free(position, released)
    position.last_exit_price = price
    position.last_exit_at = at
    position.last_exit_order_id = order_id
    position.exit_reason = reason
    if position.remaining == 0 or position.remaining < position.instrument.dust:
        _move(position, PositionEvent.EMPTIED)
        position.closed_at = position.closed_at or at
    elif position.status == PositionStatus.OPEN:
        _move(position, PositionEvent.EXIT_ENDED_PART_SOLD)  # a fill told after its order had ended


def release(position: Position, *, quantity: Decimal) -> None:
    """Free what an exit that ended had still reserved; without another live exit the position is plainly open again."""
    position.reserved = _free(position, quantity)
    if position.status != PositionStatus.EXIT_PENDING or position.reserved > 0:
        return
    sold = position.exited > 0
    _move(position, PositionEvent.EXIT_ENDED_PART_SOLD if sold else PositionEvent.EXIT_ENDED_UNSOLD)


def _free(position: Position, quantity: Decimal) -> Decimal:
    """Return the reservation less `quantity`, kept within the remainder.

    A fill heard after its order's cancel has sold what another exit had meanwhile reserved.
    """
    return min(max(position.reserved - quantity, Decimal(0)), position.remaining)


def save_reservations(positions: Sequence[Position]) -> None:
    """Write back what `reserve` changes, and nothing else."""
    write_back(positions, fields=("status", "reserved", "exit_seq"))


def save_positions(positions: Sequence[Position]) -> None:
    """Write the figures of locked positions back."""
    write_back(positions, fields=_WRITTEN)
