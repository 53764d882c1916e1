"""Profit and loss arithmetic. Realised P&L is a function of totals; the order of fills cannot change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from typing import Final

from positions.values import Side

ZERO = Decimal(0)
#: Digits of sums and products: the product of two columns of 38 digits, with room to add, is never rounded.
EXACT: Final = 80
#: The share of the entry cost that was sold is the one figure that has to be rounded.
_SHARE: Final = Context(prec=28)


@dataclass(frozen=True, slots=True)
class Book:
    """The money side of one position.

    Quantities in units of the instrument; `entry_cost` and `exit_value` are quantity x price in the quote
    currency, without fees; `realized_pnl` is net of all fees so far, those of the entries included.
    """

    side: Side
    entered: Decimal = ZERO
    exited: Decimal = ZERO
    entry_cost: Decimal = ZERO
    exit_value: Decimal = ZERO
    fees: Decimal = ZERO
    realized_pnl: Decimal = ZERO

    @property
    def remaining(self) -> Decimal:
        """Return the quantity still held."""
        return self.entered - self.exited

    @property
    def average_entry(self) -> Decimal:
        """Return the average entry price, zero before the first fill."""
        return self.entry_cost / self.entered if self.entered else ZERO


class Oversold(Exception):
    """More was sold than the position held; the fill is real, so a person has to look."""


def book_entry(book: Book, *, quantity: Decimal, price: Decimal, fee: Decimal = ZERO) -> Book:
    """Return the book after an entry fill; its fee lowers the realised P&L at once.

    An entry fill heard after an exit restates what that exit realised at the new average.
    """
    with localcontext(prec=EXACT):
        booked = replace(
            book,
            entered=book.entered + quantity,
            entry_cost=book.entry_cost + quantity * price,
            fees=book.fees + fee,
        )
    return replace(booked, realized_pnl=_realized_pnl(booked))


def book_exit(book: Book, *, quantity: Decimal, price: Decimal, fee: Decimal = ZERO) -> Book:
    """Return the book after an exit fill.

    :raises Oversold: the quantity is larger than what remains.
    """
    with localcontext(prec=EXACT):
        if quantity > book.remaining:
            raise Oversold(f"a fill of {quantity} exceeds the remaining {book.remaining}")
        booked = replace(
            book,
            exited=book.exited + quantity,
            exit_value=book.exit_value + quantity * price,
            fees=book.fees + fee,
        )
    return replace(booked, realized_pnl=_realized_pnl(booked))


def exit_pnl(book: Book, *, quantity: Decimal, price: Decimal, fee: Decimal = ZERO) -> Decimal:
    """Return what selling `quantity` at `price` adds to the realised P&L, so that the parts sum to the whole.

    :raises Oversold: the quantity is larger than what remains.
    """
    with localcontext(prec=EXACT):
        return book_exit(book, quantity=quantity, price=price, fee=fee).realized_pnl - book.realized_pnl


def _realized_pnl(book: Book) -> Decimal:
    """Return exit value - entry cost x (exited / entered), mirrored for a short, less fees."""
    closed = book.exited == book.entered  # then there is nothing to divide, so nothing is rounded
    with localcontext(prec=EXACT):
        sold = book.entry_cost * book.exited
        cost = book.entry_cost if closed else _SHARE.divide(sold, book.entered)
        return book.side * (book.exit_value - cost) - book.fees


def unrealized_pnl(*, side: Side, quantity: Decimal, average_entry: Decimal, price: Decimal) -> Decimal:
    """Return what leaving `quantity` at `price` would bring, before fees."""
    return side * (price - average_entry) * quantity


def profit_pct(*, side: Side, average_entry: Decimal, price: Decimal) -> Decimal:
    """Return the gain in percent of the entry price; negative is a loss."""
    return side * (price - average_entry) / average_entry * 100 if average_entry else ZERO


def slippage_bps(*, exit_side: int, expected: Decimal, got: Decimal) -> Decimal:
    """Return how much worse than expected a fill was, in basis points; positive is worse.

    `exit_side` is +1 for a buy and -1 for a sell: buying higher and selling lower are both worse.
    """
    return exit_side * (got - expected) / expected * 10_000 if expected else ZERO
