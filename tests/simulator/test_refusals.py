"""What the broker refuses, with Alpaca's statuses, codes and bodies; a refusal books nothing."""

from typing import Any

import pytest

from tests.simulator.acts import becomes, hold, place, placed
from tests.simulator.box import Box
from tests.simulator.sdk import APIError, MarketOrderRequest, OrderSide, TimeInForce, TradingClient


def count(box: Box) -> int:
    return len(box.control("GET", "/ledger")["orders"])


def test_more_than_is_available_is_refused_with_what_holds_it(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    stop = placed(box, side="sell", type="stop", stop_price="95", qty="6", time_in_force="gtc")
    status, body = place(box, side="sell", qty="5")
    assert (status, body) == (
        403,
        {
            "code": 40310000,
            "message": "insufficient qty available for order (requested: 5, available: 4)",
            "available": "4",
            "existing_qty": "10",
            "held_for_orders": "6",
            "related_orders": [stop["id"]],
            "symbol": "AAPL",
        },
    )
    assert count(box) == 1
    box.api("DELETE", f"/v2/orders/{stop['id']}")
    becomes(box, stop["id"], "canceled")
    assert place(box, side="sell", qty="10")[0] == 200


def test_a_short_cannot_be_covered_beyond_its_size(box: Box) -> None:
    hold(box, qty="-10")
    box.quote("AAPL", "100")
    status, body = place(box, side="buy", qty="11")
    assert (status, body["code"], body["existing_qty"]) == (403, 40310000, "10")


@pytest.mark.parametrize("mode", ["forever", "open_only", "none"])
def test_a_client_order_id_is_taken_as_long_as_the_mode_says(mode: str, box: Box) -> None:
    box.control("POST", "/dedupe", {"mode": mode})
    box.quote("AAPL", "100")
    resting = {"type": "limit", "limit_price": "50", "time_in_force": "gtc", "client_order_id": "mine"}
    first = placed(box, **resting)
    while_open = place(box, **resting)
    if mode == "none":
        assert while_open[0] == 200
        box.api("DELETE", f"/v2/orders/{while_open[1]['id']}")
        becomes(box, while_open[1]["id"], "canceled")
    else:
        assert while_open == (422, {"code": 40010001, "message": "client_order_id must be unique"})
    box.api("DELETE", f"/v2/orders/{first['id']}")
    becomes(box, first["id"], "canceled")
    assert place(box, **resting)[0] == (422 if mode == "forever" else 200)


RESTING: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("stop sell, market buy", {"side": "sell", "type": "stop", "stop_price": "90"}, {"side": "buy"}, True),
    (
        "stop sell, limit buy",
        {"side": "sell", "type": "stop", "stop_price": "90"},
        {"side": "buy", "type": "limit", "limit_price": "80"},
        True,
    ),
    (
        "limit sell, limit buy that crosses",
        {"side": "sell", "type": "limit", "limit_price": "110"},
        {"side": "buy", "type": "limit", "limit_price": "110"},
        True,
    ),
    (
        "limit sell, limit buy below",
        {"side": "sell", "type": "limit", "limit_price": "110"},
        {"side": "buy", "type": "limit", "limit_price": "109.99"},
        False,
    ),
    ("trail, market buy", {"side": "sell", "type": "trailing_stop", "trail_price": "5"}, {"side": "buy"}, False),
    (
        "oco, market buy",
        {
            "side": "sell",
            "type": "limit",
            "order_class": "oco",
            "take_profit": {"limit_price": "110"},
            "stop_loss": {"stop_price": "90"},
        },
        {"side": "buy"},
        False,
    ),
    (
        "limit buy, bare stop sell",
        {"side": "buy", "type": "limit", "limit_price": "80"},
        {"side": "sell", "type": "stop", "stop_price": "70"},
        True,
    ),
    (
        "limit buy, oco",
        {"side": "buy", "type": "limit", "limit_price": "80"},
        {
            "side": "sell",
            "type": "limit",
            "order_class": "oco",
            "take_profit": {"limit_price": "110"},
            "stop_loss": {"stop_price": "70"},
        },
        False,
    ),
]


@pytest.mark.parametrize(("_case", "resting", "wanted", "refused"), RESTING)
def test_orders_that_could_trade_with_each_other_are_refused(
    _case: str, resting: dict[str, Any], wanted: dict[str, Any], refused: bool, box: Box
) -> None:
    hold(box)
    box.quote("AAPL", "100")
    first = placed(box, time_in_force="gtc", **resting)
    before = count(box)
    status, body = place(box, time_in_force="gtc", **wanted)
    if not refused:
        assert status == 200
        return
    assert (status, body["code"], body["existing_order_id"]) == (403, 40310000, first["id"])
    assert body["message"] == "potential wash trade detected. use complex orders"
    assert count(box) == before


@pytest.mark.parametrize(
    ("_case", "held_qty", "fields", "refusal", "message"),
    [
        ("an unknown symbol", "0", {"symbol": "NOPE"}, (422, 42210000), 'asset "NOPE" not found'),
        ("a halted asset", "0", {"symbol": "HALT"}, (422, 42210000), "asset HALT is not tradable"),
        (
            "a fraction of a whole-share asset",
            "0",
            {"symbol": "WHOLE", "qty": "0.5"},
            (422, 42210000),
            "not fractionable",
        ),
        (
            "a fractional short",
            "0",
            {"side": "sell", "qty": "0.5"},
            (403, 40310000),
            "fractional orders cannot be sold short",
        ),
        (
            "a short of what cannot be borrowed",
            "0",
            {"symbol": "WHOLE", "side": "sell"},
            (422, 42210000),
            "cannot be sold short",
        ),
        (
            "a sell stop at the bid",
            "10",
            {"side": "sell", "type": "stop", "stop_price": "100"},
            (422, 42210000),
            "stop_price must be <= base_price - 0.01",
        ),
        (
            "a buy stop at the ask",
            "0",
            {"type": "stop", "stop_price": "100"},
            (422, 42210000),
            "stop_price must be >= base_price + 0.01",
        ),
        ("more than the money", "0", {"qty": "40001"}, (403, 40310000), "insufficient buying power"),
    ],
)
def test_the_account_refuses(
    _case: str, held_qty: str, fields: dict[str, Any], refusal: tuple[int, int], message: str, box: Box
) -> None:
    box.control(
        "POST",
        "/assets",
        {
            "assets": [
                {"symbol": "HALT", "tradable": False},
                {"symbol": "WHOLE", "fractionable": False, "shortable": False},
            ]
        },
    )
    box.quote("AAPL", "100")
    hold(box, qty=held_qty)
    answer = place(box, **fields)
    assert (answer[0], answer[1]["code"]) == refusal
    assert message in answer[1]["message"]
    assert count(box) == 0


def test_a_stop_a_cent_away_is_accepted(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    assert placed(box, side="sell", type="stop", stop_price="99.99")["status"] == "new"


def test_malformed_json_is_400(box: Box) -> None:
    status, _, body = box.call("POST", "/v2/orders", b'{"symbol": ', box.keys)
    assert (status, body) == (400, {"code": 40010000, "message": "request body format is invalid"})


def test_a_refusal_reaches_alpaca_py_as_its_error(box: Box, client: TradingClient) -> None:
    with pytest.raises(APIError) as refused:
        client.submit_order(MarketOrderRequest(symbol="NOPE", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY))
    assert (refused.value.status_code, refused.value.code) == (422, 42210000)


@pytest.mark.parametrize(
    ("_case", "headers", "status", "message"),
    [
        ("no keys", {}, 401, "request is not authorized"),
        ("wrong keys", {"APCA-API-KEY-ID": "x", "APCA-API-SECRET-KEY": "y"}, 403, "forbidden."),
    ],
)
def test_strangers_are_turned_away(_case: str, headers: dict[str, str], status: int, message: str, box: Box) -> None:
    for path in ("/v2/orders", "/v2/account", "/v2/stocks/quotes/latest?symbols=AAPL"):
        answer = box.call("GET", path, None, headers)
        assert (answer[0], answer[2]["message"]) == (status, message)


@pytest.mark.parametrize(
    ("_case", "query", "message"),
    [
        ("a wrong status", "status=live", "status must be one of open, closed, all, not 'live'"),
        ("a wrong limit", "limit=none", "limit must be a whole number of at least 1, not 'none'"),
        ("a wrong time", "after=yesterday", "after must be a date or an RFC 3339 time, not 'yesterday'"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(_case: str, query: str, message: str, box: Box) -> None:
    status, body = box.api("GET", f"/v2/orders?{query}")
    assert (status, body["message"]) == (422, message)


def test_every_answer_carries_the_rate_limit_and_an_enforced_one_bites(box: Box) -> None:
    _, headers, _ = box.call("GET", "/v2/clock", None, box.keys)
    assert headers["x-ratelimit-limit"] == "1000000"
    box.control("POST", "/rate_limit", {"per_minute": 3})
    answers = [box.call("GET", "/v2/clock", None, box.keys) for _ in range(8)]
    refused = [answer for answer in answers if answer[0] == 429]
    assert refused
    assert len(answers) - len(refused) <= 6  # three, or twice three when the minute ends here
    _, headers, body = refused[0]
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("3", "0")
    assert int(headers["x-ratelimit-reset"]) % 60 == 0
    assert body == {"code": 42910000, "message": "rate limit exceeded"}
    box.control("POST", "/rate_limit", {"per_minute": None})
    assert box.api("GET", "/v2/clock")[0] == 200
