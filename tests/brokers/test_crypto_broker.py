"""The crypto adapter against the stub: stops are what was asked for, nothing is sent twice, polling, prices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.crypto import CryptoBroker, connect
from orders.brokers.crypto_abilities import capabilities_of
from orders.brokers.crypto_polling import watch_by_asking
from orders.brokers.headers import take_heard
from orders.brokers.protocol import (
    OrderRef,
    OrderReport,
    OrderSide,
    OrderType,
    Replacement,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.client_ids import client_order_id
from orders.errors import LeaseOver, OutcomeUnknown, RefusalKind, Refused
from positions.feeds.crypto import CryptoFeed, read_tickers
from positions.feeds.protocol import Tick
from tests.brokers.stub_exchange import KEY, ORDER_TYPES, SECRET, Exchange, StubServer

pytest.importorskip("ccxt", reason="crypto exchanges need the packages of requirements-crypto.txt")

D = Decimal
T = OrderType
SYMBOL, NAME = "CONF1/USDT", "CONF1USDT"
POST = ("POST", "/api/v3/order")


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    """Run one exchange for the module."""
    server = StubServer()
    yield server
    server.stop()


@pytest.fixture
def exchange(stub: StubServer) -> Exchange:
    """Give each test the exchange emptied, one market at 99.99 to 100.01, ten coins."""
    stub.exchange.reset()
    stub.exchange.quote(NAME, D("99.99"), D("100.01"))
    stub.exchange.balances["CONF1"] = D(10)
    return stub.exchange


def _connect(stub: StubServer) -> CryptoBroker:
    return connect(venue="binance", base_url=stub.url, key=KEY, secret=SECRET)


@pytest.fixture
def broker(stub: StubServer, exchange: Exchange) -> Iterator[CryptoBroker]:
    """Give each test an adapter whose markets are read already, and forget that it read them."""
    made = _connect(stub)
    made.instrument(SYMBOL)
    exchange.requests.clear()
    yield made
    made.close()


def _request(leg: str = "stop", **fields: Any) -> SubmitRequest:
    made = client_order_id(account_id=1, subject=f"test {time.time_ns()}", leg=leg, attempt=1)
    return SubmitRequest(
        **{"client_order_id": made, "symbol": SYMBOL, "side": OrderSide.SELL, "quantity": D(2)} | fields
    )


def _stop(**fields: Any) -> SubmitRequest:
    terms = {
        "order_type": T.STOP_LIMIT,
        "stop_price": D("90.1"),
        "limit_price": D("89"),
        "time_in_force": TimeInForce.GTC,
    }
    return _request(**terms | fields)


def _sent(exchange: Exchange) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in exchange.requests]


# -- orders


def test_an_exit_is_one_request(broker: CryptoBroker, exchange: Exchange) -> None:
    request = _request()
    report = broker.submit(request)
    assert (report.state, report.filled_quantity, report.average_fill_price) == (ReportedState.FILLED, D(2), D("99.99"))
    assert _sent(exchange) == [POST]
    asked = exchange.requests[0][2]
    assert (asked["type"], asked["quantity"], asked["newClientOrderId"]) == ("MARKET", "2", request.client_order_id)
    heard = take_heard()
    assert heard is not None
    assert not heard.turned_away


def test_a_stop_is_read_back(broker: CryptoBroker, exchange: Exchange) -> None:
    report = broker.submit(_stop())
    assert report.state is ReportedState.WORKING
    assert _sent(exchange) == [POST, ("GET", "/api/v3/order")]
    asked = exchange.requests[0][2]
    assert (asked["type"], asked["stopPrice"], asked["price"]) == ("STOP_LOSS_LIMIT", "90.1", "89")


def test_a_stop_without_its_trigger_is_taken_back(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.ignores_triggers = True
    request = _stop(limit_price=D("101"), stop_price=D("98"))
    with pytest.raises(Refused, match="without its stop price") as caught:
        broker.submit(request)
    assert caught.value.permanent
    assert [order.status for order in exchange.placed.values()] == ["CANCELED"]
    assert exchange.balances["CONF1"] == 10


def test_a_stop_without_its_trigger_that_traded_is_told_as_it_is(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.ignores_triggers = True
    report = broker.submit(_stop())
    assert (report.state, report.filled_quantity) == (ReportedState.FILLED, D(2))
    assert sum(fill.quantity for fill in report.executions) == 2


def test_a_stop_that_cannot_be_read_back_exists_all_the_same(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.fault("server_error", "question")
    report = broker.submit(_stop())
    assert exchange.faults == []
    assert (report.state, report.raw_status) == (ReportedState.WORKING, "open")
    assert len(exchange.placed) == 1


def test_a_market_stop_where_the_venue_has_them(
    stub: StubServer, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.brokers.stub_exchange.ORDER_TYPES", [*ORDER_TYPES, "STOP_LOSS"])
    broker = _connect(stub)
    broker._exchange.has["createStopMarketOrder"] = True
    broker._exchange.load_markets()
    broker.capabilities = capabilities_of(broker._exchange)
    request = _request(order_type=T.STOP, stop_price=D("90.1"))
    assert broker.submit(request).state is ReportedState.WORKING
    exchange.quote(NAME, D("90"), D("90.1"))
    found = broker.find_order(OrderRef(client_order_id=request.client_order_id, symbol=SYMBOL))
    assert found is not None
    assert (found.state, found.average_fill_price) == (ReportedState.FILLED, D(90))
    broker.close()


def test_a_stop_the_price_has_passed_is_refused_for_its_price(broker: CryptoBroker, exchange: Exchange) -> None:
    with pytest.raises(Refused) as caught:
        broker.submit(_stop(stop_price=D("100")))
    assert (caught.value.kind, caught.value.permanent) == (RefusalKind.PRICE, False)
    assert exchange.placed == {}


def test_what_is_off_the_increments_is_never_sent(broker: CryptoBroker, exchange: Exchange) -> None:
    with pytest.raises(Refused, match="no multiple"):
        broker.submit(_stop(stop_price=D("90.00001")))
    assert exchange.requests == []


def test_the_same_id_of_an_open_order_is_that_order(broker: CryptoBroker, exchange: Exchange) -> None:
    request = _stop()
    first, second = broker.submit(request), broker.submit(request)
    assert second.broker_order_id == first.broker_order_id
    assert len(exchange.placed) == 1


def test_more_than_there_is_to_sell_names_what_there_is(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.balances["CONF1"] = D("1.998")  # a fee was taken in coins
    with pytest.raises(Refused) as caught:
        broker.submit(_request())
    assert (caught.value.kind, caught.value.available) == (RefusalKind.HELD_QUANTITY, D("1.998"))


def test_fees_are_booked_in_the_quote_currency(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.fee = ("CONF1", D("0.001"))
    request = _request()
    broker.submit(request)
    found = broker.find_order(OrderRef(client_order_id=request.client_order_id, symbol=SYMBOL))
    assert found is not None
    assert [fill.fee for fill in found.executions] == [D("0.001") * D("99.99")]


def test_an_order_is_never_changed_in_place(broker: CryptoBroker, exchange: Exchange) -> None:
    request = _stop()
    placed = broker.submit(request)
    exchange.requests.clear()
    ref = OrderRef(client_order_id=request.client_order_id, broker_order_id=placed.broker_order_id)
    with pytest.raises(Refused) as caught:
        broker.replace(ref, Replacement(client_order_id="xm2", stop_price=D(91)))
    assert (caught.value.kind, caught.value.permanent) == (RefusalKind.NOT_ALLOWED, True)
    assert exchange.requests == []


# -- look-ups


def test_without_its_symbol_an_order_that_is_gone_is_unknown_not_missing(
    stub: StubServer, broker: CryptoBroker
) -> None:
    open_one, done = _stop(), _request()
    broker.submit(open_one)
    broker.submit(done)
    other = _connect(stub)  # another worker, which has not sent them
    found = other.find_order(OrderRef(client_order_id=open_one.client_order_id))
    assert found is not None
    assert found.state is ReportedState.WORKING
    with pytest.raises(OutcomeUnknown, match="without its symbol"):
        other.find_order(OrderRef(client_order_id=done.client_order_id))
    assert other.find_order(OrderRef(client_order_id="xm-never", symbol=SYMBOL)) is None
    other.close()


def test_without_its_symbol_every_known_one_is_asked(
    stub: StubServer, broker: CryptoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _request()
    broker.submit(done)
    other = _connect(stub)
    other.know_symbols(["AAPL", "CONF0/USDT", SYMBOL])
    found = other.find_order(OrderRef(client_order_id=done.client_order_id))
    assert found is not None
    assert (found.state, found.symbol) == (ReportedState.FILLED, SYMBOL)
    assert other.find_order(OrderRef(client_order_id="xm-never")) is None
    monkeypatch.setattr("orders.brokers.crypto_lookups._SEARCH_SECONDS", -1.0)
    with pytest.raises(OutcomeUnknown, match="too many symbols"):
        other.find_order(OrderRef(client_order_id="xm-never"))
    other.close()


def test_without_a_question_by_client_id_the_lists_are_searched(broker: CryptoBroker, exchange: Exchange) -> None:
    broker._asker._by_client_id = False
    open_one, done = _stop(), _request()
    for request in (open_one, done):
        broker.submit(request)
    states = {}
    for request in (open_one, done):
        found = broker.find_order(OrderRef(client_order_id=request.client_order_id, symbol=SYMBOL))
        assert found is not None
        states[request.client_order_id] = found.state
    assert states == {
        open_one.client_order_id: ReportedState.WORKING,
        done.client_order_id: ReportedState.FILLED,
    }
    assert broker.find_order(OrderRef(client_order_id="xm-never", symbol=SYMBOL)) is None
    assert ("GET", "/api/v3/allOrders") in _sent(exchange)


def test_fills_are_found_among_all_trades_where_orders_have_none(broker: CryptoBroker) -> None:
    broker._exchange.has["fetchOrderTrades"] = False
    first, second = _request(quantity=D(1)), _request(quantity=D(3))
    for request in (first, second):
        broker.submit(request)
    found = broker.find_order(OrderRef(client_order_id=second.client_order_id, symbol=SYMBOL))
    assert found is not None
    assert [fill.quantity for fill in found.executions] == [D(3)]


def test_money_and_holdings(broker: CryptoBroker, exchange: Exchange) -> None:
    broker.submit(_stop())
    account = broker.account()
    assert (account.account_number, account.cash) == ("354937868", D(1_000_000))
    assert account.equity == D(1_000_000) + 10 * D("99.99")
    (coins,) = broker.positions()
    assert (coins.symbol, coins.quantity, coins.available, coins.average_entry) == (SYMBOL, D(10), D(8), D(0))
    facts = broker.instrument(SYMBOL)
    assert facts is not None
    assert (facts.tick, facts.lot, facts.min_notional) == (D("0.0001"), D("1E-9"), D("0.1"))


def test_secrets_are_shown_to_nobody(broker: CryptoBroker, exchange: Exchange) -> None:
    exchange.fault("lose_request")
    with pytest.raises(OutcomeUnknown) as caught:
        broker.submit(_request())
    for text in (repr(broker), str(caught.value)):
        assert SECRET not in text
        assert KEY not in text
        assert "signature" not in text


@pytest.mark.parametrize(
    ("_case", "options", "said"),
    [
        ("no secret", {"secret": ""}, "needs both key and secret"),
        ("no address", {"base_url": "binance"}, "must look like"),
        ("no venue", {"venue": "nosuch"}, "knows no exchange"),
    ],
)
def test_what_cannot_work_is_said_at_once(_case: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect(**{"venue": "binance", "key": "k", "secret": "s"} | options)


def test_markets_that_took_long_leave_no_time_for_the_order(
    broker: CryptoBroker, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.brokers.crypto._SPARE_SECONDS", -1.0)
    with pytest.raises(LeaseOver, match="took too long"):
        broker.submit(_request())
    assert exchange.placed == {}


def test_loading_the_library_leaves_no_time_for_the_first_order_alone(broker: CryptoBroker, exchange: Exchange) -> None:
    broker._opening_seconds = 2.0
    request = _request()
    with pytest.raises(LeaseOver):
        broker.submit(request)
    assert exchange.placed == {}
    assert broker.submit(request).state is ReportedState.FILLED


# -- polling


class Listener:
    """Runs a loop on a thread and keeps what it is told."""

    def __init__(self, run: Callable[[Listener], None]) -> None:
        self.told: list[Any] = []
        self.connects = 0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=run, args=(self,), daemon=True)
        self._thread.start()

    def take(self, batch: Sequence[Any]) -> None:
        self.told += batch

    def connected(self) -> None:
        self.connects += 1

    def wait(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + 5
        while not done():
            assert time.monotonic() < deadline, self.told
            time.sleep(0.01)

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()


def test_orders_are_followed_by_asking(stub: StubServer, broker: CryptoBroker, exchange: Exchange) -> None:
    asking = _connect(stub)
    listener = Listener(
        lambda self: watch_by_asking(
            asking,
            on_reports=self.take,
            on_connected=self.connected,
            until=self.stopping.is_set,
            poll_seconds=0.02,
        )
    )
    listener.wait(lambda: listener.connects == 1)
    request = _stop()
    broker.submit(request)
    listener.wait(lambda: listener.told)
    exchange.quote(NAME, D("90"), D("90.1"))
    listener.wait(lambda: len(listener.told) > 1)
    exchange.fault("server_error", "question")
    listener.wait(lambda: listener.connects == 2)
    listener.stop()
    asking.close()
    reports: list[OrderReport] = listener.told
    assert [report.state for report in reports] == [ReportedState.WORKING, ReportedState.FILLED]
    assert {report.client_order_id for report in reports} == {request.client_order_id}
    assert [fill.quantity for fill in reports[1].executions] == [D(2)]


# -- prices


def test_prices_are_followed_by_asking(stub: StubServer, exchange: Exchange) -> None:
    feed = CryptoFeed(venue="binance", base_url=stub.url, poll_seconds=0.02)
    listener = Listener(
        lambda self: feed.run(
            symbols=lambda: frozenset({SYMBOL, "AAPL"}), on_ticks=self.take, until=self.stopping.is_set
        )
    )
    listener.wait(lambda: listener.told)
    exchange.fault("rate_limit", "question")
    exchange.quote(NAME, D("98.1"), D("98.2"))
    listener.wait(lambda: listener.told[-1].bid == D("98.1"))
    listener.stop()
    tick: Tick = listener.told[0]
    assert (tick.symbol, tick.bid, tick.ask, tick.last) == (SYMBOL, D("99.99"), D("100.01"), D("99.99"))
    assert abs((tick.source_at - datetime.now(UTC)).total_seconds()) < 60
    assert {told.symbol for told in listener.told} == {SYMBOL}


def test_tickers_that_cannot_be_read_are_left_out() -> None:
    now = datetime(2024, 5, 6, tzinfo=UTC)
    good = {"symbol": "A/USDT", "bid": "1.10", "ask": "0", "last": None, "timestamp": None}
    bad = [good | {"bid": 1.1}, good | {"bid": "NaN"}, {"bid": "1"}, good | {"timestamp": "soon"}]
    assert read_tickers([*bad, good], now=now) == [Tick("A/USDT", D("1.10"), None, None, now)]
