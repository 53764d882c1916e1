"""The admin site's view of orders and fills; the room above adds the verbs and registers the orders."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from orders.models import Fill, Order
from orders.queries import listed_orders
from positions.admin import RowAdmin, RowInline, show_value

STATE_LABELS = {
    "pending": "warning", "submitting": "info", "unknown": "danger", "submitted": "info", "partially_filled": "info",
    "cancel_requested": "warning", "filled": "success", "rejected": "danger",
}  # fmt: skip
SIDE_LABELS = {"buy": "info", "sell": "primary"}


class FillInline(RowInline):
    """What was executed."""

    model = Fill
    columns = ("execution_id", "quantity", "price", "fee", "filled_at", "booked_at")


class OrderAdmin(RowAdmin):
    """Orders."""

    list_display = (
        "id", "instrument", "side_label", "intent", "reason", "quantity_plain", "filled_quantity_plain",
        "fill_price_plain", "state_label", "attempt", "account", "created_at_plain", "ended_at_plain",
    )  # fmt: skip
    list_filter = ("state", "intent", "lane", "reason", "account")
    search_fields = ("=id", "instrument__symbol", "client_order_id", "broker_order_id", "=position__id")
    ordering: ClassVar[Any] = ("-pk",)
    figures: ClassVar = {"average_fill_price": 8}
    inlines = (FillInline,)
    fieldsets: ClassVar[Any] = (
        (
            None,
            {
                "fields": (
                    ("id", "state_label", "account"),
                    ("instrument", "side_label", "intent"),
                    ("reason", "lane", "attempt"),
                    ("quantity_plain", "filled_quantity_plain", "average_fill_price_plain"),
                    ("order_type", "time_in_force", "limit_price_plain"),
                    ("expected_price_plain", "trigger_price_plain", "max_slippage_bps"),
                    ("position", "retry_of", "strategy"),
                )
            },
        ),
        (
            "On its way",
            {
                "fields": (
                    ("client_order_id", "broker_order_id"),
                    ("created_at_plain", "submitted_at_plain", "accepted_at_plain"),
                    ("heard_at_plain", "cancel_asked_at_plain", "ended_at_plain"),
                    ("tries", "next_attempt_at_plain"),
                    "last_error",
                    "priced_from_plain",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return orders with what the table shows of them."""
        return listed_orders().select_related("position__instrument", "retry_of__instrument")

    @display(description="state", ordering="state", label=STATE_LABELS)
    def state_label(self, order: Order) -> str:
        """Return the state."""
        return str(order.state)

    @display(description="side", ordering="side", label=SIDE_LABELS)
    def side_label(self, order: Order) -> str:
        """Return buy or sell."""
        return str(order.side)

    @display(description="fill price")
    def fill_price_plain(self, order: Order) -> str:
        """Return the average price of what filled."""
        return show_value(order.average_fill_price, places=4)


@admin.register(Fill)
class FillAdmin(RowAdmin):
    """Executions."""

    list_display = ("id", "order", "quantity_plain", "price_plain", "fee_plain", "filled_at_plain", "execution_id")
    list_select_related = ("order__instrument",)
    search_fields = ("=order__id", "execution_id", "order__instrument__symbol")
    ordering: ClassVar[Any] = ("-pk",)
