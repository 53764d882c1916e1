"""Our orders as the bodies that Alpaca takes; every number leaves as plain decimal text."""

from __future__ import annotations

from orders.brokers.exact import plain
from orders.brokers.protocol import OrderClass, Replacement, SubmitRequest


def order_payload(request: SubmitRequest) -> dict[str, object]:
    """Return the body of POST /v2/orders for one order or one group of orders."""
    payload: dict[str, object] = {
        "client_order_id": request.client_order_id,
        "symbol": request.symbol,
        "side": str(request.side),
        "qty": plain(request.quantity),
        "type": str(request.order_type),
        "time_in_force": str(request.time_in_force),
    }
    for name in ("limit_price", "stop_price", "trail_price", "trail_percent"):
        number = getattr(request, name)
        if number is not None:
            payload[name] = plain(number)
    if request.extended_hours:
        payload["extended_hours"] = True
    if request.order_class is not OrderClass.SIMPLE:
        payload |= _group_fields(request, target=payload)
    return payload


def _group_fields(request: SubmitRequest, *, target: dict[str, object]) -> dict[str, object]:
    fields: dict[str, object] = {"order_class": str(request.order_class)}
    limit = request.target_limit
    if request.order_class is OrderClass.OCO:
        # the parent of an OCO is its target, whose price Alpaca takes from the leg
        limit = limit if limit is not None else request.limit_price
        target.pop("limit_price", None)
    if limit is not None:
        fields["take_profit"] = {"limit_price": plain(limit)}
    if request.stop_leg_stop is not None:
        stop = {"stop_price": plain(request.stop_leg_stop)}
        if request.stop_leg_limit is not None:
            stop["limit_price"] = plain(request.stop_leg_limit)
        fields["stop_loss"] = stop
    return fields


def replacement_payload(change: Replacement) -> dict[str, object]:
    """Return the body of PATCH /v2/orders/{id}; what is not to change is left out."""
    payload: dict[str, object] = {"client_order_id": change.client_order_id}
    for field, number in (
        ("qty", change.quantity),
        ("limit_price", change.limit_price),
        ("stop_price", change.stop_price),
    ):
        if number is not None:
            payload[field] = plain(number)
    return payload
