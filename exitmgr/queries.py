"""What people and programs read about positions together with their plans, orders and history."""

from __future__ import annotations

from typing import Final

from django.db.models import OuterRef, Prefetch, QuerySet, Subquery

from alerts.models import Event
from alerts.queries import events_about
from exitmgr.models import Bracket, Trigger
from orders.models import Order
from orders.queries import live_orders
from positions.fields import NumberField
from positions.models import Position
from positions.queries import with_worth

#: The attribute under which a position's orders that may still trade are found.
LIVE_ORDERS: Final = "orders_alive"


def listed_positions() -> QuerySet[Position]:
    """Return positions with their worth and the brackets they had, the latest first."""
    brackets = Prefetch("brackets", queryset=Bracket.objects.order_by("-pk"))
    return with_worth(_positions()).prefetch_related(brackets)


def positions_in_detail() -> QuerySet[Position]:
    """Return positions with their worth, brackets, triggers and live orders."""
    triggers = Prefetch("triggers", queryset=Trigger.objects.order_by("urgency", "rung", "pk"))
    return with_worth(_positions()).prefetch_related(
        Prefetch("brackets", queryset=Bracket.objects.order_by("-pk").prefetch_related(triggers)),
        Prefetch("orders", queryset=live_orders(), to_attr=LIVE_ORDERS),
    )


def positions_on_the_desk() -> QuerySet[Position]:
    """Return positions with their worth and the stop of their latest bracket (`stop_price`), for tables."""
    latest = Bracket.objects.filter(position=OuterRef("pk")).order_by("-pk")
    return with_worth(_positions()).annotate(
        stop_price=Subquery(latest.values("stop_price")[:1], output_field=NumberField()),
        target_prices=Subquery(latest.values("target_prices")[:1]),
    )


def brackets_in_detail() -> QuerySet[Bracket]:
    """Return brackets with their triggers and what they protect."""
    triggers = Prefetch("triggers", queryset=Trigger.objects.order_by("urgency", "rung", "pk"))
    return Bracket.objects.select_related("position__instrument", "entry_order__instrument").prefetch_related(triggers)


def timeline(position_id: int) -> QuerySet[Event]:
    """Return everything that happened to a position, from its entry order on."""
    order_ids = Order.objects.filter(position_id=position_id).values_list("pk", flat=True)
    return events_about(position_id=position_id, order_ids=list(order_ids))


def _positions() -> QuerySet[Position]:
    """Return positions with their instrument and account, whose credentials nobody needs here."""
    return Position.objects.select_related("account", "instrument").defer("account__credentials")
