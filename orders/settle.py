"""A person says what became of an order whose outcome nobody could prove. Nothing is sent from here."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.notices import resolve_alerts
from orders.endings import end_order, lock_order
from orders.lanes import ring_advance_on_commit
from orders.models import Order
from orders.outcomes import outcome_unknown_key
from orders.states import OrderEvent, OrderState, next_state
from positions import ledger

_WRITTEN = (
    "state", "next_attempt_at", "lease_until", "heard_at", "accepted_at", "broker_order_id", "last_error", "ended_at",
    "news", "reserved",
)  # fmt: skip


class NotInQuestion(Exception):
    """What became of the order is known already, or being asked this moment; the message says which."""


def settle_order(*, order_id: int, arrived: bool, now: datetime, actor: str, broker_order_id: str = "") -> Order:
    """Note whether an order of unknown outcome reached its broker, and return it.

    One that arrived is working from now on, and its broker is asked about it, by `broker_order_id` where that is given.
    One that did not ends and frees what it held; a stop is then sent again under a new id.

    :raises Order.DoesNotExist: there is no such order.
    :raises NotInQuestion: its outcome is not unknown.
    """
    with transaction.atomic(durable=True):
        order = lock_order(order_id)
        if order.state != OrderState.UNKNOWN:
            raise NotInQuestion(f"order {order_id} is {order.state}; only one whose outcome is unknown can be settled")
        event = OrderEvent.ACCEPTED if arrived else OrderEvent.CANCELLED
        order.state = next_state(OrderState.UNKNOWN, event)
        order.next_attempt_at = order.lease_until = order.heard_at = None
        if arrived:
            order.accepted_at = order.accepted_at or now
            order.broker_order_id = broker_order_id or order.broker_order_id
        else:
            order.last_error = f"it never arrived, says {actor}"
            freed = end_order(order, now=now)
            if freed is not None:
                ledger.save_positions([freed])
            ring_advance_on_commit()
        order.save(update_fields=_WRITTEN)
        resolve_alerts(dedupe_key=outcome_unknown_key(order_id), now=now)
        write_events(
            [
                Happening(
                    kind="order_settled",
                    actor=actor,
                    account_ref=order.account_id,
                    position_ref=order.position_id,
                    order_ref=order.pk,
                    data={"arrived": arrived, "broker_order_id": order.broker_order_id},
                )
            ],
            now=now,
        )
        return order
