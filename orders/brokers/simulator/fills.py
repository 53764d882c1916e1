"""Executions: what a quote does to the open orders of its symbol, and what a fill does to everything else.

A fill moves the order, the position, the cash and the other orders of its group together, in one turn.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Protocol

from .book import Book
from .faults import Faults
from .matching import average_in, decide
from .records import BUY, ENTRY, STOP_LOSS, ZERO, Execution, Order

MIN_FRACTION = Decimal("0.000000001")


class Emit(Protocol):
    """Says a trade update; the order is rendered as it is at that moment."""

    def __call__(self, event: str, order: Order, *, at: str, execution: Execution | None = None) -> None: ...


class Fills:
    """Matches open orders with the book's quotes and books what executes."""

    def __init__(
        self,
        *,
        book: Book,
        faults: Faults,
        emit: Emit,
        new_id: Callable[[], str],
        later: Callable[[float, str], None],
    ) -> None:
        self._book = book
        self._faults = faults
        self._emit = emit
        self._new_id = new_id
        self._later = later  # asks for another match of an order id after some seconds

    def match_symbol(self, symbol: str, *, at: str) -> None:
        """Match every open order of a symbol with its quote, oldest first."""
        for order in self._book.of_symbol(symbol):
            if order.armed and order.is_open:
                self.match(order, at=at)

    def match(self, order: Order, *, at: str) -> None:
        """Match one order with the quote of its symbol, if it may trade now."""
        book = self._book
        quote = book.quotes.get(order.symbol)
        if quote is None or not order.armed or not order.is_open:
            return
        if not (book.is_open or order.extended_hours):
            return
        decision = decide(order, quote)
        if order.hwm != decision.hwm or order.stop_price != decision.stop_price:
            order.hwm, order.stop_price = decision.hwm, decision.stop_price
            book.save(order, at=at)
        if decision.elected and not order.elected:
            order.elected = True
            if order.status == "held":
                order.status = "new"
                self._emit("new", order, at=at)
            book.save(order, at=at)
        if decision.price is not None:
            self._execute(order, price=decision.price, at=at)

    def _execute(self, order: Order, *, price: Decimal, at: str) -> None:
        qty = order.remaining
        fault = self._faults.take(
            "partial_fill",
            symbol=order.symbol,
            side=order.side,
            type=order.type,
            client_order_id=order.client_order_id,
        )
        if fault is not None:
            whole = qty == qty.to_integral_value()
            part = qty * Decimal(fault.options["fraction"])
            part = part.quantize(Decimal(1) if whole else MIN_FRACTION, rounding=ROUND_DOWN)
            if part > 0:
                if order.time_in_force == "fok":
                    return  # all or nothing: the exchange cancels what did not fill
                qty = part
                if fault.seconds is not None:
                    self._later(fault.seconds, order.id)
        self.fill(order, qty=qty, price=price, at=at)

    def fill(self, order: Order, *, qty: Decimal, price: Decimal, at: str) -> Execution:
        """Book one execution of an order."""
        book = self._book
        order.filled_qty += qty
        order.filled_cost += qty * price
        done = order.remaining == 0
        if done:
            order.status, order.filled_at = "filled", at
        elif order.status not in ("pending_cancel", "pending_replace"):
            order.status = "partially_filled"
        signed = qty if order.side == BUY else -qty
        position = book.positions.get(order.symbol)
        new_qty, average = average_in(
            held_qty=position.qty if position else ZERO,
            held_price=position.avg_entry_price if position else ZERO,
            traded_qty=signed,
            price=price,
        )
        book.set_position(symbol=order.symbol, qty=new_qty, avg_entry_price=average)
        fee = book.fee_per_share * qty
        book.set_cash(book.cash - signed * price - fee)
        execution = Execution(
            id=self._new_id(),
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            qty=qty,
            price=price,
            fee=fee,
            cum_qty=order.filled_qty,
            leaves_qty=order.remaining,
            position_qty=new_qty,
            order_status="filled" if done else "partially_filled",
            at=at,
        )
        book.ledger.mark_execution(execution)
        book.save(order, at=at)
        self._emit("fill" if done else "partial_fill", order, at=at, execution=execution)
        if order.role:
            self._move_group(order, qty=qty, done=done, at=at)
        return execution

    def _move_group(self, order: Order, *, qty: Decimal, done: bool, at: str) -> None:
        if order.role == ENTRY:
            if done:
                self.arm_legs(order, at=at)
            return
        for other in self._book.group(order):
            if other.role == ENTRY:
                continue
            if done:
                self.close(other, status="canceled", at=at)
            elif other.armed:
                other.qty -= qty
                self._book.save(other, at=at)
                self._emit("restated", other, at=at)

    def arm_legs(self, parent: Order, *, at: str) -> None:
        """Let the legs of an order trade; a stop beside a target stays held until it is touched."""
        legs = [leg for leg in self._book.group(parent) if leg.role != ENTRY]
        for leg in legs:
            if leg.armed:
                continue
            leg.armed = True
            if leg.role != STOP_LOSS or parent.order_class == "oto":
                leg.status = "new"
                self._emit("new", leg, at=at)
            self._book.save(leg, at=at)
        for leg in legs:
            self.match(leg, at=at)

    def close(self, order: Order, *, status: str, at: str, with_group: bool = False) -> None:
        """End an order as canceled, expired or rejected, and with_group the rest of its group as canceled."""
        if not order.is_open:
            return
        rest = self._book.group(order) if with_group and order.role else []
        order.status = status
        setattr(order, {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at"}[status], at)
        self._book.save(order, at=at)
        self._emit(status, order, at=at)
        for other in rest:
            self.close(other, status="canceled", at=at)
