"""What is wrong with an order before it is sent: a crypto exchange would round it, or take it for something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orders.brokers.exact import plain
from orders.brokers.protocol import Capabilities, InstrumentFacts, OrderClass, OrderSide, OrderType, SubmitRequest


def objection(
    request: SubmitRequest, *, facts: InstrumentFacts, capabilities: Capabilities, features: Mapping[str, Any]
) -> str:
    """Return why a venue would not carry out an order to the letter, or nothing.

    `features` is what ccxt says of the venue's create_order. ccxt cuts and rounds to the venue's increments by itself,
    so that what is off them would become another order.
    """
    if request.order_class is not OrderClass.SIMPLE or request.order_type not in capabilities.order_types:
        return f"there are no {request.order_class} {request.order_type} orders"
    if request.limit_price is not None and request.time_in_force not in capabilities.times_in_force:
        return f"limit orders cannot be {request.time_in_force}; use gtc"
    is_market_buy = request.order_type is OrderType.MARKET and request.side is OrderSide.BUY
    if is_market_buy and features.get("marketBuyRequiresPrice"):
        return "market buys are by cost, not by quantity; use a limit order"
    for name, number, step in (
        ("quantity", request.quantity, facts.lot),
        ("limit price", request.limit_price, facts.tick),
        ("stop price", request.stop_price, facts.tick),
    ):
        if number is not None and (number <= 0 or number % step):
            return f"{name} {plain(number)} is no multiple of {plain(step)}"
    return ""
