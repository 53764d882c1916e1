"""What people say about what they did; it stands in the journal beside the deed."""

from __future__ import annotations

from datetime import datetime

from alerts.events import Happening, write_events
from orders.models import Order


def remark_on_order(order: Order, *, note: str, now: datetime, actor: str) -> None:
    """Keep a person's reason for an order they just made; an empty one is none."""
    if not note.strip():
        return
    write_events(
        [
            Happening(
                kind="order_remark",
                actor=actor,
                account_ref=order.account_id,
                position_ref=order.position_id,
                order_ref=order.pk,
                data={"note": note.strip()},
            )
        ],
        now=now,
    )
