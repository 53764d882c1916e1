"""What an order becomes by a PATCH; pure."""

from __future__ import annotations

from .records import Order
from .validation import Amendment, OrderRequest, refuse


def amended(order: Order, change: Amendment) -> OrderRequest:
    """Return the order that a change would make of an order.

    :raises Refusal: the order has no such field, or may not change it any more.
    """
    trails = order.type == "trailing_stop"
    if change.trail is not None and (not trails or order.elected):
        refuse("trail can only be changed on a trailing stop order that has not triggered")
    for name in ("limit_price", "stop_price"):
        if getattr(change, name) is not None and (getattr(order, name) is None or trails):
            refuse(f"{order.type} orders have no {name} to replace")
    trail_price, trail_percent = order.trail_price, order.trail_percent
    if change.trail is not None:
        trail_price = change.trail if trail_price is not None else None
        trail_percent = change.trail if trail_percent is not None else None
    return OrderRequest(
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        time_in_force=change.time_in_force or order.time_in_force,
        order_class=order.order_class,
        qty=change.qty or order.remaining,
        client_order_id=change.client_order_id,
        limit_price=change.limit_price or order.limit_price,
        stop_price=None if trails else change.stop_price or order.stop_price,
        trail_price=trail_price,
        trail_percent=trail_percent,
        extended_hours=order.extended_hours,
    )
