"""The exchange: accepts, amends, cancels and expires orders, and takes quotes.

A request is booked at once and acknowledged after its commit; what follows from it (new, fill, canceled,
replaced) happens one turn of the event loop later, so that the acknowledgement always comes first.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal

from . import checks
from .amendments import amended
from .book import Book
from .faults import Faults
from .fills import Emit, Fills
from .matching import Quote, follow, tradable_price
from .records import BUY, ENTRY, SELL, STOP_LOSS, TAKE_PROFIT, ZERO, Order, Refusal, stamp
from .validation import Amendment, OrderRequest, check_time_in_force, check_type, refuse


class Exchange:
    """The verbs on orders; the book keeps the state, Fills the executions."""

    def __init__(
        self,
        *,
        book: Book,
        faults: Faults,
        emit: Emit,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.book = book
        self.faults = faults
        self._emit = emit
        self._new_id = new_id
        self._clock = clock
        self._call_later = later
        self.fills = Fills(book=book, faults=faults, emit=emit, new_id=new_id, later=self._match_later)
        self._turn: list[tuple[str, str]] = []  # (verb, order id) of the next turn
        self._filled_when_amended: dict[str, Decimal] = {}  # by successor
        self._stuck: set[str] = set()  # orders whose cancel never completes, by a fault

    def resume(self) -> None:
        """Go on with what an earlier process had acknowledged but not finished."""
        for order in list(self.book.open.values()):
            if order.status == "pending_new" and order.parent_id is None and order.replaces is None:
                self._next_turn("new", order.id)
            elif order.status == "pending_new":
                self._next_turn("replace", order.id)
            elif order.status == "pending_cancel":
                self._next_turn("cancel", order.id)

    # -- requests

    def submit(self, request: OrderRequest, *, now: datetime) -> Order:
        """Book an order and its legs; it becomes new, and may trade, in the next turn.

        :raises Refusal: the account may not place it.
        """
        book, at = self.book, stamp(now)
        checks.check_order(book, request)
        order_class = request.order_class
        order = self._new_order(
            request,
            at=at,
            client_order_id=request.client_order_id or self._new_id(),
            role={"bracket": ENTRY, "oto": ENTRY, "oco": TAKE_PROFIT}.get(order_class, ""),
            limit_price=(request.target_price or request.limit_price) if order_class == "oco" else request.limit_price,
        )
        order.armed = True
        if request.type == "trailing_stop" and (quote := book.quotes.get(order.symbol)) is not None:
            order.hwm, order.stop_price = follow(
                side=order.side,
                price=tradable_price(side=order.side, quote=quote),
                hwm=None,
                trail_price=order.trail_price,
                trail_percent=order.trail_percent,
            )
        book.save(order)
        for leg in self._new_legs(request, order, at=at):
            book.save(leg)
        self._next_turn("new", order.id)
        return order

    def _new_order(
        self,
        request: OrderRequest,
        *,
        at: str,
        client_order_id: str,
        role: str,
        limit_price: Decimal | None,
    ) -> Order:
        closing = self.book.position_qty(request.symbol) * (-1 if request.side == BUY else 1) > 0
        return Order(
            seq=self.book.next_seq(),
            id=self._new_id(),
            client_order_id=client_order_id,
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force,
            order_class=request.order_class,
            qty=request.qty,
            status="pending_new",
            submitted_at=at,
            updated_at=at,
            limit_price=limit_price,
            stop_price=request.stop_price,
            trail_price=request.trail_price,
            trail_percent=request.trail_percent,
            extended_hours=request.extended_hours,
            position_intent=f"{request.side}_to_{'close' if closing else 'open'}",
            role=role,
        )

    def _new_legs(self, request: OrderRequest, parent: Order, *, at: str) -> list[Order]:
        if not request.order_class:
            return []
        side = request.side if request.order_class == "oco" else SELL if request.side == BUY else BUY
        plans: list[tuple[str, str, Decimal | None, Decimal | None]] = []
        if request.target_price is not None and request.order_class != "oco":
            plans.append((TAKE_PROFIT, "limit", request.target_price, None))
        if request.protect_price is not None:
            kind = "stop" if request.protect_limit is None else "stop_limit"
            plans.append((STOP_LOSS, kind, request.protect_limit, request.protect_price))
        return [
            Order(
                seq=self.book.next_seq(),
                id=self._new_id(),
                client_order_id=self._new_id(),
                symbol=parent.symbol,
                side=side,
                type=kind,
                time_in_force=parent.time_in_force,
                order_class=parent.order_class,
                qty=parent.qty,
                status="held",
                submitted_at=at,
                updated_at=at,
                limit_price=limit_price,
                stop_price=stop_price,
                position_intent=f"{side}_to_close",
                parent_id=parent.id,
                role=role,
            )
            for role, kind, limit_price, stop_price in plans
        ]

    def cancel(self, order: Order, *, now: datetime) -> None:
        """Ask for the end of an order; it is canceled in the next turn unless it fills before.

        :raises Refusal: it is final, or a cancel is pending.
        """
        if not order.is_open:
            refuse(f'order is already in "{order.status}" state')
        if order.status in ("pending_cancel", "pending_replace"):
            refuse(f"order {order.status.replace('_', ' ')}")
        at = stamp(now)
        order.status = "pending_cancel"
        self.book.save(order, at=at)
        self._emit("pending_cancel", order, at=at)
        fault = self.faults.take("stuck_pending_cancel", **order_facts(order))
        if fault is None:
            self._next_turn("cancel", order.id)
        else:
            self._stuck.add(order.id)
            if fault.seconds is not None:
                self._call_later(fault.seconds, lambda: self._finish_stuck(order.id))

    def _finish_stuck(self, order_id: str) -> None:
        self._stuck.discard(order_id)
        self._cancel_now(order_id, at=stamp(self._clock()))

    def amend(self, order: Order, change: Amendment, *, now: datetime) -> Order:
        """Book the successor of an order; it takes its place in the next turn, unless the order fills before.

        The quantity of a successor is its own: without one it takes over what remains.

        :raises Refusal: the order cannot be replaced, or its successor could not be placed.
        """
        if order.status not in ("new", "partially_filled", "held"):
            refuse(f"cannot replace order in {order.status} status")
        request = amended(order, change)
        check_type(dataclasses.replace(request, order_class=""))
        check_time_in_force(request)
        checks.check_client_id(self.book, change.client_order_id)
        held = self.book.position_qty(order.symbol)
        if held != 0 and (held > 0) == (order.side == SELL):
            spare = abs(held) - self.book.held_qty(order.symbol) + order.remaining
            if request.qty > spare:
                raise checks.held_refusal(self.book, symbol=order.symbol, side=order.side, wanted=request.qty)
        if change.stop_price is not None:
            checks.check_prices(self.book, dataclasses.replace(request, order_class=""))
        at = stamp(now)
        successor = self._new_order(
            request,
            at=at,
            client_order_id=change.client_order_id or self._new_id(),
            role=order.role,
            limit_price=request.limit_price,
        )
        successor.replaces, successor.parent_id, successor.hwm = order.id, order.parent_id, order.hwm
        successor.position_intent = order.position_intent
        if change.trail is None and order.type == "trailing_stop":
            successor.stop_price = order.stop_price
        self._filled_when_amended[successor.id] = order.filled_qty
        order.status = "pending_replace"
        self.book.save(successor)
        self.book.save(order, at=at)
        self._emit("pending_replace", order, at=at)
        self._next_turn("replace", successor.id)
        return successor

    # -- the next turn

    async def settled(self) -> None:
        """Wait until nothing is left for the next turn."""
        while self._turn:
            await self.book.ledger.committed()
            await asyncio.sleep(0)

    def _next_turn(self, verb: str, order_id: str) -> None:
        if not self._turn:
            self.book.ledger.after_commit(self._run_turn)
        self._turn.append((verb, order_id))

    def _run_turn(self) -> None:
        work, self._turn = self._turn, []
        at = stamp(self._clock())
        verbs = {"new": self.activate, "cancel": self._cancel_now, "replace": self._replace_now}
        for verb, order_id in work:
            verbs[verb](order_id, at=at)

    def activate(self, order_id: str, *, at: str) -> None:
        """Let an acknowledged order work, or wait for a session."""
        order = self.book.open.get(order_id)
        if order is None or order.status not in ("pending_new", "accepted"):
            return
        fault = self.faults.take("reject", **order_facts(order))
        if fault is not None:
            self.fills.close(order, status="rejected", at=at, with_group=True)
            return
        waits = not (self.book.is_open or order.extended_hours)
        if waits or order.time_in_force in ("opg", "cls"):
            if order.status != "accepted":
                order.status = "accepted"
                self.book.save(order, at=at)
                self._emit("accepted", order, at=at)
            return
        self.work(order, at=at)

    def work(self, order: Order, *, at: str) -> None:
        """Make an order new and match it at once."""
        order.status = "new"
        self.book.save(order, at=at)
        self._emit("new", order, at=at)
        if order.order_class == "oco":
            self.fills.arm_legs(order, at=at)
        self.fills.match(order, at=at)
        if order.is_open and order.time_in_force in ("ioc", "fok"):
            self.fills.close(order, status="canceled", at=at)

    def _cancel_now(self, order_id: str, *, at: str) -> None:
        order = self.book.open.get(order_id)
        if order is not None and order_id not in self._stuck:
            self.fills.close(order, status="canceled", at=at, with_group=True)

    def _replace_now(self, order_id: str, *, at: str) -> None:
        successor = self.book.open.get(order_id)
        filled_before = self._filled_when_amended.pop(order_id, None)
        if successor is None or successor.replaces is None:
            return
        order = self.book.open.get(successor.replaces)
        if order is None:
            self.fills.close(successor, status="rejected", at=at)
            return
        if filled_before is not None and order.filled_qty > filled_before:
            # what executed while the replacement was pending must not execute again
            successor.qty = min(successor.qty - (order.filled_qty - filled_before), order.remaining)
        if successor.qty <= 0:
            successor.qty += order.filled_qty - (filled_before or ZERO)
            self.fills.close(successor, status="rejected", at=at)
            order.status = "partially_filled"
            self.book.save(order, at=at)
            return
        was_held = order.role == STOP_LOSS and order.order_class in ("bracket", "oco")
        order.status, order.replaced_at, order.replaced_by = "replaced", at, successor.id
        successor.armed, successor.elected = order.armed, order.elected
        successor.qty = min(successor.qty, order.remaining) if order.role else successor.qty
        for leg in self.book.adopt(order.id, successor.id):
            self.book.save(leg, at=at)
        self.book.save(order, at=at)
        self._emit("replaced", order, at=at)
        successor.status = "held" if was_held or not order.armed else "new"
        self.book.save(successor, at=at)
        self._emit("new", successor, at=at)
        self.fills.match(successor, at=at)

    def _match_later(self, seconds: float, order_id: str) -> None:
        def match() -> None:
            order = self.book.open.get(order_id)
            if order is not None:
                self.fills.match(order, at=stamp(self._clock()))

        self._call_later(seconds, match)

    # -- the market

    def take_quotes(self, quotes: Iterable[Quote]) -> None:
        """Take over quotes and match the open orders of their symbols."""
        for quote in quotes:
            self.book.set_quote(quote)
            self.fills.match_symbol(quote.symbol, at=quote.at)

    def reset(self) -> None:
        """Forget every order and the rest of the book."""
        self._turn.clear()
        self._filled_when_amended.clear()
        self._stuck.clear()
        self.book.reset()


def order_facts(order: Order) -> dict[str, str]:
    """Return what a fault rule can match of an order."""
    return {
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "client_order_id": order.client_order_id,
    }


def require_order(order: Order | None, order_id: str) -> Order:
    """Return the order.

    :raises Refusal: 404, there is none.
    """
    if order is None:
        raise Refusal(404, 40410000, f"order not found for {order_id}")
    return order
