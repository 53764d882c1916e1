"""What every broker adapter must prove, whatever its venue: cases against the protocol only.

A test module of an adapter takes all cases by `from tests.brokers.conformance import *` and gives two fixtures:

- `make_broker`: a `MakeBroker`, which returns a fresh adapter of the venue's account;
- `venue`: a `Venue`, which moves the venue's prices, breaks it on request and reads its whole truth. It is flat, has
  no open orders and no faults at the start of each case.

A case that needs what a venue cannot do skips by capability or by `Venue.faults`, never by name. The suite keeps a
table of what each adapter declares (`CAPABILITY_TABLE`); the conftest beside it prints it at the end of a run.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from orders.errors import AccountRefused, BrokerError, NotSent, OutcomeUnknown, RefusalKind, Refused

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

    def resting(self) -> SubmitRequest:
        """Return a limit buy far below the market."""
        return self.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=TimeInForce.GTC)

    def find(self, request: SubmitRequest) -> OrderReport:
        """Return what the venue says of an order that it must have."""
        report = self.broker.find_order(OrderRef(client_order_id=request.client_order_id))
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

    def require(self, *faults: VenueFault) -> None:
        """Skip the case where the venue cannot be broken in this way."""
        if missing := set(faults) - self.venue.faults:
            pytest.skip(f"the venue cannot do {', '.join(sorted(missing))}")

    def require_order_type(self, *types: OrderType) -> None:
        """Skip the case where the venue has no such orders."""
        if missing := set(types) - self.broker.capabilities.order_types:
            pytest.skip(f"the venue has no {', '.join(sorted(missing))} orders")


@pytest.fixture
def desk(make_broker: MakeBroker, venue: Venue) -> Desk:
    """Give a case its adapter and a symbol of its own, quoted 99.99 to 100.01."""
    broker = make_broker()
    CAPABILITY_TABLE[type(broker).__name__] = broker.capabilities
    number = next(_case_numbers)
    symbol = venue.symbols[number % len(venue.symbols)]
    venue.set_price(symbol, bid=BID, ask=ASK)
    return Desk(broker=broker, venue=venue, symbol=symbol, number=number)


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
def watching(make_broker: MakeBroker) -> Iterator[Watcher]:
    """Follow the stream while a block runs."""
    broker = make_broker()
    if not broker.capabilities.update_stream:
        pytest.skip("the venue has no stream of order updates")
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
    assert desk.broker.find_order(OrderRef(client_order_id=request.client_order_id)) is None
    return caught.value


# -- submit, acknowledge, fill


def test_an_order_is_acknowledged_and_fills(desk: Desk) -> None:
    request = desk.request(BUY, "10")
    acknowledged = desk.broker.submit(request)
    assert acknowledged.client_order_id == request.client_order_id
    assert acknowledged.broker_order_id
    assert acknowledged.state in {S.WORKING, S.FILLED}
    assert (acknowledged.symbol, acknowledged.side, acknowledged.quantity) == (desk.symbol, BUY, D(10))
    filled = desk.settled(request, states={S.FILLED})
    assert (filled.filled_quantity, filled.average_fill_price) == (D(10), ASK)
    assert [fill.price for fill in filled.executions] == [ASK]
    assert filled.broker_order_id == acknowledged.broker_order_id
    assert desk.position() == (D(10), D(10))


def test_an_exit_leaves_nothing_held(desk: Desk) -> None:
    desk.venue.hold(desk.symbol, quantity=D(7), price=PRICE)
    request = desk.request(SELL, "7")
    desk.broker.submit(request)
    assert desk.settled(request, states={S.FILLED}).average_fill_price == BID
    assert desk.position() == (D(0), D(0))


def test_times_are_aware(desk: Desk) -> None:
    request = desk.request(BUY, "1")
    desk.broker.submit(request)
    report = desk.settled(request, states={S.FILLED})
    assert report.at.utcoffset() is not None
    assert report.executions[0].at.utcoffset() is not None


# -- the client order id


def test_the_same_id_twice_is_one_order(desk: Desk) -> None:
    if not desk.broker.capabilities.durable_dedupe:
        pytest.skip("the venue does not refuse a used client order id")
    request = desk.resting()
    first, second = desk.broker.submit(request), desk.broker.submit(request)
    assert second.broker_order_id == first.broker_order_id
    assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_an_id_stays_used_after_its_order_ended(desk: Desk) -> None:
    if not desk.broker.capabilities.durable_dedupe:
        pytest.skip("the venue does not refuse a used client order id")
    request = desk.request(BUY, "3")
    desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    again = desk.broker.submit(request)
    assert (again.state, again.filled_quantity) == (S.FILLED, D(3))
    assert desk.venue.orders(request.client_order_id) == [D(3)]
    assert desk.position() == (D(3), D(3))


def test_an_order_is_found_only_after_it_was_placed(desk: Desk) -> None:
    request = desk.resting()
    ref = OrderRef(client_order_id=request.client_order_id)
    assert desk.broker.find_order(ref) is None
    placed = desk.broker.submit(request)
    found = desk.broker.find_order(ref)
    assert found is not None
    assert (found.broker_order_id, found.state, found.executions) == (placed.broker_order_id, S.WORKING, ())


def test_an_order_is_found_by_the_brokers_id_too(desk: Desk) -> None:
    request = desk.resting()
    placed = desk.broker.submit(request)
    found = desk.broker.find_order(OrderRef(client_order_id="", broker_order_id=placed.broker_order_id))
    assert found is not None
    assert found.client_order_id == request.client_order_id


# -- what becomes of a lost request


def test_a_lost_answer_is_unknown_and_the_look_up_finds_exactly_one(desk: Desk) -> None:
    desk.require(VenueFault.LOSE_ANSWER)
    request = desk.request(BUY, "4")
    desk.venue.inject(VenueFault.LOSE_ANSWER, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert desk.settled(request, states={S.FILLED}).filled_quantity == D(4)
    assert desk.venue.orders(request.client_order_id) == [D(4)]
    assert desk.position() == (D(4), D(4))


def test_an_error_after_acceptance_is_unknown_too(desk: Desk) -> None:
    desk.require(VenueFault.SERVER_ERROR_AFTER_ACCEPT)
    request = desk.resting()
    desk.venue.inject(VenueFault.SERVER_ERROR_AFTER_ACCEPT, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert desk.find(request).state is S.WORKING
    assert desk.venue.orders(request.client_order_id) == [D(10)]


@pytest.mark.parametrize("fault", [VenueFault.LOSE_REQUEST, VenueFault.SERVER_ERROR])
def test_a_request_that_was_lost_is_sent_once_and_may_be_sent_again(desk: Desk, fault: VenueFault) -> None:
    desk.require(fault)
    request = desk.resting()
    desk.venue.inject(fault, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    # had the adapter repeated the request by itself, the venue would have the order now
    assert desk.venue.orders(request.client_order_id) == []
    assert desk.broker.find_order(OrderRef(client_order_id=request.client_order_id)) is None
    assert desk.broker.submit(request).state is S.WORKING
    assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_a_look_up_without_an_answer_is_not_a_no(desk: Desk) -> None:
    desk.require(VenueFault.SERVER_ERROR)
    request = desk.resting()
    desk.broker.submit(request)
    desk.venue.inject(VenueFault.SERVER_ERROR)
    with pytest.raises(OutcomeUnknown):
        desk.broker.find_order(OrderRef(client_order_id=request.client_order_id))


def test_a_silent_venue_is_left_in_bounded_time(desk: Desk) -> None:
    desk.require(VenueFault.SILENCE)
    request = desk.resting()
    desk.venue.inject(VenueFault.SILENCE, client_order_id=request.client_order_id)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert time.monotonic() - began < LONGEST_CALL_SECONDS
    if desk.broker.capabilities.durable_dedupe:
        # the first request is still on its way; whichever comes second finds the id taken
        assert desk.broker.submit(request).state is S.WORKING
        time.sleep(max(began + SILENCE_SECONDS + 1 - time.monotonic(), 0))
        assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_an_unreachable_venue_was_provably_not_sent_anything(make_broker: MakeBroker, desk: Desk) -> None:
    request = desk.resting()
    broker = make_broker(unreachable=True)
    ref = OrderRef(client_order_id=request.client_order_id, broker_order_id="none")
    began = time.monotonic()
    for call in (
        lambda: broker.submit(request),
        lambda: broker.find_order(ref),
        lambda: broker.cancel(ref),
        broker.open_orders,
        broker.positions,
        broker.account,
    ):
        with pytest.raises(NotSent):
            call()
    assert time.monotonic() - began < LONGEST_CALL_SECONDS
    assert desk.venue.orders(request.client_order_id) == []


# -- refusals leave nothing behind


def test_an_unknown_symbol_is_refused_for_good(desk: Desk) -> None:
    desk.symbol = desk.venue.unknown_symbol
    refusal = refused(desk, desk.request(BUY, "1"), RefusalKind.UNKNOWN_SYMBOL)
    assert refusal.permanent
    assert desk.broker.instrument(desk.venue.unknown_symbol) is None


def test_a_malformed_order_is_refused(desk: Desk) -> None:
    desk.require_order_type(OrderType.LIMIT)
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50.12345"))
    assert refused(desk, request, RefusalKind.INVALID).permanent


def test_more_than_the_money_is_refused(desk: Desk) -> None:
    request = desk.request(BUY, "900000000")
    assert not refused(desk, request, RefusalKind.BUYING_POWER).permanent


def test_held_quantity_is_refused_and_named(desk: Desk) -> None:
    desk.require_order_type(OrderType.STOP)
    desk.venue.hold(desk.symbol, quantity=D(10), price=PRICE)
    stop = desk.request(SELL, "8", order_type=OrderType.STOP, stop_price=D("90"), time_in_force=TimeInForce.GTC)
    placed = desk.broker.submit(stop)
    assert eventually(lambda: desk.position() if desk.position()[1] != 10 else None) == (D(10), D(2))
    refusal = refused(desk, desk.request(SELL, "10"), RefusalKind.HELD_QUANTITY)
    assert refusal.available in (D(2), None)
    assert refusal.related_orders in ((placed.broker_order_id,), ())
    desk.broker.cancel(OrderRef(client_order_id=stop.client_order_id))
    desk.settled(stop, states={S.CANCELLED})
    assert eventually(lambda: desk.position() if desk.position()[1] == 10 else None) == (D(10), D(10))


def test_beyond_the_rate_limit_nothing_was_accepted(desk: Desk) -> None:
    desk.require(VenueFault.RATE_LIMIT)
    request = desk.resting()
    desk.venue.inject(VenueFault.RATE_LIMIT, client_order_id=request.client_order_id)
    refusal = refused(desk, request, RefusalKind.RATE_LIMITED)
    assert (refusal.retry_after, refusal.permanent) == (2.0, False)
    assert desk.broker.submit(request).state is S.WORKING


def test_a_question_beyond_the_rate_limit_is_not_a_refusal(desk: Desk) -> None:
    desk.require(VenueFault.RATE_LIMIT)
    desk.venue.inject(VenueFault.RATE_LIMIT)
    with pytest.raises(NotSent) as caught:
        desk.broker.find_order(OrderRef(client_order_id=desk.new_id()))
    assert caught.value.retry_after == 2.0


def test_revoked_credentials_are_told_apart_and_not_repeated(make_broker: MakeBroker, desk: Desk) -> None:
    broker = make_broker(revoked=True)
    request = desk.resting()
    for call in (lambda: broker.submit(request), broker.account, broker.positions, broker.open_orders):
        with pytest.raises(AccountRefused) as caught:
            call()
        assert (caught.value.kind, caught.value.permanent) == (RefusalKind.CREDENTIALS, True)
    assert desk.venue.orders(request.client_order_id) == []


def test_a_look_up_with_revoked_credentials_is_not_a_no(make_broker: MakeBroker, desk: Desk) -> None:
    with pytest.raises(AccountRefused):
        make_broker(revoked=True).find_order(OrderRef(client_order_id=desk.new_id()))


# -- cancel


def test_a_resting_order_is_cancelled(desk: Desk) -> None:
    request = desk.resting()
    placed = desk.broker.submit(request)
    desk.broker.cancel(OrderRef(client_order_id=request.client_order_id, broker_order_id=placed.broker_order_id))
    ended = desk.settled(request, states={S.CANCELLED})
    assert ended.filled_quantity == 0


def test_an_order_is_cancelled_by_our_id_alone(desk: Desk) -> None:
    request = desk.resting()
    desk.broker.submit(request)
    desk.broker.cancel(OrderRef(client_order_id=request.client_order_id))
    assert desk.settled(request, states={S.CANCELLED}).state is S.CANCELLED


def test_a_filled_order_cannot_be_cancelled_and_stays_filled(desk: Desk) -> None:
    request = desk.request(BUY, "2")
    placed = desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    with pytest.raises(Refused) as caught:
        desk.broker.cancel(OrderRef(client_order_id=request.client_order_id, broker_order_id=placed.broker_order_id))
    assert caught.value.kind is RefusalKind.NOT_CANCELABLE
    assert desk.find(request).state is S.FILLED


def test_an_order_that_never_was_cannot_be_cancelled(desk: Desk) -> None:
    with pytest.raises(Refused) as caught:
        desk.broker.cancel(OrderRef(client_order_id=desk.new_id()))
    assert caught.value.kind is RefusalKind.NOT_FOUND


# -- what the account has


def test_open_orders_are_those_that_have_not_ended(desk: Desk) -> None:
    resting, gone, filled = desk.resting(), desk.resting(), desk.request(BUY, "1")
    for request in (resting, gone, filled):
        desk.broker.submit(request)
    desk.broker.cancel(OrderRef(client_order_id=gone.client_order_id))
    desk.settled(gone, states={S.CANCELLED})
    desk.settled(filled, states={S.FILLED})
    ours = {resting.client_order_id, gone.client_order_id, filled.client_order_id}
    listed = [report for report in desk.broker.open_orders() if report.client_order_id in ours]
    assert [(report.client_order_id, report.state) for report in listed] == [(resting.client_order_id, S.WORKING)]


def test_a_short_position_is_negative(desk: Desk) -> None:
    if not desk.broker.capabilities.shorting:
        pytest.skip("the venue does not short")
    request = desk.request(SELL, "5")
    desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    assert desk.position() == (D(-5), D(-5))


def test_the_account_knows_its_money(desk: Desk) -> None:
    account = desk.broker.account()
    assert account.account_number
    assert not account.blocked
    assert account.equity > 0
    assert account.buying_power >= 0


def test_an_instrument_knows_its_increments(desk: Desk) -> None:
    facts = desk.broker.instrument(desk.symbol)
    assert facts is not None
    assert (facts.symbol, facts.tradable) == (desk.symbol, True)
    assert facts.tick > 0
    assert facts.lot > 0


def test_bars_come_oldest_first_with_their_extremes_outside(desk: Desk) -> None:
    if desk.venue.daily_bars is None:
        pytest.skip("the venue has no history")
    symbol, start, end, count = desk.venue.daily_bars
    bars = desk.broker.bars(symbol, start=start, end=end, seconds=86_400)
    assert len(bars) == count
    assert [bar.start for bar in bars] == sorted({bar.start for bar in bars})
    assert all(bar.start.utcoffset() is not None and bar.symbol == symbol for bar in bars)
    assert all(0 < bar.low <= min(bar.open, bar.close) for bar in bars)
    assert all(bar.high >= max(bar.open, bar.close) for bar in bars)


def test_bars_of_an_odd_length_are_refused_for_good(desk: Desk) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(Refused) as caught:
        desk.broker.bars(desk.symbol, start=now - timedelta(days=1), end=now, seconds=7)
    assert caught.value.permanent


# -- exact decimals


@pytest.mark.parametrize("quantity", ["0.1", "3.333333333", "12345678.123456789"])
def test_fractions_make_the_round_trip_digit_by_digit(desk: Desk, quantity: str) -> None:
    if not desk.broker.capabilities.fractional:
        pytest.skip("the venue trades no fractions")
    desk.venue.set_price(desk.symbol, bid=D("0.04"), ask=D("0.05"))
    request = desk.request(BUY, quantity)
    assert desk.broker.submit(request).quantity == D(quantity)
    report = desk.settled(request, states={S.FILLED})
    assert (report.quantity, report.filled_quantity) == (D(quantity), D(quantity))
    assert sum(fill.quantity for fill in report.executions) == D(quantity)
    assert desk.position() == (D(quantity), D(quantity))


def test_prices_make_the_round_trip_digit_by_digit(desk: Desk) -> None:
    desk.venue.set_price(desk.symbol, bid=D("0.1001"), ask=D("0.3003"))
    request = desk.request(BUY, "3")
    desk.broker.submit(request)
    report = desk.settled(request, states={S.FILLED})
    assert report.average_fill_price == D("0.3003")
    assert [fill.price for fill in report.executions] == [D("0.3003")]


# -- partial fills


def test_a_partial_fill_is_working_and_its_cancel_keeps_what_filled(desk: Desk) -> None:
    desk.require(VenueFault.PARTIAL_FILL)
    request = desk.request(BUY, "10", order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=TimeInForce.GTC)
    desk.venue.inject(VenueFault.PARTIAL_FILL, client_order_id=request.client_order_id)
    desk.broker.submit(request)
    partly = eventually(lambda: report if (report := desk.find(request)).filled_quantity else None)
    assert (partly.state, partly.filled_quantity, partly.quantity) == (S.WORKING, D(5), D(10))
    desk.broker.cancel(OrderRef(client_order_id=request.client_order_id))
    ended = desk.settled(request, states={S.CANCELLED})
    assert (ended.filled_quantity, sum(fill.quantity for fill in ended.executions)) == (D(5), D(5))
    assert desk.position() == (D(5), D(5))


# -- the stream


def test_stream_look_up_and_venue_agree_on_every_execution(desk: Desk, make_broker: MakeBroker) -> None:
    with watching(make_broker) as stream:
        requests = [desk.request(BUY, str(quantity)) for quantity in (1, 2, 3)]
        for request in requests:
            desk.broker.submit(request)
        for request in requests:
            stream.wait_for(request, S.FILLED)
            report = desk.settled(request, states={S.FILLED})
            truth = sorted(desk.venue.executions(request.client_order_id))
            assert truth == sorted((f.execution_id, f.quantity, f.price) for f in report.executions)
            told = stream.executions(request).values()
            assert truth == sorted((f.execution_id, f.quantity, f.price) for f in told)


def test_partial_fills_are_separate_executions_that_add_up(desk: Desk, make_broker: MakeBroker) -> None:
    desk.require(VenueFault.PARTIAL_FILL)
    with watching(make_broker) as stream:
        request = desk.request(
            BUY, "10", order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=TimeInForce.GTC
        )
        desk.venue.inject(VenueFault.PARTIAL_FILL, client_order_id=request.client_order_id)
        desk.broker.submit(request)
        eventually(lambda: stream.executions(request))
        desk.venue.heal()
        desk.venue.set_price(desk.symbol, bid=D("99.98"), ask=D("100.00"))
        report = desk.settled(request, states={S.FILLED})
        stream.wait_for(request, S.FILLED)
        assert len(report.executions) == 2
        assert sum(fill.quantity for fill in report.executions) == D(10)
        assert stream.executions(request) == {f.execution_id: f for f in report.executions}
        assert [r.state for r in stream.of(request) if r.executions] == [S.WORKING, S.FILLED]


def test_repeated_updates_carry_the_same_ids(desk: Desk, make_broker: MakeBroker) -> None:
    desk.require(VenueFault.REPEAT_UPDATES)
    desk.venue.inject(VenueFault.REPEAT_UPDATES)
    with watching(make_broker) as stream:
        request = desk.request(BUY, "6")
        desk.broker.submit(request)
        fills = eventually(lambda: found if len(found := [r for r in stream.of(request) if r.executions]) > 1 else None)
        assert {fill.execution_id for report in fills for fill in report.executions} == {
            desk.venue.executions(request.client_order_id)[0][0]
        }


def test_after_a_cut_the_stream_is_back_and_asks_for_a_snapshot(desk: Desk, make_broker: MakeBroker) -> None:
    desk.require(VenueFault.CUT_STREAM)
    with watching(make_broker) as stream:
        desk.venue.inject(VenueFault.CUT_STREAM)
        missed = desk.request(BUY, "1")
        desk.broker.submit(missed)
        eventually(lambda: stream.connects == 2, within=10)
        # what happened meanwhile is not replayed, so the caller asks: nothing is missing then
        assert desk.settled(missed, states={S.FILLED}).filled_quantity == 1
        seen = desk.request(BUY, "2")
        desk.broker.submit(seen)
        stream.wait_for(seen, S.FILLED)


def test_a_failing_handler_does_not_end_the_stream(desk: Desk, make_broker: MakeBroker) -> None:
    with watching(make_broker) as stream:
        stream.fail_next = 1
        first, second = desk.resting(), desk.resting()
        desk.broker.submit(first)
        eventually(lambda: stream.fail_next == 0)
        desk.broker.submit(second)
        eventually(lambda: stream.of(second))
        assert stream.connects == 1


# -- every order type and time in force that the venue declares


def _prices(order_type: OrderType, side: OrderSide) -> dict[str, Decimal]:
    """Return prices at which an order of this type rests while the market stands at 100."""
    far, near = (D("80"), D("90")) if side is SELL else (D("120"), D("110"))
    limit = D("110") if side is SELL else D("90")
    return {
        OrderType.MARKET: {},
        OrderType.LIMIT: {"limit_price": limit},
        OrderType.STOP: {"stop_price": near},
        OrderType.STOP_LIMIT: {"stop_price": near, "limit_price": far},
        OrderType.TRAILING_STOP: {"trail_percent": D(10)},
    }[order_type]


@pytest.mark.parametrize("side", list(OrderSide))
@pytest.mark.parametrize("order_type", [kind for kind in OrderType if kind is not OrderType.MARKET])
def test_each_order_type_rests_and_then_fills(desk: Desk, order_type: OrderType, side: OrderSide) -> None:
    desk.require_order_type(order_type)
    if side is BUY and not desk.broker.capabilities.shorting:
        pytest.skip("a buy stop needs a short position to protect")
    desk.venue.hold(desk.symbol, quantity=D(-side.sign * 4), price=PRICE)
    request = desk.request(side, "4", order_type=order_type, time_in_force=TimeInForce.GTC, **_prices(order_type, side))
    placed = desk.broker.submit(request)
    assert placed.state is S.WORKING
    assert desk.find(request).state is S.WORKING
    toward = D("111") if (side is SELL) is (order_type is OrderType.LIMIT) else D("89")
    desk.venue.set_price(desk.symbol, bid=toward, ask=toward)
    filled = desk.settled(request, states={S.FILLED})
    assert (filled.filled_quantity, filled.average_fill_price) == (D(4), toward)
    assert desk.position() == (D(0), D(0))


@pytest.mark.parametrize("time_in_force", [TimeInForce.DAY, TimeInForce.GTC])
def test_a_resting_time_in_force_rests(desk: Desk, time_in_force: TimeInForce) -> None:
    if time_in_force not in desk.broker.capabilities.times_in_force:
        pytest.skip(f"the venue has no {time_in_force}")
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    desk.broker.submit(request)
    assert desk.find(request).state is S.WORKING


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_an_immediate_order_fills_now_or_never(desk: Desk, time_in_force: TimeInForce) -> None:
    if time_in_force not in desk.broker.capabilities.times_in_force:
        pytest.skip(f"the venue has no {time_in_force}")
    never = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    now = desk.request(order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=time_in_force)
    desk.broker.submit(never)
    desk.broker.submit(now)
    ended = desk.settled(never, states=ENDED)
    assert ended.state in {S.CANCELLED, S.EXPIRED}
    assert ended.filled_quantity == 0
    assert desk.settled(now, states={S.FILLED}).filled_quantity == 10


@pytest.mark.parametrize("time_in_force", [TimeInForce.OPG, TimeInForce.CLS])
def test_an_auction_order_waits_or_is_refused_but_is_never_unknown(desk: Desk, time_in_force: TimeInForce) -> None:
    if time_in_force not in desk.broker.capabilities.times_in_force:
        pytest.skip(f"the venue has no {time_in_force}")
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    try:
        desk.broker.submit(request)
    except Refused:
        assert desk.venue.orders(request.client_order_id) == []
    else:
        assert desk.find(request).state in {S.WORKING, S.EXPIRED, S.CANCELLED}


# -- the adapter itself


def test_declared_capabilities_are_of_the_protocols_kind(desk: Desk) -> None:
    capabilities = desk.broker.capabilities
    assert isinstance(capabilities, Capabilities)
    assert {OrderType.MARKET, OrderType.LIMIT} <= capabilities.order_types
    assert capabilities.times_in_force
    assert capabilities.settle_after_seconds > 0


def test_nothing_but_the_three_outcomes_leaves_an_adapter(desk: Desk) -> None:
    odd = OrderRef(client_order_id="", broker_order_id="not/an id?&#")
    try:
        assert desk.broker.find_order(odd) is None
    except BrokerError as error:
        assert isinstance(error, OutcomeUnknown)  # noqa: PT017  # none or unknown, as the venue words it
    with pytest.raises((Refused, OutcomeUnknown)):
        desk.broker.cancel(odd)
