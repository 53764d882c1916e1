"""Both streams: alpaca-py's clients as they come, and the protocols word for word."""

import time
from decimal import Decimal
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.simulator.acts import becomes, hold, place, placed
from tests.simulator.box import Box, eventually
from tests.simulator.listeners import listening, market, running
from tests.simulator.sdk import StockDataStream, TradingStream


def test_alpaca_py_hears_a_fill_with_its_execution(box: Box) -> None:
    heard: list[Any] = []

    async def hear(update: Any) -> None:
        heard.append(update)

    stream = TradingStream(box.key, box.secret, url_override=f"{box.ws_url}/stream")
    stream.subscribe_trade_updates(hear)
    box.quote("AAPL", "99.99", "100.01")
    with running(box, stream, name="trading"):
        order = place(box)[1]
        eventually(lambda: len(heard) == 2)
    assert [str(getattr(update.event, "value", update.event)) for update in heard] == ["new", "fill"]
    fill = heard[1]
    assert (str(fill.order.id), fill.order.status.value) == (order["id"], "filled")
    assert (fill.price, fill.qty, fill.position_qty) == (100.01, 10.0, 10.0)
    (execution,) = box.control("GET", "/ledger")["executions"]
    assert str(fill.execution_id) == execution["id"]


def test_alpaca_py_hears_quotes_and_trades(box: Box) -> None:
    quotes: list[Any] = []
    trades: list[Any] = []

    async def hear_quote(quote: Any) -> None:
        quotes.append(quote)

    async def hear_trade(trade: Any) -> None:
        trades.append(trade)

    stream = StockDataStream(box.key, box.secret, url_override=f"{box.ws_url}/v2/iex")
    stream.subscribe_quotes(hear_quote, "AAPL")
    stream.subscribe_trades(hear_trade, "*")
    with running(box, stream, name="data"):
        box.quote("IBM", "50", "50.02")
        box.quote("AAPL", "99.99", "100.01", "100")
        eventually(lambda: len(trades) == 2)
        eventually(lambda: quotes)
    (quote,) = quotes
    assert (quote.symbol, quote.bid_price, quote.ask_price) == ("AAPL", 99.99, 100.01)
    assert [(trade.symbol, trade.price) for trade in trades] == [("IBM", 50.01), ("AAPL", 100.0)]
    assert abs(quote.timestamp.timestamp() - time.time()) < 10


def test_updates_of_a_life_come_in_order_and_after_the_acknowledgement(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    with listening(box) as updates:
        order = place(box, side="sell", type="stop", stop_price="95", time_in_force="gtc")[1]
        assert updates.events(1) == ["new"]
        box.api("PATCH", f"/v2/orders/{order['id']}", {"stop_price": "96"})
        replaced = updates.updates(3)
        assert [data["event"] for data in replaced] == ["pending_replace", "replaced", "new"]
        assert replaced[1]["order"]["replaced_by"] == replaced[2]["order"]["id"]
        box.api("DELETE", f"/v2/orders/{replaced[2]['order']['id']}")
        assert updates.events(2) == ["pending_cancel", "canceled"]
        box.control("POST", "/clock", {"is_open": False})
        place(box, side="sell", type="limit", limit_price="120")
        assert updates.events(1) == ["accepted"]
        box.control("POST", "/clock", {"is_open": True})
        assert updates.events(1) == ["new"]
        box.control("POST", "/clock", {"is_open": False})
        assert updates.events(1) == ["expired"]


def test_a_fill_says_price_quantity_and_position(box: Box) -> None:
    box.quote("AAPL", "100")
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.4", "count": 1})
    with listening(box) as updates:
        place(box, client_order_id="mine")
        new, part = updates.updates(2)
        assert (new["event"], new["order"]["client_order_id"]) == ("new", "mine")
        assert (part["event"], part["price"], part["qty"], part["position_qty"]) == ("partial_fill", "100", "4", "4")
        box.quote("AAPL", "101")
        (rest,) = updates.updates(1)
        assert (rest["event"], rest["price"], rest["qty"], rest["position_qty"]) == ("fill", "101", "6", "10")
        assert (rest["order"]["filled_qty"], rest["order"]["filled_avg_price"]) == ("10", "100.6")
        assert rest["execution_id"] != part["execution_id"]
        assert rest["timestamp"] == rest["order"]["filled_at"]


def test_nothing_is_told_twice_to_a_client_that_comes_back(box: Box) -> None:
    box.quote("AAPL", "100")
    with listening(box) as updates:
        becomes(box, place(box)[1]["id"], "filled")
        assert updates.events(2) == ["new", "fill"]
    becomes(box, place(box)[1]["id"], "filled")
    with listening(box) as updates:
        assert updates.is_quiet()


def test_a_stranger_is_not_authorized_and_hears_nothing(box: Box) -> None:
    box.quote("AAPL", "100")
    with connect(f"{box.ws_url}/stream") as socket:
        socket.send('{"action": "authenticate", "data": {"key_id": "x", "secret_key": "y"}}')
        assert b'"unauthorized"' in socket.recv(timeout=2)
        socket.send('{"action": "listen", "data": {"streams": ["trade_updates"]}}')
        assert b'"unauthorized"' in socket.recv(timeout=2)
        placed(box)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.1)


@pytest.mark.parametrize("message", ["{", "[]", '"x"', '{"data": {}}', '{"action": "dance"}'])
def test_a_wrong_message_is_answered_and_the_connection_stays(message: str, box: Box) -> None:
    with connect(f"{box.ws_url}/stream") as socket:
        socket.send(message)
        assert b'"error"' in socket.recv(timeout=2)
        socket.send(f'{{"action": "auth", "key": "{box.key}", "secret": "{box.secret}"}}')
        assert b'"authorized"' in socket.recv(timeout=2)


@pytest.mark.parametrize(("feed", "packed"), [("iex", True), ("iex", False), ("sip", True), ("test", False)])
def test_market_data_speaks_msgpack_or_json(feed: str, packed: bool, box: Box) -> None:
    with market(box, feed=feed, packed=packed) as client:
        client.send({"action": "subscribe", "quotes": ["AAPL"]})
        assert client.read() == [{"T": "error", "code": 401, "msg": "not authenticated"}]
        client.send({"action": "auth", "key": "x", "secret": "y"})
        assert client.read() == [{"T": "error", "code": 402, "msg": "auth failed"}]
        client.send({"action": "auth", "key": box.key, "secret": box.secret})
        assert client.read() == [{"T": "success", "msg": "authenticated"}]
        client.send({"action": "auth", "key": box.key, "secret": box.secret})
        assert client.read() == [{"T": "error", "code": 403, "msg": "already authenticated"}]
        client.send({"action": "subscribe", "quotes": ["AAPL"], "trades": ["AAPL", "IBM"]})
        (subscription,) = client.read()
        assert (subscription["T"], subscription["quotes"], subscription["trades"], subscription["bars"]) == (
            "subscription",
            ["AAPL"],
            ["AAPL", "IBM"],
            [],
        )
        client.send({"action": "unsubscribe", "trades": ["AAPL"]})
        assert client.read()[0]["trades"] == ["IBM"]
        box.quote("AAPL", "99.99", "100.01")
        (quote,) = client.read()
        assert (quote["T"], quote["S"], quote["bp"], quote["ap"]) == ("q", "AAPL", 99.99, 100.01)


def test_json_market_data_keeps_every_digit(box: Box) -> None:
    with market(box) as client:
        client.send({"action": "auth", "key": box.key, "secret": box.secret})
        client.read()
        client.send({"action": "subscribe", "quotes": ["*"]})
        client.read()
        box.quote("AAPL", "0.1000000000000000055511", "12345678901234567.89")
        frame = client.raw()
        assert isinstance(frame, str)
        assert '"bp":0.1000000000000000055511,' in frame
        assert '"ap":12345678901234567.89,' in frame


def test_wrong_market_data_messages_are_answered(box: Box) -> None:
    with market(box) as client:
        for message in ("{", "[]", '{"x": 1}'):
            client._socket.send(message)
            assert client.read() == [{"T": "error", "code": 400, "msg": "invalid syntax"}]


def test_a_dead_listener_does_not_disturb_the_others(box: Box) -> None:
    box.quote("AAPL", "100")
    with listening(box) as alive:
        with connect(f"{box.ws_url}/stream") as dying:
            dying.socket.close()
        becomes(box, place(box)[1]["id"], "filled")
        assert alive.events(2) == ["new", "fill"]


def test_a_cut_stream_closes_and_refuses_for_a_while(box: Box) -> None:
    with listening(box) as updates:
        box.control("POST", "/faults", {"kind": "cut_stream", "stream": "trading", "seconds": 0.4})
        with pytest.raises(ConnectionClosed):
            updates.read()
    with pytest.raises(InvalidStatus):
        connect(f"{box.ws_url}/stream").__enter__()
    with market(box):
        pass

    def is_back() -> bool:
        try:
            with listening(box):
                return True
        except InvalidStatus:
            return False

    eventually(is_back)


def test_prices_of_market_data_are_decimals_in_rest(box: Box) -> None:
    box.quote("AAPL", "99.991", "100.013")
    body = box.api("GET", "/v2/stocks/AAPL/quotes/latest")[1]
    assert (body["quote"]["bp"], body["quote"]["ap"]) == (Decimal("99.991"), Decimal("100.013"))
