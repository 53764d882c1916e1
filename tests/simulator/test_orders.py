"""Simple orders through alpaca-py as it comes: every type and time in force, and what becomes of them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.simulator.acts import hold, when
from tests.simulator.box import Box, eventually
from tests.simulator.sdk import (
    APIError,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    OrderSide,
    QueryOrderStatus,
    StopLimitOrderRequest,
    StopOrderRequest,
    TimeInForce,
    TradingClient,
    TrailingStopOrderRequest,
)

BUY, SELL = OrderSide.BUY, OrderSide.SELL


def test_a_market_order_is_acknowledged_then_filled_at_the_quote(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "99.99", "100.01")
    order = client.submit_order(
        MarketOrderRequest(symbol="AAPL", qty=10, side=BUY, time_in_force=TimeInForce.DAY, client_order_id="one")
    )
    assert (order.status.value, order.filled_qty, order.client_order_id) == ("pending_new", "0", "one")
    filled = when(client, order, "filled")
    assert (filled.filled_qty, filled.filled_avg_price, filled.qty) == ("10", "100.01", "10")
    assert abs((datetime.now(UTC) - filled.filled_at).total_seconds()) < 10
    assert client.get_order_by_client_id("one").id == order.id


def test_a_market_order_without_a_quote_waits_as_new(box: Box, client: TradingClient) -> None:
    box.control("POST", "/assets", {"assets": [{"symbol": "NEWCO"}]})
    order = client.submit_order(MarketOrderRequest(symbol="NEWCO", qty=1, side=BUY, time_in_force=TimeInForce.DAY))
    when(client, order, "new")
    box.quote("NEWCO", "7.01", "7.03")
    assert when(client, order, "filled").filled_avg_price == "7.03"


@pytest.mark.parametrize(
    ("_case", "request_of", "quotes", "price"),
    [
        (
            "a resting limit fills when crossed",
            lambda: LimitOrderRequest(symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.GTC, limit_price=103),
            ["102.99", "103.02"],
            "103.02",
        ),
        (
            "a stop fills as market",
            lambda: StopOrderRequest(symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.GTC, stop_price=95.1),
            ["95.11", "95.10"],
            "95.1",
        ),
        (
            "a gapped stop fills at the gap",
            lambda: StopOrderRequest(symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.DAY, stop_price=95),
            ["28.19"],
            "28.19",
        ),
        (
            "a stop limit waits for its limit",
            lambda: StopLimitOrderRequest(
                symbol="AAPL",
                qty=10,
                side=SELL,
                time_in_force=TimeInForce.GTC,
                stop_price=95,
                limit_price=94,
            ),
            ["90", "93.99", "94.5"],
            "94.5",
        ),
        (
            "a trail follows by percent",
            lambda: TrailingStopOrderRequest(
                symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.GTC, trail_percent=5
            ),
            ["110", "104.51", "104.5"],
            "104.5",
        ),
        (
            "a trail follows by dollars",
            lambda: TrailingStopOrderRequest(
                symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.DAY, trail_price=3
            ),
            ["101", "98.01", "97"],
            "97",
        ),
    ],
)
def test_an_exit_fills_at_the_last_of_the_quotes_only(
    _case: str, request_of: Any, quotes: list[str], price: str, box: Box, client: TradingClient
) -> None:
    hold(box)
    box.quote("AAPL", "100", "100.02")
    order = when(client, client.submit_order(request_of()), "new")
    for quote in quotes[:-1]:
        box.quote("AAPL", quote)
        assert client.get_order_by_id(order.id).status.value == "new"
    box.quote("AAPL", quotes[-1])
    filled = when(client, order, "filled")
    assert (filled.filled_avg_price, filled.filled_qty) == (price, "10")
    assert client.get_all_positions() == []


def test_a_trail_shows_its_high_water_mark_and_stop(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = client.submit_order(
        TrailingStopOrderRequest(symbol="AAPL", qty=10, side=SELL, time_in_force=TimeInForce.GTC, trail_percent=2)
    )
    assert (order.hwm, order.stop_price) == ("100", "98")
    when(client, order, "new")
    box.quote("AAPL", "105")
    moved = client.get_order_by_id(order.id)
    assert (moved.hwm, moved.stop_price, moved.trail_percent) == ("105", "102.9", "2")


@pytest.mark.parametrize("tif", [TimeInForce.IOC, TimeInForce.FOK])
def test_an_immediate_limit_fills_or_is_canceled(tif: TimeInForce, box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100", "100.02")
    taken = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=tif, limit_price=100.05)
    )
    assert when(client, taken, "filled").filled_avg_price == "100.02"
    missed = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=tif, limit_price=100.01)
    )
    assert when(client, missed, "canceled").filled_qty == "0"


def test_fractions_of_nine_decimals_are_exact(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100", "100.02")
    body = {"symbol": "AAPL", "qty": "0.123456789", "side": "buy", "type": "market", "time_in_force": "day"}
    status, order = box.api("POST", "/v2/orders", body)
    assert (status, order["qty"]) == (200, "0.123456789")
    eventually(client.get_all_positions)
    position = client.get_open_position("AAPL")
    assert (position.qty, position.qty_available, position.cost_basis) == (
        "0.123456789",
        "0.123456789",
        "12.34814803578",
    )


def test_a_fill_moves_cash_and_position_with_fees(box: Box, client: TradingClient) -> None:
    box.control("POST", "/fees", {"per_share": "0.005"})
    box.quote("AAPL", "99.99", "100.01")
    order = client.submit_order(MarketOrderRequest(symbol="AAPL", qty=10, side=BUY, time_in_force=TimeInForce.DAY))
    when(client, order, "filled")
    assert client.get_account().cash == "998999.85"
    assert box.control("GET", "/ledger")["executions"][0]["fee"] == "0.05"


def test_a_closed_market_queues_orders_and_its_close_expires_day_orders(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100", "100.02")
    box.control("POST", "/clock", {"is_open": False})
    assert client.get_clock().is_open is False
    queued = client.submit_order(MarketOrderRequest(symbol="AAPL", qty=4, side=SELL, time_in_force=TimeInForce.DAY))
    when(client, queued, "accepted")
    box.quote("AAPL", "90", "90.02")
    assert client.get_order_by_id(queued.id).status.value == "accepted"
    box.control("POST", "/clock", {"is_open": True})
    assert when(client, queued, "filled").filled_avg_price == "90"

    day = client.submit_order(
        StopOrderRequest(symbol="AAPL", qty=3, side=SELL, time_in_force=TimeInForce.DAY, stop_price=80)
    )
    gtc = client.submit_order(
        StopOrderRequest(symbol="AAPL", qty=3, side=SELL, time_in_force=TimeInForce.GTC, stop_price=80)
    )
    when(client, gtc, "new")
    box.control("POST", "/clock", {"is_open": False})
    assert when(client, day, "expired").expired_at is not None
    box.quote("AAPL", "79", "79.02")
    assert client.get_order_by_id(gtc.id).status.value == "new"
    box.control("POST", "/clock", {"is_open": True})
    assert when(client, gtc, "filled").filled_avg_price == "79"


def test_orders_on_the_open_and_on_the_close_wait_for_it(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100", "100.02")
    closing = client.submit_order(MarketOrderRequest(symbol="AAPL", qty=2, side=SELL, time_in_force=TimeInForce.CLS))
    far = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=2, side=SELL, time_in_force=TimeInForce.CLS, limit_price=120)
    )
    when(client, closing, "accepted")
    box.quote("AAPL", "101", "101.02")
    box.control("POST", "/clock", {"is_open": False})
    assert when(client, closing, "filled").filled_avg_price == "101"
    when(client, far, "canceled")
    opening = client.submit_order(MarketOrderRequest(symbol="AAPL", qty=2, side=SELL, time_in_force=TimeInForce.OPG))
    when(client, opening, "accepted")
    box.quote("AAPL", "95", "95.02")
    box.control("POST", "/clock", {"is_open": True})
    assert when(client, opening, "filled").filled_avg_price == "95"


def test_an_extended_hours_limit_fills_while_the_market_is_closed(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100", "100.02")
    box.control("POST", "/clock", {"is_open": False})
    order = client.submit_order(
        LimitOrderRequest(
            symbol="AAPL",
            qty=1,
            side=BUY,
            time_in_force=TimeInForce.DAY,
            limit_price=101,
            extended_hours=True,
        )
    )
    assert when(client, order, "filled").filled_avg_price == "100.02"


def test_a_list_of_orders_is_filtered_paged_and_sorted(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100", "100.02")
    box.quote("IBM", "50", "50.02")
    orders = [
        client.submit_order(
            LimitOrderRequest(symbol=symbol, qty=1, side=BUY, time_in_force=TimeInForce.GTC, limit_price=1 + number)
        )
        for number, symbol in enumerate(["AAPL", "IBM", "AAPL", "IBM"])
    ]
    client.cancel_order_by_id(when(client, orders[0], "new").id)
    when(client, orders[0], "canceled")

    def ids(**query: Any) -> list[int]:
        found = client.get_orders(GetOrdersRequest(**query))
        return [[order.id for order in orders].index(one.id) for one in found]

    assert ids() == [3, 2, 1]
    assert ids(status=QueryOrderStatus.CLOSED) == [0]
    assert ids(status=QueryOrderStatus.ALL, direction="asc") == [0, 1, 2, 3]
    assert ids(symbols=["IBM"]) == [3, 1]
    assert ids(limit=2) == [3, 2]
    assert ids(side=SELL) == []
    assert ids(after=orders[1].submitted_at) == [3, 2]
    assert ids(until=orders[2].submitted_at) == [1]


def test_an_unknown_order_is_404(box: Box, client: TradingClient) -> None:
    missing = "61e69015-8549-4bfd-b9c3-01e75843f47d"
    for call in (
        lambda: client.get_order_by_id(missing),
        lambda: client.cancel_order_by_id(missing),
        lambda: client.get_order_by_client_id("nobody"),
    ):
        with pytest.raises(APIError) as refused:
            call()
        assert (refused.value.status_code, refused.value.code) == (404, 40410000)
