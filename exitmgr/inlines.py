"""The tables below a position or a bracket on its page: what is armed, and the orders."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from unfold.decorators import display

from exitmgr.models import Trigger
from exitmgr.queries import best_of, level_now
from orders.models import Order
from positions.admin import RowInline, show_value


class OrderInline(RowInline):
    """The orders of a position."""

    model = Order
    fk_name = "position"
    columns = ("intent", "reason", "side", "quantity", "filled_quantity", "state", "attempt", "created_at", "ended_at")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return orders with the instrument their names show."""
        return super().get_queryset(request).select_related("instrument")


class TriggerInline(RowInline):
    """What is armed for a position or bracket, or waits for its start."""

    model = Trigger
    columns = (
        "slot", "status", "fires_at", "best_price", "direction", "offset_shown", "due_at", "fraction_pct",
        "after", "seen_price", "fired_at",
    )  # fmt: skip
    ordering = ("urgency", "rung", "pk")
    show_change_link = False
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return triggers with the best prices of their trails."""
        return super().get_queryset(request).select_related("trail__cohort")

    @display(description="fires at")
    def fires_at(self, trigger: Trigger) -> str:
        """Return the price at which it fires now, or fired."""
        return show_value(level_now(trigger), places=4)

    @display(description="best price")
    def best_price(self, trigger: Trigger) -> str:
        """Return what a trail is measured from."""
        return show_value(best_of(trigger), places=4)

    @display(description="gives back")
    def offset_shown(self, trigger: Trigger) -> str:
        """Return a trail's offset with its unit."""
        if trigger.offset_pct is not None:
            return f"{show_value(trigger.offset_pct, places=4)} %"
        return show_value(trigger.offset, places=4)
