"""Taking one order under lock, and ending it: whoever ends an order frees what it had reserved, in one way."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from orders.models import Intent, Order
from positions import ledger
from positions.locks import lock_positions
from positions.models import Position


def lock_order(order_id: int) -> Order:
    """Lock an order's position, then the order, until the transaction ends; its `position` is the locked row.

    :raises Order.DoesNotExist: there is no such order.
    """
    position_id = Order.objects.values_list("position_id", flat=True).get(pk=order_id)
    positions = lock_positions([position_id] if position_id else [])
    order = Order.objects.select_for_update(of=("self",)).select_related("instrument").get(pk=order_id)
    if order.position_id in positions:
        order.position = positions[order.position_id]
    return order


def end_order(order: Order, *, now: datetime) -> Position | None:
    """Note the end of a locked order as news and free what it had still reserved; return the position this changed.

    All in memory: the state is the caller's to move, and order and position are the caller's to save.
    """
    order.ended_at = now
    order.news = True
    order.waits = False
    released, order.reserved = order.reserved, Decimal(0)
    if order.intent != Intent.EXIT or order.position is None:
        return None
    ledger.release(order.position, quantity=released)
    return order.position
