"""What the Alpaca adapter reads page by page, against a simulator with more than a page of it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from orders.brokers.alpaca import AlpacaBroker, connect
from orders.brokers.protocol import OrderRef, OrderSide, OrderType, ReportedState, SubmitRequest, TimeInForce
from tests.simulator.box import Box, eventually, start_box

D = Decimal


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    running = start_box(tmp_path_factory.mktemp("box"))
    yield running
    running.stop()


@pytest.fixture
def broker(box: Box) -> Iterator[AlpacaBroker]:
    box.control("POST", "/reset")
    box.quote("AAPL", "99.99", "100.01")
    adapter = connect(base_url=box.url, key=box.key, secret=box.secret)
    yield adapter
    adapter.close()


def buy(number: int, **fields: object) -> SubmitRequest:
    wanted = {"client_order_id": f"xm-{number}", "symbol": "AAPL", "quantity": D(1)} | fields
    return SubmitRequest(side=OrderSide.BUY, **wanted)  # type: ignore[arg-type]


def test_more_open_orders_than_a_page_are_all_found(broker: AlpacaBroker) -> None:
    resting = {
        "order_type": OrderType.LIMIT, "limit_price": D("1"), "time_in_force": TimeInForce.GTC,
    }  # fmt: skip
    for number in range(505):
        broker.submit(buy(number, **resting))
    found = broker.open_orders()
    assert {report.client_order_id for report in found} == {f"xm-{number}" for number in range(505)}
    assert len(found) == 505


def test_an_orders_fills_are_found_behind_those_of_others(broker: AlpacaBroker, box: Box) -> None:
    box.quote("AAPL", "0.99", "1.01")
    for number in range(230):
        broker.submit(buy(number, quantity=D(number + 1)))
    eventually(lambda: broker.find_order(OrderRef(client_order_id="xm-229")).filled_quantity)  # type: ignore[union-attr]
    for number in (0, 115, 229):
        report = broker.find_order(OrderRef(client_order_id=f"xm-{number}"))
        assert report is not None
        assert [fill.quantity for fill in report.executions] == [D(number + 1)]


def test_the_legs_of_a_bracket_are_open_orders_too(broker: AlpacaBroker, box: Box) -> None:
    status, parent = box.api(
        "POST",
        "/v2/orders",
        {
            "symbol": "AAPL", "qty": "3", "side": "buy", "type": "limit", "limit_price": "90",
            "time_in_force": "gtc", "order_class": "bracket", "client_order_id": "xm-bracket",
            "take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "80"},
        },
    )  # fmt: skip
    assert status == 200
    found = {report.broker_order_id: report for report in broker.open_orders()}
    assert set(found) == {parent["id"], *(leg["id"] for leg in parent["legs"])}
    assert len(found) == 3
    assert {report.state for report in found.values()} == {ReportedState.WORKING}
    # once the entry is filled its legs stand alone, and the entry is gone
    box.quote("AAPL", "89", "90")
    eventually(broker.positions)
    eventually(lambda: len(broker.open_orders()) == 2)
    left = broker.open_orders()
    assert {report.broker_order_id for report in left} == {leg["id"] for leg in parent["legs"]}
    assert {report.side for report in left} == {OrderSide.SELL}
