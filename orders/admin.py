"""The admin site's view of orders and fills, and calling an order off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from orders.cancel import NotCancellable, request_cancel
from orders.models import Fill, Order
from orders.queries import listed_orders
from positions.admin import RowAdmin, RowInline, show_value

STATE_LABELS = {
    "pending": "warning", "submitting": "info", "unknown": "danger", "submitted": "info", "partially_filled": "info",
    "cancel_requested": "warning", "filled": "success", "rejected": "danger",
}  # fmt: skip
SIDE_LABELS = {"buy": "success", "sell": "danger"}


class FillInline(RowInline):
    """What was executed."""

    model = Fill
    columns = ("execution_id", "quantity", "price", "fee", "filled_at", "booked_at")


class OrderAdmin(RowAdmin):
    """Orders; the room above adds the verbs it knows."""

    list_display = (
        "id", "instrument", "side_label", "intent", "reason", "quantity_plain", "filled_quantity_plain",
        "fill_price_plain", "state_label", "attempt", "account", "created_at_plain", "ended_at_plain",
    )  # fmt: skip
    list_filter = ("state", "intent", "lane", "reason", "account")
    search_fields = ("=id", "instrument__symbol", "client_order_id", "broker_order_id", "=position__id")
    ordering: ClassVar[Any] = ("-pk",)
    figures: ClassVar = {"average_fill_price": 8}
    inlines = (FillInline,)
    actions_detail: ClassVar[Any] = ("cancel",)
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

    def has_act_permission(self, request: HttpRequest, _object_id: Any = None) -> bool:
        """Return whether the user may cancel and retry."""
        return request.user.has_perm("orders.change_order")

    @action(description="Cancel", icon="cancel", variant=ActionVariant.WARNING, permissions=["act"])
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Call the order off, after a page that asks."""
        return ask_then(
            self,
            request,
            object_id,
            title="Cancel order",
            question="An unsent order ends at once. A working one ends when its broker confirms; "
            "until then it may still fill.",
            verb=lambda order_id, now: f"order {order_id} is now {self._cancelled(request, order_id, now)}",
            refusal=NotCancellable,
        )

    def _cancelled(self, request: HttpRequest, order_id: int, now: datetime) -> str:
        actor = request.user.get_username()[:64]
        return str(request_cancel(order_id=order_id, now=now, actor=actor, why=request.POST.get("note", "")[:500]).state)


def ask_then(
    model_admin: Any,
    request: HttpRequest,
    object_id: str,
    *,
    title: str,
    question: str,
    verb: Any,
    refusal: type[Exception],
) -> HttpResponse:
    """Show a page that asks; on its yes do the verb, and tell what came of it on the order's page."""
    order = _order_or_404(object_id)
    back = reverse("admin:orders_order_change", args=[order.pk])
    if request.method == "POST":
        try:
            messages.success(request, verb(order.pk, datetime.now(UTC)))
        except (refusal, ObjectDoesNotExist) as error:
            messages.error(request, str(error))
        return redirect(back)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": model_admin.model._meta,
        "order": order,
        "figures": [
            ("Order", str(order)),
            ("State", order.state),
            ("Filled", f"{show_value(order.filled_quantity)} of {show_value(order.quantity)}"),
            ("Last error", order.last_error or "-"),
        ],
        "question": question,
        "back": back,
        "media": model_admin.media,
    }
    return render(request, "orders/ask.html", context)


def _order_or_404(object_id: str) -> Order:
    found = listed_orders().filter(pk=int(object_id)).first() if object_id.isdecimal() and len(object_id) < 19 else None
    if found is None:
        raise Http404(f"there is no order {object_id}")
    return found


@admin.register(Fill)
class FillAdmin(RowAdmin):
    """Executions."""

    list_display = ("id", "order", "quantity_plain", "price_plain", "fee_plain", "filled_at_plain", "execution_id")
    list_select_related = ("order__instrument",)
    search_fields = ("=order__id", "execution_id", "order__instrument__symbol")
    ordering: ClassVar[Any] = ("-pk",)
