"""The crypto adapter proves the conformance suite against a stub of one venue that ccxt knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from orders.brokers.crypto import CryptoBroker, connect
from orders.brokers.protocol import Broker
from tests.brokers.conformance import *  # noqa: F403  # every case of the suite runs here
from tests.brokers.conformance import MakeBroker, Venue, VenueFault, ordering, sending, telling
from tests.brokers.stub_exchange import BASES, KEY, QUOTE, SECRET, Exchange, StubServer
from tests.simulator.box import free_port

pytest.importorskip("ccxt", reason="crypto exchanges need the packages of requirements-crypto.txt")


class StubVenue:
    """The stub under the suite's control; it has no stream, and repeats nothing."""

    symbols: Sequence[str] = tuple(f"{base}/{QUOTE}" for base in BASES)
    unknown_symbol = f"NOSUCH/{QUOTE}"
    faults = frozenset(VenueFault) - {VenueFault.CUT_STREAM, VenueFault.REPEAT_UPDATES}
    daily_bars: tuple[str, datetime, datetime, int] | None = (
        symbols[0],
        datetime(2024, 2, 25, tzinfo=UTC),
        datetime(2024, 3, 5, 23, tzinfo=UTC),
        10,
    )

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def set_price(self, symbol: str, *, bid: Decimal, ask: Decimal) -> None:
        self.exchange.quote(symbol.replace("/", ""), bid, ask)

    def hold(self, symbol: str, *, quantity: Decimal, price: Decimal) -> None:
        self.exchange.balances[symbol.partition("/")[0]] = quantity

    def inject(self, fault: VenueFault, *, client_order_id: str = "") -> None:
        self.exchange.fault(str(fault), client_order_id)

    def heal(self) -> None:
        self.exchange.faults.clear()

    def orders(self, client_order_id: str) -> list[Decimal]:
        return [order.quantity for order in self.exchange.placed.values() if order.client_id == client_order_id]

    def executions(self, client_order_id: str) -> list[tuple[str, Decimal, Decimal]]:
        return [
            (filed_id(trade["id"], order.symbol), Decimal(trade["qty"]), Decimal(trade["price"]))
            for order in self.exchange.placed.values()
            if order.client_id == client_order_id
            for trade in order.trades
        ]


def filed_id(number: int, symbol: str) -> str:
    return f"{number}@{symbol.removesuffix(QUOTE)}/{QUOTE}"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    """Run one exchange for the module."""
    server = StubServer()
    yield server
    server.stop()


@pytest.fixture
def venue(stub: StubServer) -> Venue:
    """Give each case the exchange, emptied."""
    stub.exchange.reset()
    return StubVenue(stub.exchange)


@pytest.fixture
def make_broker(stub: StubServer) -> Iterator[MakeBroker]:
    """Make adapters of the stub's account."""
    made: list[CryptoBroker] = []

    def make(*, revoked: bool = False, unreachable: bool = False) -> Broker:
        url = f"http://127.0.0.1:{free_port()}" if unreachable else stub.url
        broker = connect(venue="binance", base_url=url, key=KEY, secret="revoked" if revoked else SECRET, quote=QUOTE)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def test_every_case_of_the_suite_runs_here() -> None:
    cases = {name for module in (ordering, sending, telling) for name in vars(module) if name.startswith("test_")}
    assert cases
    assert cases <= globals().keys()
