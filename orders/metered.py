"""Questions to brokers, each paid for from the account's budget and heeding its breaker.

For whoever asks outside of a transaction, in a thread that may use the database. Orders are not sent through it: what
they spend is taken before they are claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from orders import breaker
from orders.breaker import Health, Way, judge, note_verdicts, take_probe, way_for
from orders.brokers.headers import take_heard
from orders.brokers.protocol import (
    Broker,
    BrokerAccount,
    BrokerPosition,
    Capabilities,
    InstrumentFacts,
    OrderRef,
    OrderReport,
    PriceBar,
    Replacement,
    SubmitRequest,
)
from orders.budget import Budget, Need, shared_budget
from orders.errors import BrokerError
from orders.gate import BREAKER_WAIT_SECONDS, BrokerFor, Clock, Connect, HeldBack, heard_with, learn, limit_of, need_of
from orders.models import Order

Told = TypeVar("Told")


def metered(connect: Connect, *, clock: Clock, budget: Budget | None = None) -> Connect:
    """Return a connect function whose brokers spend the budget and heed the breaker with every question."""

    def connected(account_ids: Collection[int]) -> BrokerFor:
        broker_for = connect(account_ids)
        healths = breaker.healths_of(account_ids)
        chosen = budget or shared_budget()

        def metered_for(account_id: int) -> Broker:
            return Metered(
                broker=broker_for(account_id), account_id=account_id, healths=healths, budget=chosen, clock=clock
            )

        return metered_for

    return connected


@dataclass(slots=True)
class Metered:
    """A broker whose every call is paid for and heeded. Cancels go as stops do: they make room for one."""

    broker: Broker
    account_id: int
    healths: dict[int, Health]
    budget: Budget
    clock: Clock
    capabilities: Capabilities = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = self.broker.capabilities

    def _call(self, need: Need, call: Callable[[], Told]) -> Told:
        health = self.healths[self.account_id]
        way = way_for(health, need, now=self.clock())
        if way is Way.WAIT or (way is Way.PROBE and not take_probe(account_id=self.account_id, now=self.clock())):
            raise HeldBack(f"the breaker of this broker is {health.breaker}", retry_after=BREAKER_WAIT_SECONDS)
        limit = limit_of(self.account_id, lambda _account_id: self.broker)
        if limit is not None:
            (wait,) = self.budget.take(account_id=self.account_id, limit=limit, needs=[(need, 1)])
            if wait:
                raise HeldBack(f"the budget of {limit} requests a minute has none left for this", retry_after=wait)
        take_heard()
        try:
            told = call()
        except BrokerError as error:
            self._note(error)
            raise
        self._note(None)
        return told

    def _need_of(self, client_order_id: str) -> Need:
        """Return what questions about an order may spend: as much as the order itself."""
        rows = Order.objects.filter(account_id=self.account_id, client_order_id=client_order_id)
        urgency = rows.values_list("urgency", flat=True).first()
        return Need.REST if urgency is None else need_of(urgency)

    def _note(self, failure: BrokerError | None) -> None:
        now = self.clock()
        heard = heard_with(failure)
        if heard is not None:
            learn({self.account_id: [heard]}, budget=self.budget)
        changed = note_verdicts(account_id=self.account_id, verdicts=[judge(failure)], why=str(failure or ""), now=now)
        if changed is not None:
            self.healths[self.account_id] = changed

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Place one order; see the protocol."""
        return self._call(self._need_of(request.client_order_id), lambda: self.broker.submit(request))

    def cancel(self, ref: OrderRef) -> None:
        """Ask for a cancel; see the protocol."""
        self._call(Need.STOP, lambda: self.broker.cancel(ref))

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Ask for a change; see the protocol."""
        return self._call(self._need_of(ref.client_order_id), lambda: self.broker.replace(ref, change))

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Look an order up; see the protocol."""
        return self._call(self._need_of(ref.client_order_id), lambda: self.broker.find_order(ref))

    def open_orders(self) -> list[OrderReport]:
        """Return every order that is not terminal; see the protocol."""
        return self._call(Need.REST, self.broker.open_orders)

    def positions(self) -> list[BrokerPosition]:
        """Return every holding."""
        return self._call(Need.REST, self.broker.positions)

    def account(self) -> BrokerAccount:
        """Return the account's money."""
        return self._call(Need.REST, self.broker.account)

    def instrument(self, symbol: str) -> InstrumentFacts | None:
        """Return the venue's facts on a symbol."""
        return self._call(Need.REST, lambda: self.broker.instrument(symbol))

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars; see the protocol."""
        return self._call(Need.REST, lambda: self.broker.bars(symbol, start=start, end=end, seconds=seconds))

    def watch_orders(
        self,
        *,
        on_reports: Callable[[Sequence[OrderReport]], None],
        on_connected: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """Follow the stream of updates, which costs no requests; see the protocol."""
        self.broker.watch_orders(on_reports=on_reports, on_connected=on_connected, until=until)
