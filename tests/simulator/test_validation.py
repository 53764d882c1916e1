"""What a body of POST or PATCH must look like."""

from typing import Any

import pytest

from orders.brokers.simulator.records import Refusal
from orders.brokers.simulator.validation import read_amendment, read_json, read_order

GOOD: dict[str, Any] = {"symbol": "AAPL", "qty": "10", "side": "sell", "type": "market", "time_in_force": "day"}
LIMIT = {**GOOD, "type": "limit", "limit_price": "100"}
TAKE, STOP = {"limit_price": "110"}, {"stop_price": "90"}


@pytest.mark.parametrize(
    ("_case", "body", "code", "message"),
    [
        ("no symbol", {**GOOD, "symbol": ""}, 40010001, "symbol is required"),
        ("no side", {**GOOD, "side": None}, 40010001, "side is required"),
        ("a wrong side", {**GOOD, "side": "hold"}, 40010001, "invalid side: hold"),
        ("a wrong type", {**GOOD, "type": "magic"}, 40010001, "invalid type: magic"),
        ("a wrong time in force", {**GOOD, "time_in_force": "gtd"}, 40010001, "invalid time_in_force: gtd"),
        ("a wrong class", {**GOOD, "order_class": "mleg"}, 40010001, "invalid order_class: mleg"),
        ("no quantity", {**GOOD, "qty": None}, 40010001, "qty is required"),
        ("no number", {**GOOD, "qty": "ten"}, 40010001, "qty must be a number"),
        ("not a number", {**GOOD, "qty": "NaN"}, 40010001, "qty must be a number"),
        ("infinity", {**GOOD, "qty": "Infinity"}, 40010001, "qty must be a number"),
        ("a truth value", {**GOOD, "qty": True}, 40010001, "qty must be a number"),
        ("zero", {**GOOD, "qty": "0"}, 42210000, "qty must be > 0"),
        ("a negative quantity", {**GOOD, "qty": "-1"}, 42210000, "qty must be > 0"),
        ("ten decimals", {**GOOD, "qty": "0.0123456789"}, 42210000, "qty can have at most 9 decimal places"),
        ("an amount", {**GOOD, "notional": "500"}, 42210000, "notional orders are not supported here"),
        ("a long id", {**GOOD, "client_order_id": "x" * 129}, 40010001, "no more than 128 characters"),
        ("a market with a limit", {**GOOD, "limit_price": "1"}, 42210000, "market orders require no stop or limit"),
        ("a limit without", {**GOOD, "type": "limit"}, 42210000, "limit orders require only limit price"),
        ("a stop without", {**GOOD, "type": "stop"}, 42210000, "stop orders require only stop price"),
        (
            "half a stop limit",
            {**GOOD, "type": "stop_limit", "stop_price": "9"},
            42210000,
            "stop limit orders require both stop and limit price",
        ),
        ("a trail without", {**GOOD, "type": "trailing_stop"}, 42210000, "one of trail_price or trail_percent"),
        (
            "a trail with both",
            {**GOOD, "type": "trailing_stop", "trail_price": "1", "trail_percent": "1"},
            42210000,
            "one of trail_price or trail_percent",
        ),
        ("a market with a trail", {**GOOD, "trail_price": "1"}, 42210000, "market orders require no trail"),
        (
            "a trail of all",
            {**GOOD, "type": "trailing_stop", "trail_percent": "100"},
            42210000,
            "trail_percent must be less than 100",
        ),
        (
            "three decimals above a dollar",
            {**GOOD, "type": "limit", "limit_price": "290.123"},
            42210000,
            "invalid limit_price 290.123. sub-penny increment does not fulfill minimum pricing criteria",
        ),
        (
            "five decimals below a dollar",
            {**GOOD, "type": "stop", "stop_price": "0.12345"},
            42210000,
            "invalid stop_price 0.12345. sub-penny",
        ),
        (
            "three decimals in a leg",
            {**LIMIT, "order_class": "oco", "take_profit": {"limit_price": "110.001"}, "stop_loss": STOP},
            42210000,
            "invalid take_profit.limit_price 110.001. sub-penny",
        ),
        (
            "an immediate stop",
            {**GOOD, "type": "stop", "stop_price": "9", "time_in_force": "ioc"},
            42210000,
            "ioc time in force is only for market and limit",
        ),
        (
            "an immediate bracket",
            {**LIMIT, "order_class": "bracket", "time_in_force": "ioc", "take_profit": TAKE, "stop_loss": STOP},
            42210000,
            "complex orders are only supported for day or gtc",
        ),
        ("a fraction for long", {**GOOD, "qty": "0.5", "time_in_force": "gtc"}, 42210000, "must be DAY orders"),
        (
            "a fraction in a group",
            {**LIMIT, "qty": "0.5", "order_class": "oco", "take_profit": TAKE, "stop_loss": STOP},
            42210000,
            "fractional orders must be simple orders",
        ),
        ("extended market", {**GOOD, "extended_hours": True}, 42210000, "extended hours order must be DAY limit"),
        ("legs without a class", {**GOOD, "stop_loss": STOP}, 42210000, "need order_class bracket, oco or oto"),
        (
            "half a bracket",
            {**GOOD, "order_class": "bracket", "take_profit": TAKE},
            42210000,
            "bracket orders require stop_loss.stop_price",
        ),
        (
            "the other half",
            {**GOOD, "order_class": "bracket", "stop_loss": STOP},
            42210000,
            "bracket orders require take_profit.limit_price",
        ),
        (
            "a market oco",
            {**GOOD, "order_class": "oco", "take_profit": TAKE, "stop_loss": STOP},
            42210000,
            "oco orders must be limit orders",
        ),
        (
            "an oto with both",
            {**GOOD, "order_class": "oto", "take_profit": TAKE, "stop_loss": STOP},
            42210000,
            "oto orders require exactly one",
        ),
        ("an oto with none", {**GOOD, "order_class": "oto"}, 42210000, "oto orders require exactly one"),
        ("a leg in words", {**LIMIT, "order_class": "oto", "stop_loss": "90"}, 40010001, "stop_loss must be an object"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(_case: str, body: dict[str, Any], code: int, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_order(body)
    assert (refused.value.status, refused.value.body["code"]) == (422, code)
    assert message in str(refused.value.body["message"])


@pytest.mark.parametrize(
    ("_case", "raw"),
    [
        ("cut short", b'{"symbol": "AAP'),
        ("a list", b"[]"),
        ("nothing", b""),
        ("NaN", b'{"qty": NaN}'),
        ("bytes", b"\xff"),
    ],
)
def test_a_body_that_is_no_json_object_is_400(_case: str, raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_json(raw)
    assert (refused.value.status, refused.value.body) == (
        400,
        {"code": 40010000, "message": "request body format is invalid"},
    )


def test_a_number_keeps_its_digits() -> None:
    body = read_json(b'{"symbol":"A","qty":0.1,"side":"buy","type":"limit","limit_price":95.10,"time_in_force":"day"}')
    order = read_order(body)
    assert (str(order.qty), str(order.limit_price)) == ("0.1", "95.1")


@pytest.mark.parametrize(
    ("_case", "body", "message"),
    [
        ("nothing to change", {}, "at least one of"),
        ("only an id", {"client_order_id": "x"}, "at least one of"),
        ("a fraction", {"qty": "1.5"}, "qty must be integer"),
        ("a wrong time in force", {"time_in_force": "soon"}, "invalid time_in_force: soon"),
        ("a sub-penny stop", {"stop_price": "95.001"}, "sub-penny"),
    ],
)
def test_an_amendment_that_makes_no_sense_is_refused(_case: str, body: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        read_amendment(body)
