"""Calling an order off. An unsent one ends here; a sent one ends only when the broker says so."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from alerts.events import Happening, write_events
from orders.brokers.protocol import Broker
from orders.endings import end_order, lock_order
from orders.errors import Refused
from orders.lanes import ring_advance_on_commit
from orders.models import CancelFor, Order
from orders.replace import ref_of
from orders.states import AT_BROKER, OrderEvent, OrderState, next_state
from positions import ledger
from positions.doorbells import ring


class NotCancellable(Exception):
    """The order has ended, or is just being sent; the message says which."""


def request_cancel(
    *, order_id: int, now: datetime, actor: str, why: str = "", cancel_for: CancelFor | None = None
) -> Order:
    """Cancel an unsent order at once, or mark a working one for cancelling at its broker.

    `cancel_for` says what follows its end; a person's word, which is none of these, stands over it.

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
        if cancel_for is None or order.cancel_asked_at is None:
            order.cancel_for = cancel_for or ""
        order.cancel_asked_at = now
        order.save(
            update_fields=[
                "state",
                "cancel_asked_at",
                "cancel_for",
                "ended_at",
                "news",
                "reserved",
                "heard_at",
                "waits",
            ]
        )
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
        broker.cancel(ref_of(order))
    except Refused:
        return
