"""The Robinhood adapter proves the conformance suite against a server of our own that speaks as Robinhood's does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orders.brokers.protocol import Broker
from orders.brokers.robinhood import RobinhoodBroker, connect
from tests.brokers.conformance import *  # noqa: F403  # every case of the suite runs here
from tests.brokers.conformance import SILENCE_SECONDS, MakeBroker, Venue, VenueFault, ordering, sending, telling
from tests.brokers.stub_robinhood import StubRobinhood
from tests.simulator.box import free_port

SYMBOLS = tuple(f"CONF{number}" for number in range(60))
_FIRST_DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=12)
_DAYS = 8


class StubVenue:
    """The server under the suite's control."""

    symbols: Sequence[str] = SYMBOLS
    unknown_symbol = "NOSUCH"
    faults = frozenset(VenueFault) - {VenueFault.CUT_STREAM, VenueFault.REPEAT_UPDATES}
    daily_bars: tuple[str, datetime, datetime, int] | None = (
        SYMBOLS[0],
        _FIRST_DAY,
        _FIRST_DAY + timedelta(days=_DAYS - 1),
        _DAYS,
    )

    def __init__(self, stub: StubRobinhood) -> None:
        self._stub = stub

    def set_price(self, symbol: str, *, bid: Decimal, ask: Decimal) -> None:
        self._stub.set_price(symbol, bid=bid, ask=ask)

    def hold(self, symbol: str, *, quantity: Decimal, price: Decimal) -> None:
        self._stub.held[symbol] = (quantity, price)

    def inject(self, fault: VenueFault, *, client_order_id: str = "") -> None:
        self._stub.inject(str(fault), client_order_id=client_order_id)

    def heal(self) -> None:
        self._stub.faults.clear()

    def orders(self, client_order_id: str) -> list[Decimal]:
        return [order.quantity for order in self._stub.of_client(client_order_id)]

    def executions(self, client_order_id: str) -> list[tuple[str, Decimal, Decimal]]:
        return [
            (fill["id"], fill["quantity"], fill["price"])
            for order in self._stub.of_client(client_order_id)
            for fill in order.executions
        ]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubRobinhood]:
    """Run one server for the module, with a stretch of daily bars."""
    running = StubRobinhood(token="a token", symbols=SYMBOLS, silence_seconds=SILENCE_SECONDS)
    running.bars[SYMBOLS[0]] = [
        {
            "begins_at": (_FIRST_DAY + timedelta(days=day)).isoformat().replace("+00:00", "Z"),
            "open_price": "100.000000",
            "high_price": f"{101 + day}.000000",
            "low_price": "99.500000",
            "close_price": "100.500000",
            "volume": 1000,
        }
        for day in range(-1, _DAYS + 1)
    ]
    yield running
    running.close()


@pytest.fixture
def venue(stub: StubRobinhood) -> Venue:
    """Give each case the server, emptied."""
    stub.reset()
    return StubVenue(stub)


@pytest.fixture
def make_broker(stub: StubRobinhood) -> Iterator[MakeBroker]:
    """Make adapters of the server's account."""
    made: list[RobinhoodBroker] = []

    def make(*, revoked: bool = False, unreachable: bool = False) -> Broker:
        url = f"http://127.0.0.1:{free_port()}" if unreachable else stub.url
        broker = connect(base_url=url, token="revoked" if revoked else stub.token)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def test_every_case_of_the_suite_runs_here() -> None:
    cases = {name for module in (ordering, sending, telling) for name in vars(module) if name.startswith("test_")}
    assert cases
    assert cases <= globals().keys()
