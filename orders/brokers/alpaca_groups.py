"""Orders that Alpaca keeps together: whether the stop that was asked for is truly among the legs that are there.

A group of which the stop is missing protects nothing, whatever the answer's status says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orders.brokers.alpaca_payloads import ENDED, STATUSES, order_report
from orders.brokers.exact import to_decimal
from orders.brokers.protocol import OrderClass, OrderReport, OrderSide, SubmitRequest

Json = Mapping[str, Any]

STOP_TYPES: Final = frozenset({"stop", "stop_limit"})
_GROUPS: Final = frozenset({OrderClass.BRACKET, OrderClass.OCO, OrderClass.OTO})


def may_have_legs(order: Json) -> bool:
    """Return whether an order may be the parent of others. Legs carry the class of their group as well."""
    order_class = str(order.get("order_class") or "")
    return order_class in _GROUPS and not (order_class == OrderClass.OCO and order.get("type") in STOP_TYPES)


def missing_stop(order: Json, *, request: SubmitRequest) -> str:
    """Return what is wrong with the stop of a group just placed, or nothing where it is as it was asked for."""
    if request.stop_leg_stop is None or STATUSES.get(str(order["status"])) in ENDED:
        return ""
    side = _exit_side(request)
    stops = [leg for leg in order.get("legs") or () if _is_live_stop(leg)]
    if not stops:
        return "the group has no stop"
    for leg in stops:
        if (
            leg["side"] == side
            and to_decimal(leg["qty"]) == request.quantity
            and to_decimal(leg["stop_price"]) == request.stop_leg_stop
        ):
            return ""
    leg = stops[0]
    return f"the stop of the group is to {leg['side']} {leg['qty']} at {leg['stop_price']}"


def group_report(order: Json) -> OrderReport:
    """Return the report of an order with its legs; an OCO that works without a live stop says so as its reason.

    :raises Unreadable: a field we need is missing or malformed.
    """
    report = order_report(order)
    if (
        order.get("order_class") == OrderClass.OCO
        and may_have_legs(order)
        and report.state not in ENDED
        and not any(_is_live_stop(leg) for leg in order.get("legs") or ())
    ):
        return replace(report, reason="its group has no stop")
    return report


def _exit_side(request: SubmitRequest) -> OrderSide:
    if request.order_class is OrderClass.OCO:
        return request.side
    return OrderSide.SELL if request.side is OrderSide.BUY else OrderSide.BUY


def _is_live_stop(leg: Json) -> bool:
    return leg.get("type") in STOP_TYPES and STATUSES.get(str(leg["status"])) not in ENDED
