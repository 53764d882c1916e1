"""The venue as the suite sees it, and the desk its cases trade at."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, TypeVar

import pytest

from orders.brokers.protocol import (
    Broker,
    Capabilities,
    Execution,
    OrderRef,
    OrderReport,
    OrderSide,
    OrderType,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.client_ids import client_order_id
from orders.errors import RefusalKind, Refused

D = Decimal
T = TypeVar("T")
S = ReportedState
BUY, SELL = OrderSide.BUY, OrderSide.SELL
#: No call of an adapter may take longer, whatever the venue does.
LONGEST_CALL_SECONDS = 9.0
#: For how long VenueFault.SILENCE keeps a request back before it is carried out.
SILENCE_SECONDS = 6.0
ENDED = {S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED}


class VenueFault(StrEnum):
    """A way in which a venue can be broken on request."""

    LOSE_REQUEST = "lose_request"  # the connection ends, nothing was accepted
    LOSE_ANSWER = "lose_answer"  # the order is accepted, the connection ends without an answer
    SERVER_ERROR = "server_error"  # an error page, nothing was accepted
    SERVER_ERROR_AFTER_ACCEPT = "server_error_after_accept"
    RATE_LIMIT = "rate_limit"  # turned away, with a wait of two seconds
    SILENCE = "silence"  # the request is carried out, but later than anybody waits (SILENCE_SECONDS)
    PARTIAL_FILL = "partial_fill"  # the next execution is of half the quantity, the rest follows much later
    CUT_STREAM = "cut_stream"  # all streams end now
    REPEAT_UPDATES = "repeat_updates"  # each update is sent twice


class Venue(Protocol):
    """The far side, as the suite controls it."""

    #: Symbols that trade in whole shares and fractions, quoted at `PRICE`; each case takes the next.
    symbols: Sequence[str]
    unknown_symbol: str
    faults: frozenset[VenueFault]
    #: A stretch of daily bars the venue has: symbol, first and last day, and how many; None where it has no history.
    daily_bars: tuple[str, datetime, datetime, int] | None

    def set_price(self, symbol: str, *, bid: Decimal, ask: Decimal) -> None:
        """Move the market of a symbol."""
        ...

    def hold(self, symbol: str, *, quantity: Decimal, price: Decimal) -> None:
        """Give the account a position without an order."""
        ...

    def inject(self, fault: VenueFault, *, client_order_id: str = "") -> None:
        """Break the next request (of one order where an id is given) or the stream."""
        ...

    def heal(self) -> None:
        """End all faults."""
        ...

    def orders(self, client_order_id: str) -> list[Decimal]:
        """Return the quantities of the orders that the venue truly has under a client order id."""
        ...

    def executions(self, client_order_id: str) -> list[tuple[str, Decimal, Decimal]]:
        """Return id, quantity and price of the executions that truly happened under a client order id."""
        ...


class MakeBroker(Protocol):
    """Makes adapters of the venue's account."""

    def __call__(self, *, revoked: bool = False, unreachable: bool = False) -> Broker:
        """Return an adapter; with credentials that were revoked, or towards an address where nobody listens."""
        ...


#: Under this name each case's report carries its adapter and what the case needs.
CONFORMANCE = "conformance"
#: adapter class name -> what it declares
CAPABILITY_TABLE: dict[str, Capabilities] = {}
PRICE = D("100")
BID, ASK = D("99.99"), D("100.01")
_case_numbers = itertools.count()


@dataclass(slots=True)
class Desk:
    """One case's adapter, venue and symbol, with fresh client order ids."""

    broker: Broker
    venue: Venue
    symbol: str
    number: int
    #: What of the venue's abilities this case is about; the report counts by them.
    needs: set[str]
    attempts: int = 0

    def new_id(self) -> str:
        """Return a client order id that was never used."""
        self.attempts += 1
        subject = f"conformance {time.time_ns()}"
        return client_order_id(account_id=self.number, subject=subject, leg="case", attempt=self.attempts)

    def request(self, side: OrderSide = BUY, quantity: str = "10", **fields: object) -> SubmitRequest:
        """Return an order of this case's symbol."""
        wanted = {"client_order_id": self.new_id(), "order_type": OrderType.MARKET} | fields
        return SubmitRequest(symbol=self.symbol, side=side, quantity=D(quantity), **wanted)  # type: ignore[arg-type]

    def ref(self, request: SubmitRequest, broker_order_id: str = "") -> OrderRef:
        """Return how to name an order to its broker."""
        return OrderRef(client_order_id=request.client_order_id, broker_order_id=broker_order_id, symbol=request.symbol)

    def resting(self) -> SubmitRequest:
        """Return a limit buy far below the market."""
        return self.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=TimeInForce.GTC)

    def find(self, request: SubmitRequest) -> OrderReport:
        """Return what the venue says of an order that it must have."""
        report = self.broker.find_order(self.ref(request))
        assert report is not None, "the venue has no such order"
        return report

    def settled(self, request: SubmitRequest, *, states: set[ReportedState]) -> OrderReport:
        """Return the order once it is in one of the states and its executions are all told."""

        def look() -> OrderReport | None:
            report = self.find(request)
            told = sum((fill.quantity for fill in report.executions), D(0))
            return report if report.state in states and told == report.filled_quantity else None

        return eventually(look)

    def position(self) -> tuple[Decimal, Decimal]:
        """Return quantity and available quantity of this case's symbol."""
        for holding in self.broker.positions():
            if holding.symbol == self.symbol:
                return holding.quantity, holding.available
        return D(0), D(0)

    def need(self, capability: str) -> None:
        """Say which capability a case is about, and skip it where the venue does not declare it."""
        self.needs.add(capability)
        if not getattr(self.broker.capabilities, capability):
            pytest.skip(f"the venue does not declare {capability}")

    def require(self, *faults: VenueFault) -> None:
        """Skip the case where the venue cannot be broken in this way."""
        if missing := set(faults) - self.venue.faults:
            pytest.skip(f"the venue cannot do {', '.join(sorted(missing))}")

    def require_order_type(self, *types: OrderType) -> None:
        """Skip the case where the venue has no such orders."""
        self.needs |= {f"{kind} orders" for kind in types if kind is not OrderType.MARKET}
        if missing := set(types) - self.broker.capabilities.order_types:
            pytest.skip(f"the venue has no {', '.join(sorted(missing))} orders")

    def require_time_in_force(self, time_in_force: TimeInForce) -> None:
        """Skip the case where the venue has no orders that rest so long."""
        self.needs.add(f"{time_in_force} orders")
        if time_in_force not in self.broker.capabilities.times_in_force:
            pytest.skip(f"the venue has no {time_in_force} orders")


@pytest.fixture
def desk(request: pytest.FixtureRequest, make_broker: MakeBroker, venue: Venue) -> Desk:
    """Give a case its adapter and a symbol of its own, quoted 99.99 to 100.01."""
    broker = make_broker()
    CAPABILITY_TABLE[type(broker).__name__] = broker.capabilities
    number = next(_case_numbers)
    symbol = venue.symbols[number % len(venue.symbols)]
    venue.set_price(symbol, bid=BID, ask=ASK)
    needs: set[str] = set()
    # with the report, and not in a table of this module: cases may run in several processes
    request.node.user_properties.append((CONFORMANCE, (type(broker).__name__, needs)))
    return Desk(broker=broker, venue=venue, symbol=symbol, number=number, needs=needs)


def eventually(read: Callable[[], T | None], *, within: float = 5.0) -> T:
    """Return the first true value of `read`."""
    deadline = time.monotonic() + within
    while not (value := read()):
        assert time.monotonic() < deadline, f"still {value!r} after {within} s"
        time.sleep(0.01)
    return value


class Watcher:
    """Collects what the order updates stream says, on a thread of its own."""

    def __init__(self, broker: Broker) -> None:
        self.reports: list[OrderReport] = []
        self.connects = 0
        self.fail_next = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(broker,), daemon=True)
        self._thread.start()

    def _run(self, broker: Broker) -> None:
        broker.watch_orders(on_reports=self._take, on_connected=self._connected, until=self._stop.is_set)

    def _take(self, reports: Sequence[OrderReport]) -> None:
        if self.fail_next:
            self.fail_next -= 1
            raise RuntimeError("a handler of the suite fails on purpose")
        self.reports += reports

    def _connected(self) -> None:
        self.connects += 1

    def of(self, request: SubmitRequest) -> list[OrderReport]:
        """Return what was said of one order."""
        return [report for report in list(self.reports) if report.client_order_id == request.client_order_id]

    def executions(self, request: SubmitRequest) -> dict[str, Execution]:
        """Return the executions of one order by their id."""
        return {fill.execution_id: fill for report in self.of(request) for fill in report.executions}

    def wait_for(self, request: SubmitRequest, state: ReportedState) -> None:
        """Return once the stream has said that an order is in a state."""
        eventually(lambda: [report for report in self.of(request) if report.state is state])

    def stop(self) -> None:
        """End the stream; it must end by itself."""
        self._stop.set()
        self._thread.join(timeout=5)
        assert not self._thread.is_alive(), "the stream did not end when told to"


@contextmanager
def watching(desk: Desk, make_broker: MakeBroker) -> Iterator[Watcher]:
    """Follow the stream while a block runs."""
    desk.need("update_stream")
    broker = make_broker()
    watcher = Watcher(broker)
    try:
        eventually(lambda: watcher.connects)
        yield watcher
    finally:
        watcher.stop()


def refused(desk: Desk, request: SubmitRequest, *kinds: RefusalKind) -> Refused:
    """Submit an order that must be refused and leave nothing behind; return the refusal."""
    with pytest.raises(Refused) as caught:
        desk.broker.submit(request)
    assert caught.value.kind in kinds
    assert desk.venue.orders(request.client_order_id) == []
    assert desk.broker.find_order(desk.ref(request)) is None
    return caught.value
