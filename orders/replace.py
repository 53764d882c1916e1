"""Changing an order that works at its broker. The wish is a row before it is sent; only a report of the old order
proves it, and then a successor takes over what the old one held.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from alerts.events import Happening, write_events
from orders.brokers.protocol import Broker, OrderRef, OrderReport, Replacement, ReportedState
from orders.client_ids import client_order_id
from orders.endings import lock_order
from orders.errors import BrokerError, NotSent, OutcomeUnknown, Refused
from orders.models import Order
from orders.states import OrderState
from positions import ledger
from positions.doorbells import ring

log = logging.getLogger(__name__)

_CHANGEABLE = (OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED)
#: What a successor has in common with the order it replaces.
_COMMON = (
    "account_id", "instrument_id", "position_id", "intent", "reason", "strategy", "urgency", "lane", "side",
    "order_type", "time_in_force", "limit_price", "stop_price", "trail_price", "trail_percent", "expected_price",
    "trigger_price", "max_slippage_bps", "priced_from", "leg", "attempt", "order_class", "group", "resting",
    "work_seconds", "retry_of_id", "retry_attempts", "retry_delay_seconds", "priced_at", "submitted_at",
    "cancel_asked_at", "cancel_for",
)  # fmt: skip
_UNNAMED = "broker:"


class NotReplaceable(Exception):
    """The order cannot be changed now; the message says why."""


def request_replace(
    *,
    order_id: int,
    now: datetime,
    actor: str,
    quantity: Decimal | None = None,
    limit_price: Decimal | None = None,
    stop_price: Decimal | None = None,
) -> Order:
    """Wish for a change of a working order, and return it; what is None stays as it is.

    `quantity` is what the successor may fill, never more than the old one has left. The old order works on until its
    broker says that it was replaced.

    :raises Order.DoesNotExist: there is no such order.
    :raises NotReplaceable: it does not work at its broker, or a change of it is under way, or it would grow.
    """
    with transaction.atomic(durable=True):
        order = lock_order(order_id)
        if order.state not in _CHANGEABLE:
            raise NotReplaceable(f"order {order_id} is {order.state}; only one that works at its broker can be changed")
        if order.replacing:
            raise NotReplaceable(f"a change of order {order_id} is under way since {order.replacing['asked_at']}")
        if quantity is not None and not 0 < quantity <= order.quantity - order.filled_quantity:
            left = order.quantity - order.filled_quantity
            raise NotReplaceable(f"quantity must be above 0 and at most the {left:f} left; got {quantity:f}")
        order.replacing = {
            "client_order_id": client_order_id(
                account_id=order.account_id, subject=f"order {order.pk}", leg=f"replace {now.isoformat()}", attempt=1
            ),
            "quantity": _text(quantity),
            "limit_price": _text(limit_price),
            "stop_price": _text(stop_price),
            "asked_at": now.isoformat(),
        }
        order.heard_at = None  # sync sends it
        order.save(update_fields=["replacing", "heard_at"])
        write_events([_told("order_replace_requested", order, actor=actor)], now=now)
        transaction.on_commit(lambda: ring("orders.sync", queue="maintenance"), robust=True)
        return order


def send_replace(order: Order, *, broker: Broker, now: datetime) -> BrokerError | None:
    """Send the change an order waits for, unless it was sent already; return what came back instead of an answer.

    :raises NotSent: nothing left us; the next look sends it.
    """
    if not order.replacing or "sent_at" in order.replacing or order.state not in _CHANGEABLE:
        return None
    wanted = order.replacing
    change = Replacement(
        client_order_id=wanted["client_order_id"],
        quantity=_number(wanted["quantity"]),
        limit_price=_number(wanted["limit_price"]),
        stop_price=_number(wanted["stop_price"]),
    )
    error: BrokerError | None = None
    try:
        broker.replace(ref_of(order), change)
    except NotSent:
        raise
    except (Refused, OutcomeUnknown) as came_back:
        error = came_back
    order.replacing = {**wanted, "sent_at": now.isoformat()}
    Order.objects.filter(pk=order.pk, replacing=wanted).update(replacing=order.replacing)
    return error


def drop_if_not_replaced(
    order: Order, report: OrderReport, error: BrokerError | None, *, settle: timedelta, now: datetime
) -> bool:
    """Give a change up that the broker refused, or has not made in time; return whether it was given up."""
    if "sent_at" not in order.replacing or report.state is ReportedState.REPLACED:
        return False
    in_time = now < datetime.fromisoformat(order.replacing["sent_at"]) + settle
    if not isinstance(error, Refused) and in_time:
        return False
    if not Order.objects.filter(pk=order.pk, replacing=order.replacing).update(replacing={}):
        return False
    why = str(error) if error is not None else "the broker did not make it"
    log.warning("order_not_replaced order_id=%s why=%s", order.pk, why)
    write_events([_told("order_not_replaced", order, why=why)], now=now)
    return True


def successor_of(order: Order, report: OrderReport, *, now: datetime) -> Order | None:
    """Return the order, not yet saved, that took over from a locked one its broker has replaced; None if it left none.

    It takes what the old one has left and its position still holds. All in memory: the position is the caller's.
    """
    wanted: dict[str, Any] = order.replacing
    quantity = _number(wanted.get("quantity")) or order.quantity - order.filled_quantity
    if order.position is not None and order.intent == "exit":
        quantity = min(quantity, order.position.available)
    if quantity <= 0:
        return None
    asked = order.cancel_asked_at is not None
    successor = Order(
        **{name: getattr(order, name) for name in _COMMON},
        quantity=quantity,
        replaces=order,
        client_order_id=wanted.get("client_order_id") or f"{_UNNAMED}{report.replaced_by}"[:64],
        broker_order_id=report.replaced_by,
        state=OrderState.CANCEL_REQUESTED if asked else OrderState.SUBMITTED,
        created_at=now,
        accepted_at=now,
        epoch=1,
    )
    successor.limit_price = _number(wanted.get("limit_price")) or order.limit_price
    successor.stop_price = _number(wanted.get("stop_price")) or order.stop_price
    if order.resting and _number(wanted.get("stop_price")):
        successor.trigger_price = successor.expected_price = successor.stop_price
    if order.position is not None:
        successor.position = order.position
        if order.intent == "exit":
            hold = ledger.bind if order.resting else ledger.reserve
            hold(order.position, quantity=quantity)
            successor.reserved = quantity
    return successor


def ref_of(order: Order) -> OrderRef:
    """Return how an order is named to its broker; what others put in place of ours has only the broker's id."""
    named = "" if order.client_order_id.startswith(_UNNAMED) else order.client_order_id
    return OrderRef(client_order_id=named, broker_order_id=order.broker_order_id, symbol=order.instrument.symbol)


def _told(kind: str, order: Order, *, actor: str = "system", **data: object) -> Happening:
    return Happening(
        kind=kind,
        actor=actor,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        data={**order.replacing, **data},
    )


def _text(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
