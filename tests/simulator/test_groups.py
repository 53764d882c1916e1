"""Brackets, OCO and OTO: legs that wait, take each other's place, and end together."""

from typing import Any

import pytest

from tests.simulator.acts import becomes, hold, place, placed, settled, status_of
from tests.simulator.box import Box, eventually
from tests.simulator.sdk import (
    GetOrderByIdRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    OrderClass,
    OrderSide,
    StopLossRequest,
    TakeProfitRequest,
    TimeInForce,
    TradingClient,
)

BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": "103"}, "stop_loss": {"stop_price": "98"}}
OCO = {
    "order_class": "oco",
    "side": "sell",
    "type": "limit",
    "time_in_force": "gtc",
    "take_profit": {"limit_price": "103"},
    "stop_loss": {"stop_price": "98"},
}


def legs(order: Any) -> dict[str, Any]:
    """Return the legs of an order by type."""
    return {leg["type"]: leg for leg in order["legs"]}


def open_bracket(box: Box, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """Enter by a bracket and return the filled entry and its live legs."""
    box.quote("AAPL", "100")
    entry = placed(box, **{**BRACKET, **fields})
    entry = eventually(lambda: (found := settled(box, entry["id"]))["status"] == "filled" and found)
    return entry, legs(entry)


def held(box: Box, symbol: str = "AAPL") -> tuple[str, str]:
    position = box.api("GET", f"/v2/positions/{symbol}")[1]
    return position["qty"], position["qty_available"]


def test_a_bracket_waits_for_its_entry_then_one_leg_works_and_one_is_held(box: Box) -> None:
    box.quote("AAPL", "100.02")
    entry = placed(box, type="limit", limit_price="100", **BRACKET)
    waiting = legs(entry)
    assert (entry["status"], waiting["limit"]["status"], waiting["stop"]["status"]) == ("new", "held", "held")
    box.quote("AAPL", "100")
    entry = settled(box, entry["id"])
    live = legs(entry)
    assert (entry["status"], live["limit"]["status"], live["stop"]["status"]) == ("filled", "new", "held")
    assert [leg["side"] for leg in entry["legs"]] == ["sell", "sell"]
    assert held(box) == ("10", "0")


@pytest.mark.parametrize(
    ("_case", "quote", "filled", "canceled"),
    [("the target", "103.5", "limit", "stop"), ("the stop", "97", "stop", "limit")],
)
def test_one_leg_of_a_bracket_fills_and_the_other_is_canceled(
    _case: str, quote: str, filled: str, canceled: str, box: Box
) -> None:
    _, live = open_bracket(box)
    box.quote("AAPL", quote)
    assert becomes(box, live[filled]["id"], "filled")["filled_avg_price"] == quote
    becomes(box, live[canceled]["id"], "canceled")
    assert box.api("GET", "/v2/positions")[1] == []
    assert len(box.control("GET", "/ledger")["executions"]) == 2


def test_a_stop_limit_leg_may_be_gapped_through(box: Box) -> None:
    _, live = open_bracket(box, stop_loss={"stop_price": "98", "limit_price": "97.5"})
    box.quote("AAPL", "90")
    elected = becomes(box, live["stop_limit"]["id"], "new")
    assert elected["filled_qty"] == "0"
    box.quote("AAPL", "97.5")
    becomes(box, live["stop_limit"]["id"], "filled")
    becomes(box, live["limit"]["id"], "canceled")


def test_to_cancel_the_entry_cancels_the_legs(box: Box) -> None:
    box.quote("AAPL", "100.02")
    entry = placed(box, type="limit", limit_price="100", **BRACKET)
    assert box.api("DELETE", f"/v2/orders/{entry['id']}") == (204, None)
    becomes(box, entry["id"], "canceled")
    assert {status_of(box, leg["id"]) for leg in entry["legs"]} == {"canceled"}


def test_to_cancel_a_leg_cancels_its_sibling(box: Box) -> None:
    _, live = open_bracket(box)
    assert box.api("DELETE", f"/v2/orders/{live['stop']['id']}")[0] == 204
    becomes(box, live["limit"]["id"], "canceled")
    assert status_of(box, live["stop"]["id"]) == "canceled"
    assert held(box) == ("10", "10")


def test_a_partial_target_shrinks_the_stop(box: Box) -> None:
    _, live = open_bracket(box)
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.4", "count": 1})
    box.quote("AAPL", "103.5")
    part = becomes(box, live["limit"]["id"], "partially_filled")
    assert (part["filled_qty"], part["qty"]) == ("4", "10")
    assert box.api("GET", f"/v2/orders/{live['stop']['id']}")[1]["qty"] == "6"
    assert held(box) == ("6", "0")
    box.quote("AAPL", "97")
    assert becomes(box, live["stop"]["id"], "filled")["filled_qty"] == "6"
    becomes(box, live["limit"]["id"], "canceled")
    assert box.api("GET", "/v2/positions")[1] == []


def test_a_partial_entry_arms_no_leg(box: Box) -> None:
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.5", "count": 1})
    box.quote("AAPL", "100")
    entry = placed(box, **BRACKET)
    entry = becomes(box, entry["id"], "partially_filled")
    box.control("POST", "/clock", {"is_open": False})
    entry = settled(box, entry["id"])
    assert (entry["status"], {leg["status"] for leg in entry["legs"]}) == ("expired", {"canceled"})
    assert held(box) == ("5", "5")


def test_an_oco_holds_its_quantity_once_and_rolls_up_below_the_target(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = client.submit_order(
        LimitOrderRequest(
            symbol="AAPL",
            qty=10,
            side=OrderSide.SELL,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.OCO,
            take_profit=TakeProfitRequest(limit_price=103),
            stop_loss=StopLossRequest(stop_price=98),
        )
    )
    assert (order.order_class, order.limit_price, len(order.legs)) == (OrderClass.OCO, "103", 1)
    assert (order.legs[0].stop_price, order.legs[0].status.value) == ("98", "held")
    settled(box, str(order.id))
    assert held(box) == ("10", "0")
    nested = client.get_order_by_id(order.id, GetOrderByIdRequest(nested=True))
    assert nested.legs[0].id == order.legs[0].id
    box.quote("AAPL", "97.5")
    assert becomes(box, str(order.legs[0].id), "filled")["filled_avg_price"] == "97.5"
    becomes(box, str(order.id), "canceled")


def test_lists_roll_legs_up_or_show_them_flat(box: Box) -> None:
    _, live = open_bracket(box)
    flat = box.api("GET", "/v2/orders?status=all")[1]
    nested = box.api("GET", "/v2/orders?status=all&nested=true")[1]
    assert (len(flat), [order["legs"] for order in flat]) == (3, [None] * 3)
    assert [len(order["legs"]) for order in nested] == [2]
    alone = box.api("GET", "/v2/orders?status=open&nested=true")[1]
    assert {order["id"] for order in alone} == {live["limit"]["id"], live["stop"]["id"]}


def test_an_oto_adds_one_leg(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100")
    order = client.submit_order(
        MarketOrderRequest(
            symbol="AAPL",
            qty=10,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.OTO,
            stop_loss=StopLossRequest(stop_price=98),
        )
    )
    (stop,) = order.legs
    becomes(box, str(stop.id), "new")
    assert held(box) == ("10", "0")
    box.quote("AAPL", "97.9")
    assert becomes(box, str(stop.id), "filled")["filled_avg_price"] == "97.9"


def test_a_short_bracket_mirrors_a_long_one(box: Box) -> None:
    _, live = open_bracket(box, side="sell", take_profit={"limit_price": "97"}, stop_loss={"stop_price": "102"})
    assert held(box) == ("-10", "0")
    box.quote("AAPL", "102.5")
    assert becomes(box, live["stop"]["id"], "filled")["filled_avg_price"] == "102.5"
    becomes(box, live["limit"]["id"], "canceled")
    assert box.api("GET", "/v2/positions")[1] == []


@pytest.mark.parametrize(
    ("_case", "held_qty", "fields", "status", "message"),
    [
        ("a bracket on a position", "5", BRACKET, 422, "bracket orders must be entry orders"),
        ("an oco from flat", "0", OCO, 422, "oco orders must be exit orders"),
        ("an oco the wrong way", "-10", OCO, 422, "oco orders must be exit orders"),
        ("an oco of too much", "5", OCO, 403, "insufficient qty available for order (requested: 10, available: 5)"),
        (
            "a target below the price",
            "0",
            {**BRACKET, "take_profit": {"limit_price": "100"}},
            422,
            "take_profit.limit_price must be >= base_price + 0.01",
        ),
        (
            "a stop above the price",
            "0",
            {**BRACKET, "stop_loss": {"stop_price": "100"}},
            422,
            "stop_loss.stop_price must be <= base_price - 0.01",
        ),
        (
            "a stop above the entry limit",
            "0",
            {**BRACKET, "type": "limit", "limit_price": "97"},
            422,
            "stop_loss.stop_price must be <= base_price - 0.01",
        ),
        (
            "an oco with its stop above its target",
            "10",
            {**OCO, "stop_loss": {"stop_price": "104"}},
            422,
            "stop_loss.stop_price must be <= base_price - 0.01",
        ),
    ],
)
def test_a_group_that_makes_no_sense_is_refused_and_nothing_is_booked(
    _case: str, held_qty: str, fields: dict[str, Any], status: int, message: str, box: Box
) -> None:
    box.quote("AAPL", "100")
    hold(box, qty=held_qty)
    answer = place(box, **fields)
    assert (answer[0], answer[1]["message"]) == (status, message)
    assert box.control("GET", "/ledger")["orders"] == []
