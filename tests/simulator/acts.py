"""What nearly every test of the simulator does: own something, place an order, wait for its status."""

from typing import Any

from tests.simulator.box import Box, eventually
from tests.simulator.sdk import TradingClient


def hold(box: Box, symbol: str = "AAPL", qty: str = "10", price: str = "100") -> None:
    """Own a position without an order."""
    box.control("POST", "/positions", {"symbol": symbol, "qty": qty, "avg_entry_price": price})


def when(client: TradingClient, order: Any, status: str) -> Any:
    """Return an order once it has a status."""

    def read() -> Any:
        found = client.get_order_by_id(order.id)
        return found if found.status.value == status else None

    return eventually(read)


def place(box: Box, **fields: Any) -> tuple[int, Any]:
    """Post an order of ten AAPL at the market for the day, with changes; return status and body."""
    order = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}
    return box.api("POST", "/v2/orders", {**order, **fields})


def placed(box: Box, **fields: Any) -> Any:
    """Post an order that must be accepted, and return it once it is no longer pending."""
    status, order = place(box, **fields)
    assert status == 200, order
    return settled(box, order["id"])


def settled(box: Box, order_id: str) -> Any:
    """Return an order with its legs once nothing about it is pending."""

    def read() -> Any:
        order = box.api("GET", f"/v2/orders/{order_id}?nested=true")[1]
        return None if order["status"].startswith("pending") else order

    return eventually(read)


def status_of(box: Box, order_id: str) -> str:
    """Return the status of an order."""
    return str(box.api("GET", f"/v2/orders/{order_id}")[1]["status"])


def becomes(box: Box, order_id: str, status: str) -> Any:
    """Return an order once it has a status."""

    def read() -> Any:
        order = box.api("GET", f"/v2/orders/{order_id}")[1]
        return order if order["status"] == status else None

    return eventually(read)
