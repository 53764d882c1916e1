"""What people and programs read about orders, with what belongs to each in a bounded number of queries."""

from __future__ import annotations

from django.db.models import Prefetch, QuerySet

from orders.models import Fill, Order
from orders.states import LIVE


def listed_orders() -> QuerySet[Order]:
    """Return orders with their instrument and account, whose credentials nobody needs here."""
    return Order.objects.select_related("account", "instrument").defer("account__credentials")


def orders_in_detail() -> QuerySet[Order]:
    """Return orders with their account, instrument and fills."""
    return listed_orders().prefetch_related(Prefetch("fills", queryset=Fill.objects.order_by("filled_at", "pk")))


def live_orders() -> QuerySet[Order]:
    """Return the orders that may still trade, the most urgent first."""
    return listed_orders().filter(state__in=LIVE).order_by("urgency", "pk")
