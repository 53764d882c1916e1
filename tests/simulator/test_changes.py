"""Cancels and replacements: what can be changed, when, and what the chain of orders looks like afterwards."""

from typing import Any

import pytest

from tests.simulator.acts import becomes, hold, placed, settled, status_of
from tests.simulator.box import Box
from tests.simulator.sdk import APIError, LimitOrderRequest, OrderSide, ReplaceOrderRequest, TimeInForce, TradingClient

STOP = {"side": "sell", "type": "stop", "stop_price": "95", "time_in_force": "gtc"}


def patch(box: Box, order_id: str, **changes: Any) -> tuple[int, Any]:
    return box.api("PATCH", f"/v2/orders/{order_id}", changes)


def test_a_replaced_order_is_a_new_order_and_the_chain_can_be_walked(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100")
    first = placed(box, client_order_id="stop-1", **STOP)
    second = client.replace_order_by_id(first["id"], ReplaceOrderRequest(stop_price=96.5, client_order_id="stop-2"))
    assert (str(second.replaces), second.stop_price, second.client_order_id) == (first["id"], "96.5", "stop-2")
    old = becomes(box, first["id"], "replaced")
    assert (old["replaced_by"], old["replaced_at"] is not None) == (str(second.id), True)
    assert settled(box, str(second.id))["status"] == "new"
    assert box.api("GET", "/v2/positions/AAPL")[1]["qty_available"] == "0"
    box.quote("AAPL", "96.5")
    assert becomes(box, str(second.id), "filled")["filled_avg_price"] == "96.5"
    assert box.api("GET", "/v2/positions")[1] == []


def test_a_replacement_without_an_id_gets_one(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    first = placed(box, client_order_id="stop-1", **STOP)
    status, second = patch(box, first["id"], qty="4")
    assert (status, second["qty"]) == (200, "4")
    assert second["client_order_id"] not in ("", "stop-1")
    becomes(box, first["id"], "replaced")
    settled(box, second["id"])
    assert box.api("GET", "/v2/positions/AAPL")[1]["qty_available"] == "6"


def test_what_is_left_of_a_partly_filled_order_goes_to_its_successor(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    first = placed(box, side="sell", type="limit", limit_price="103", time_in_force="gtc")
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.3", "count": 1})
    box.quote("AAPL", "103")
    becomes(box, first["id"], "partially_filled")
    _, second = patch(box, first["id"], limit_price="104")
    assert second["qty"] == "7"
    becomes(box, first["id"], "replaced")
    box.quote("AAPL", "104")
    assert becomes(box, second["id"], "filled")["filled_qty"] == "7"
    assert box.api("GET", "/v2/positions")[1] == []


@pytest.mark.parametrize(
    ("_case", "leg", "changes", "quote"),
    [
        ("the held stop of an oco", "stop", {"stop_price": "99"}, "98.5"),
        ("the target of an oco", "limit", {"limit_price": "101"}, "101.5"),
    ],
)
def test_a_leg_is_replaced_inside_its_group(
    _case: str, leg: str, changes: dict[str, str], quote: str, box: Box
) -> None:
    hold(box)
    box.quote("AAPL", "100")
    parent = placed(
        box,
        side="sell",
        type="limit",
        time_in_force="gtc",
        order_class="oco",
        take_profit={"limit_price": "103"},
        stop_loss={"stop_price": "95"},
    )
    ids = {"limit": parent["id"], "stop": parent["legs"][0]["id"]}
    status, successor = patch(box, ids[leg], **changes)
    assert status == 200
    becomes(box, ids[leg], "replaced")
    assert settled(box, successor["id"])["status"] == ("held" if leg == "stop" else "new")
    box.quote("AAPL", quote)
    assert becomes(box, successor["id"], "filled")["filled_avg_price"] == quote
    becomes(box, ids["stop" if leg == "limit" else "limit"], "canceled")
    assert box.api("GET", "/v2/positions")[1] == []


def test_a_trail_is_replaced_and_keeps_its_high_water_mark(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    first = placed(box, side="sell", type="trailing_stop", trail_percent="5", time_in_force="gtc")
    box.quote("AAPL", "110")
    _, second = patch(box, first["id"], trail="1")
    becomes(box, first["id"], "replaced")
    second = settled(box, second["id"])
    assert (second["hwm"], second["stop_price"], second["trail_percent"]) == ("110", "108.9", "1")


@pytest.mark.parametrize(
    ("_case", "changes", "status", "message"),
    [
        ("an unknown field only", {"note": "x"}, 422, "at least one of"),
        ("a limit on a stop", {"limit_price": "90"}, 422, "stop orders have no limit_price to replace"),
        ("a trail on a stop", {"trail": "2"}, 422, "trail can only be changed on a trailing stop"),
        ("a fraction", {"qty": "1.5"}, 422, "qty must be integer"),
        ("too much", {"qty": "11"}, 403, "insufficient qty available for order (requested: 11, available: 0)"),
        ("a stop above the price", {"stop_price": "100"}, 422, "stop_price must be <= base_price - 0.01"),
        ("an id in use", {"qty": "5", "client_order_id": "stop-1"}, 422, "client_order_id must be unique"),
        ("a fok stop", {"time_in_force": "fok"}, 422, "fok time in force is only for market and limit"),
    ],
)
def test_a_replacement_that_makes_no_sense_leaves_the_order_as_it_is(
    _case: str, changes: dict[str, str], status: int, message: str, box: Box
) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = placed(box, client_order_id="stop-1", **STOP)
    answer = patch(box, order["id"], **changes)
    assert answer[0] == status
    assert message in answer[1]["message"]
    assert settled(box, order["id"]) == order


def test_an_accepted_order_cannot_be_replaced_before_the_market_opens(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100")
    box.control("POST", "/clock", {"is_open": False})
    order = placed(box, **STOP)
    with pytest.raises(APIError) as refused:
        client.replace_order_by_id(order["id"], ReplaceOrderRequest(stop_price=96))
    assert (refused.value.status_code, refused.value.message) == (422, "cannot replace order in accepted status")


def test_a_cancel_is_pending_until_it_is_done_and_frees_what_was_held(box: Box, client: TradingClient) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = placed(box, **STOP)
    client.cancel_order_by_id(order["id"])
    assert becomes(box, order["id"], "canceled")["canceled_at"] is not None
    assert client.get_open_position("AAPL").qty_available == "10"
    with pytest.raises(APIError) as refused:
        client.cancel_order_by_id(order["id"])
    assert (refused.value.status_code, refused.value.code) == (422, 42210000)
    assert refused.value.message == 'order is already in "canceled" state'


def test_all_orders_are_canceled_at_once(box: Box, client: TradingClient) -> None:
    box.quote("AAPL", "100")
    orders = [
        client.submit_order(
            LimitOrderRequest(
                symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=price
            )
        )
        for price in (50, 60, 70)
    ]
    settled(box, str(orders[-1].id))
    answers = client.cancel_orders()
    assert [(answer.id, answer.status) for answer in answers] == [(order.id, 200) for order in orders]
    for order in orders:
        becomes(box, str(order.id), "canceled")
    assert client.cancel_orders() == []
    assert box.api("DELETE", "/v2/orders") == (207, [])


def test_a_stuck_cancel_stays_pending_and_still_holds(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = placed(box, **STOP)
    box.control("POST", "/faults", {"kind": "stuck_pending_cancel", "match": {"symbol": "AAPL"}, "seconds": 0.3})
    assert box.api("DELETE", f"/v2/orders/{order['id']}") == (204, None)
    assert status_of(box, order["id"]) == "pending_cancel"
    assert box.api("GET", "/v2/positions/AAPL")[1]["qty_available"] == "0"
    status, body = box.api("DELETE", f"/v2/orders/{order['id']}")
    assert (status, body["message"]) == (422, "order pending cancel")
    assert patch(box, order["id"], stop_price="96")[1]["message"] == "cannot replace order in pending_cancel status"
    becomes(box, order["id"], "canceled")
