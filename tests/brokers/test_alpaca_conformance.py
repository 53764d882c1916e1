"""The Alpaca adapter proves the conformance suite against the broker in a box, a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from orders.brokers.alpaca import AlpacaBroker, connect
from orders.brokers.protocol import Broker
from tests.brokers.conformance import *  # noqa: F403  # every case of the suite runs here
from tests.brokers.conformance import SILENCE_SECONDS, MakeBroker, Venue, VenueFault, ordering, sending, telling
from tests.simulator.box import Box, free_port, start_box

_POST = {"method": "POST", "path": "/v2/orders"}
_HALF_NOW = {"kind": "partial_fill", "fraction": "0.5", "seconds": 600}
#: Each fault of the suite as a rule of the simulator; `match` is narrowed to an order where one is named.
_RULES: dict[VenueFault, dict[str, object]] = {
    VenueFault.LOSE_REQUEST: {"kind": "drop_before_accept", "count": 1},
    VenueFault.LOSE_ANSWER: {"kind": "drop_after_accept", "count": 1},
    VenueFault.SERVER_ERROR: {"kind": "status", "status": 503, "count": 1},
    VenueFault.SERVER_ERROR_AFTER_ACCEPT: {"kind": "status", "status": 504, "after_accept": True, "count": 1},
    VenueFault.RATE_LIMIT: {"kind": "status", "status": 429, "retry_after": 2, "count": 1},
    VenueFault.SILENCE: {"kind": "latency", "seconds": SILENCE_SECONDS, "count": 1},
    VenueFault.PARTIAL_FILL: {**_HALF_NOW, "count": 1},
    VenueFault.CUT_STREAM: {"kind": "cut_stream", "stream": "trading"},
    VenueFault.REPEAT_UPDATES: {"kind": "duplicate_updates"},
}
_OF_REQUESTS = frozenset(_RULES) - {VenueFault.PARTIAL_FILL, VenueFault.CUT_STREAM, VenueFault.REPEAT_UPDATES}


class BoxVenue:
    """The simulator under the suite's control."""

    symbols: Sequence[str] = tuple(f"CONF{number}" for number in range(60))
    unknown_symbol = "NOSUCH"
    faults = frozenset(VenueFault)
    daily_bars: tuple[str, datetime, datetime, int] | None = (
        "AAPL",
        datetime(2008, 9, 22, tzinfo=UTC),
        datetime(2008, 10, 3, 23, tzinfo=UTC),
        10,
    )

    def __init__(self, box: Box) -> None:
        self._box = box

    def set_price(self, symbol: str, *, bid: Decimal, ask: Decimal) -> None:
        self._box.quote(symbol, str(bid), str(ask))

    def hold(self, symbol: str, *, quantity: Decimal, price: Decimal) -> None:
        self._box.control("POST", "/positions", {"symbol": symbol, "qty": quantity, "avg_entry_price": price})

    def inject(self, fault: VenueFault, *, client_order_id: str = "") -> None:
        rule = dict(_RULES[fault])
        if client_order_id:
            rule["match"] = {"client_order_id": client_order_id}
            if fault in _OF_REQUESTS:
                rule["match"] = {**_POST, "client_order_id": client_order_id}
        self._box.control("POST", "/faults", {"faults": [rule]})

    def heal(self) -> None:
        self._box.control("DELETE", "/faults")

    def orders(self, client_order_id: str) -> list[Decimal]:
        return [Decimal(order["qty"]) for order in self._orders(client_order_id)]

    def executions(self, client_order_id: str) -> list[tuple[str, Decimal, Decimal]]:
        ids = {order["id"] for order in self._orders(client_order_id)}
        return [
            (execution["id"], Decimal(execution["qty"]), Decimal(execution["price"]))
            for execution in self._box.control("GET", "/ledger")["executions"]
            if execution["order_id"] in ids
        ]

    def _orders(self, client_order_id: str) -> list[dict[str, str]]:
        ledger = self._box.control("GET", "/ledger")
        return [order for order in ledger["orders"] if order["client_order_id"] == client_order_id]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    running = start_box(tmp_path_factory.mktemp("box"))
    yield running
    running.stop()


@pytest.fixture
def venue(box: Box) -> Iterator[Venue]:
    """Give each case the simulator, emptied."""
    box.control("POST", "/reset")
    yield BoxVenue(box)
    box.control("DELETE", "/faults")


@pytest.fixture
def make_broker(box: Box) -> Iterator[MakeBroker]:
    """Make adapters of the simulator's account."""
    made: list[AlpacaBroker] = []

    def make(*, revoked: bool = False, unreachable: bool = False) -> Broker:
        url = f"http://127.0.0.1:{free_port()}" if unreachable else box.url
        broker = connect(base_url=url, key=box.key, secret="revoked" if revoked else box.secret)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def test_every_case_of_the_suite_runs_here() -> None:
    cases = {name for module in (ordering, sending, telling) for name in vars(module) if name.startswith("test_")}
    assert cases
    assert cases <= globals().keys()
