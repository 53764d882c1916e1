"""A broker that says what it is told to: answers in a fixed order, and a record of everything it was asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from orders.brokers.protocol import (
    Broker,
    Capabilities,
    OrderRef,
    OrderReport,
    OrderSide,
    OrderType,
    Replacement,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from tests.factories import utc_now

Answer = BaseException | OrderReport | None


def accepted(request: SubmitRequest) -> OrderReport:
    """Return the report of an order the broker has just taken."""
    return OrderReport(
        client_order_id=request.client_order_id,
        broker_order_id=f"at-{request.client_order_id}",
        state=ReportedState.WORKING,
        symbol=request.symbol,
        side=request.side,
        quantity=request.quantity,
        filled_quantity=request.quantity * 0,
        average_fill_price=None,
        at=utc_now(),
    )


@dataclass
class ScriptedBroker:
    """Answers submits and look-ups from two lists; an empty list means: taken, or not found."""

    submits: list[BaseException | str] = field(default_factory=list)
    finds: list[Answer] = field(default_factory=list)
    settle_after: float = 0.0
    durable_dedupe: bool = True
    sent: list[SubmitRequest] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    asked_symbols: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    replaces: list[BaseException | str] = field(default_factory=list)
    replaced: list[tuple[str, Replacement]] = field(default_factory=list)
    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = Capabilities(
            order_types=frozenset(OrderType),
            times_in_force=frozenset(TimeInForce),
            settle_after_seconds=self.settle_after,
            durable_dedupe=self.durable_dedupe,
            replace=True,
        )

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Take the order, or raise what the script says."""
        self.sent.append(request)
        if self.submits:
            said = self.submits.pop(0)
            if isinstance(said, BaseException):
                raise said
        return accepted(request)

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Return or raise what the script says."""
        self.asked.append(ref.client_order_id)
        self.asked_symbols.append(ref.symbol)
        said = self.finds.pop(0) if self.finds else None
        if isinstance(said, BaseException):
            raise said
        return said

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Take the change and report its successor, or raise what the script says."""
        self.replaced.append((ref.client_order_id, change))
        if self.replaces:
            said = self.replaces.pop(0)
            if isinstance(said, BaseException):
                raise said
        return OrderReport(
            client_order_id=change.client_order_id,
            broker_order_id=f"at-{change.client_order_id}",
            state=ReportedState.WORKING,
            symbol="",
            side=OrderSide.SELL,
            quantity=change.quantity or Decimal(0),
            filled_quantity=Decimal(0),
            average_fill_price=None,
            at=utc_now(),
        )

    def cancel(self, ref: OrderRef) -> None:
        """Note the wish."""
        self.cancelled.append(ref.client_order_id)


def to(broker: Any) -> Callable[[Collection[int]], Callable[[int], Broker]]:
    """Return a connect function under which every account is at this broker."""
    return lambda _account_ids: lambda _account_id: broker


def client_ids(requests: Sequence[SubmitRequest]) -> list[str]:
    """Return the client order ids that were sent, in their order."""
    return [request.client_order_id for request in requests]
