"""Account, positions, activities, assets, clock and calendar through alpaca-py as it comes."""

from datetime import date
from decimal import Decimal

import pytest

from tests.simulator.acts import becomes, hold, place, placed, settled
from tests.simulator.box import Box, eventually
from tests.simulator.sdk import APIError, ClosePositionRequest, GetCalendarRequest, TradingClient


def fill(box: Box, **fields: str) -> str:
    order_id = str(placed(box, **fields)["id"])
    becomes(box, order_id, "filled")
    return order_id


def test_positions_are_valued_and_show_what_is_available(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "99.98", "100.02", "100")
    fill(box)
    placed(box, side="sell", type="stop", stop_price="95", qty="4")
    box.quote("AAPL", "110")
    position = client.get_open_position("AAPL")
    assert (position.qty, position.qty_available, position.side.value) == ("10", "6", "long")
    assert (position.avg_entry_price, position.market_value, position.unrealized_pl) == ("100.02", "1100", "99.8")
    assert client.get_open_position(client.get_asset("AAPL").id).symbol == "AAPL"
    account = client.get_account()
    assert (account.cash, account.equity, account.long_market_value) == ("998999.8", "1000099.8", "1100")


def test_a_short_position_is_negative(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100")
    fill(box, side="sell")
    placed(box, side="buy", type="stop", stop_price="105", qty="10")
    position = client.get_open_position("AAPL")
    assert (position.qty, position.qty_available, position.side.value) == ("-10", "0", "short")
    assert client.get_account().short_market_value == "-1000"


@pytest.mark.parametrize(
    ("_case", "request_", "left"),
    [
        ("all", None, None),
        ("a quantity", ClosePositionRequest(qty="3"), "7"),
        ("a percentage", ClosePositionRequest(percentage="25"), "7.5"),
    ],
)
def test_a_position_is_closed_by_a_market_order(
    _case: str, request_: ClosePositionRequest | None, left: str | None, box: Box, client: TradingClient
) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = client.close_position("AAPL", request_)
    assert (order.side.value, order.type.value, order.status.value) == ("sell", "market", "pending_new")
    becomes(box, str(order.id), "filled")
    assert [position.qty for position in client.get_all_positions()] == ([] if left is None else [left])


@pytest.mark.parametrize(
    ("_case", "path", "status", "message"),
    [
        ("not held", "/v2/positions/IBM", 404, "position does not exist"),
        ("both", "/v2/positions/AAPL?qty=1&percentage=5", 422, "only one of qty and percentage can be given"),
        (
            "too much",
            "/v2/positions/AAPL?qty=11",
            403,
            "insufficient qty available for order (requested: 11, available: 0)",
        ),
        (
            "held by a stop",
            "/v2/positions/AAPL",
            403,
            "insufficient qty available for order (requested: 10, available: 0)",
        ),
        ("words", "/v2/positions/AAPL?qty=all", 422, "qty must be a number, not 'all'"),
    ],
)
def test_a_close_that_cannot_be_is_refused(_case: str, path: str, status: int, message: str, box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    placed(box, side="sell", type="stop", stop_price="95", time_in_force="gtc")
    answer = box.api("DELETE", path)
    assert (answer[0], answer[1]["message"]) == (status, message)
    assert len(box.control("GET", "/ledger")["orders"]) == 1


def test_all_positions_are_closed_after_their_orders(box: Box, client: TradingClient) -> None:
    for symbol in ("AAPL", "IBM"):
        box.quote(symbol, "100")
        hold(box, symbol)
    stop = placed(box, side="sell", type="stop", stop_price="95", time_in_force="gtc")
    refused = {answer.symbol: answer.status for answer in client.close_all_positions(cancel_orders=False)}
    assert refused == {"AAPL": 403, "IBM": 200}
    box.control("POST", "/positions", {"symbol": "IBM", "qty": "5", "avg_entry_price": "90"})
    answers = client.close_all_positions(cancel_orders=True)
    assert {answer.symbol: answer.status for answer in answers} == {"AAPL": 200, "IBM": 200}
    becomes(box, stop["id"], "canceled")
    eventually(lambda: client.get_all_positions() == [])


def test_activities_carry_the_order_and_execution_ids_and_page(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100")
    orders = [fill(box, qty=str(qty)) for qty in (1, 2, 3)]
    executions = [one["id"] for one in box.control("GET", "/ledger")["executions"]]
    found = client.get("/account/activities/FILL", {"direction": "asc"})
    assert [one["order_id"] for one in found] == orders
    assert [one["id"].split("::")[1] for one in found] == executions
    first = found[0]
    assert (first["type"], first["qty"], first["price"], first["side"]) == ("fill", "1", "100", "buy")
    assert (first["leaves_qty"], first["cum_qty"], first["order_status"]) == ("0", "1", "filled")
    assert first["id"].split("::")[0] == "".join(c for c in first["transaction_time"] if c.isdigit())[:17]
    page = client.get("/account/activities", {"activity_types": "FILL", "page_size": 2, "page_token": found[2]["id"]})
    assert [one["order_id"] for one in page] == [orders[1], orders[0]]
    later = client.get("/account/activities/FILL", {"after": found[1]["transaction_time"]})
    assert [one["order_id"] for one in later] == [orders[2]]
    assert client.get("/account/activities/DIV") == []
    assert box.api("GET", "/v2/account/activities/FILL?page_token=x::y")[0] == 422


def test_partial_fills_are_activities_of_their_own(box: Box) -> None:
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.7", "count": 1})
    box.quote("AAPL", "100")
    order = place(box)[1]
    becomes(box, order["id"], "partially_filled")
    box.quote("AAPL", "101")
    filled = becomes(box, order["id"], "filled")
    assert Decimal(filled["filled_avg_price"]) == Decimal("100.3")
    newest, oldest = box.api("GET", "/v2/account/activities/FILL")[1]
    assert (oldest["type"], oldest["qty"], oldest["leaves_qty"], oldest["cum_qty"]) == ("partial_fill", "7", "3", "7")
    assert (newest["type"], newest["qty"], newest["leaves_qty"], newest["cum_qty"]) == ("fill", "3", "0", "10")


def test_reference_data_is_readable_by_alpaca_py(box: Box, client: TradingClient) -> None:
    assert {asset.symbol for asset in client.get_all_assets()} == {"AAPL", "GOOG", "IBM", "MSFT"}
    assert client.get_asset("IBM").fractionable is True
    with pytest.raises(APIError) as missing:
        client.get_asset("NOPE")
    assert (missing.value.status_code, missing.value.code) == (404, 40410000)
    clock = client.get_clock()
    assert clock.is_open is True
    assert clock.timestamp < clock.next_close
    days = client.get_calendar(GetCalendarRequest(start=date(2026, 1, 1), end=date(2026, 1, 7)))
    assert [day.date.day for day in days] == [1, 2, 5, 6, 7]
    assert (days[0].open.hour, days[0].open.minute, days[0].close.hour) == (9, 30, 16)


def test_a_change_from_outside_is_seen_without_an_order(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100")
    order = placed(box)
    becomes(box, order["id"], "filled")
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": "20", "avg_entry_price": "50"})
    assert client.get_open_position("AAPL").qty == "20"
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": "0"})
    assert client.get_all_positions() == []
    assert settled(box, order["id"])["filled_qty"] == "10"
