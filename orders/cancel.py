"""Calling an order off. An unsent one ends here; a sent one ends only when the broker says so."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from alerts.events import Happening, write_events
from orders.brokers.protocol import Broker, OrderRef
from orders.endings import end_order, lock_order
from orders.errors import Refused
from orders.lanes import ring_advance_on_commit
from orders.models import Order
from orders.states import AT_BROKER, OrderEvent, OrderState, next_state
from positions import ledger
from positions.doorbells import ring


class NotCancellable(Exception):
    """The order has ended, or is just being sent; the message says which."""


def request_cancel(*, order_id: int, now: datetime, actor: str, why: str = "") -> Order:
    """Cancel an unsent order at once, or mark a working one for cancelling at its broker.

    :raises NotCancellable: it has ended or is being sent at this moment.
    """
    with transaction.atomic(durable=True):
        order = lock_order(order_id)
        state = OrderState(order.state)
        if state is OrderState.PENDING:
            order.state = next_state(state, OrderEvent.CANCELLED)
            freed = end_order(order, now=now)
            if freed is not None:
                ledger.save_positions([freed])
            ring_advance_on_commit()
        elif state in AT_BROKER:
            order.state = next_state(state, OrderEvent.CANCEL_ASKED)
            order.heard_at = None  # sync asks the broker to cancel, and keeps asking until it is told the end
            transaction.on_commit(lambda: ring("orders.sync", queue="maintenance"), robust=True)
        else:
            ended = "is being sent right now; try again in a moment" if order.is_live else f"has ended ({state})"
            raise NotCancellable(f"order {order_id} {ended}")
        order.cancel_asked_at = now
        order.save(update_fields=["state", "cancel_asked_at", "ended_at", "news", "reserved", "heard_at"])
        write_events(
            [
                Happening(
                    kind="order_cancel_requested",
                    actor=actor,
                    account_ref=order.account_id,
                    position_ref=order.position_id,
                    order_ref=order.pk,
                    data={"why": why, "from": state, "to": order.state},
                )
            ],
            now=now,
        )
        return order


def send_cancel(order: Order, *, broker: Broker) -> None:
    """Ask the broker to cancel; a refusal means it has probably ended, which the next look will tell."""
    try:
        broker.cancel(OrderRef(client_order_id=order.client_order_id, broker_order_id=order.broker_order_id))
    except Refused:
        return
