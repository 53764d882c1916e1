"""The desk: positions and how to leave them, their plans, and the orders that carry it out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from exitmgr import setup_admin  # noqa: F401 - registers accounts, instruments and people
from exitmgr.exits import retry_exit
from exitmgr.inlines import OrderInline, TriggerInline
from exitmgr.leaving import actor_of, ask_page, is_id, leave_page
from exitmgr.models import Bracket, Heartbeat
from exitmgr.plan_page import plan_page
from exitmgr.queries import brackets_in_detail, positions_on_the_desk, stops_now, timeline
from exitmgr.remarks import remark_on_order
from orders.admin import OrderAdmin
from orders.cancel import request_cancel
from orders.models import Order
from orders.states import TERMINAL, OrderState
from positions.admin import RowAdmin, show_value
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side

admin.site.index_template = "exitmgr/index.html"

_SHOWN_EVENTS = 100
STATUS_LABELS = {"open": "success", "exit_pending": "warning", "partial_exit": "info"}
BRACKET_LABELS = {"pending": "warning", "active": "success", "error": "danger", "expired": "warning"}
_BUTTON = "inline-block px-2 py-1 rounded-default border text-xs whitespace-nowrap"


def _prices(given: Sequence[str] | None) -> str:
    return ", ".join(show_value(Decimal(price), places=4) for price in given or ()) or "-"


@admin.register(Position)
class PositionAdmin(RowAdmin):
    """What is held, how it is to be left, and the two ways out at once."""

    list_display = (
        "id", "instrument", "side_label", "status_label", "ways_out", "remaining_plain", "average_entry_plain",
        "price_plain", "unrealized", "stop_price_plain", "targets",
    )  # fmt: skip
    list_filter = ("status", "side", "account", "strategy")
    search_fields = ("=id", "instrument__symbol", "strategy")
    ordering: ClassVar[Any] = ("-pk",)
    figures: ClassVar = {
        "remaining": None, "available": None, "average_entry": 4, "price": None, "priced_at": None, "stop_price": 4,
        "unrealized_pnl": 2, "unrealized_pct": 2, "evaluated_at": None, "highest": 4, "lowest": 4,
    }  # fmt: skip
    list_fullwidth = True
    inlines = (TriggerInline, OrderInline)
    actions_detail: ClassVar[Any] = ("change_plan", "exit_part", "emergency_exit")
    change_form_after_template = "exitmgr/timeline.html"
    fieldsets: ClassVar[Any] = (
        (
            "Held",
            {
                "fields": (
                    ("instrument", "side_label", "status_label"),
                    ("quantity_plain", "remaining_plain", "reserved_plain"),
                    ("average_entry_plain", "entry_cost_plain", "fees_plain"),
                    ("account", "strategy", "opened_at_plain"),
                )
            },
        ),
        (
            "Worth",
            {
                "fields": (
                    ("price_plain", "priced_at_plain", "evaluated_at_plain"),
                    ("unrealized", "highest_plain", "lowest_plain"),
                    ("stop_price_plain", "nearest_stop", "targets"),
                )
            },
        ),
        (
            "Left so far",
            {
                "fields": (
                    ("exited_plain", "exit_value_plain", "realized_pnl_plain"),
                    ("exit_reason", "last_exit_price_plain", "last_exit_at_plain"),
                    ("closed_at_plain",),
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return positions with their worth and stop."""
        return positions_on_the_desk()

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns; the ways out only for who may take them."""
        columns = super().get_list_display(request)
        return columns if self.has_act_permission(request) else [name for name in columns if name != "ways_out"]

    @display(description="side", ordering="side", label={"long": "info", "short": "primary"})
    def side_label(self, position: Position) -> str:
        """Return long or short."""
        return Side(position.side).word

    @display(description="status", ordering="status", label=STATUS_LABELS)
    def status_label(self, position: Position) -> str:
        """Return the status."""
        return str(position.status)

    @display(description="unrealised", ordering="unrealized_pnl")
    def unrealized(self, position: Any) -> str:
        """Return the unrealised P&L, coloured by its sign."""
        if position.unrealized_pnl is None or position.status == PositionStatus.CLOSED:
            return "-"
        colour = (
            "text-green-700 dark:text-green-400" if position.unrealized_pnl >= 0 else "text-red-700 dark:text-red-400"
        )
        amount, percent = show_value(position.unrealized_pnl, places=2), show_value(position.unrealized_pct, places=2)
        return format_html('<span class="{} whitespace-nowrap">{} ({} %)</span>', colour, amount, percent)

    @display(description="nearest stop now")
    def nearest_stop(self, position: Position) -> str:
        """Return where the first of its stops would fire now, trails and break-even included."""
        return show_value(stops_now([position.pk]).get(position.pk), places=4)

    @display(description="targets")
    def targets(self, position: Any) -> str:
        """Return the prices of the rungs."""
        return _prices(position.target_prices)

    @display(description="")
    def ways_out(self, position: Position) -> str:
        """Return the links to the pages that ask."""
        if position.status == PositionStatus.CLOSED:
            return ""
        return format_html(
            '<span class="whitespace-nowrap">'
            '<a href="{}" class="{} border-base-200 dark:border-base-700">Plan…</a> '
            '<a href="{}" class="{} border-base-200 dark:border-base-700">Exit…</a> '
            '<a href="{}" class="{} border-red-600 text-red-700 dark:text-red-400">Emergency</a></span>',
            reverse("admin:positions_position_change_plan", args=[position.pk]),
            _BUTTON,
            reverse("admin:positions_position_exit_part", args=[position.pk]),
            _BUTTON,
            reverse("admin:positions_position_emergency_exit", args=[position.pk]),
            _BUTTON,
        )

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may leave positions; a closed one offers nothing to leave."""
        if not request.user.has_perm("positions.change_position"):
            return False
        return object_id is None or not _exists(Position, object_id, status=PositionStatus.CLOSED)

    @action(description="Change plan…", url_path="plan", icon="rule", permissions=["act"])
    def change_plan(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Move stops, targets and everything else, after a page that shows what would change."""
        return plan_page(self, request, object_id)

    @action(description="Exit…", url_path="exit", icon="logout", permissions=["act"])
    def exit_part(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Leave a percentage, after a page that shows what it would do."""
        return leave_page(self, request, object_id, emergency=False)

    @action(
        description="Emergency exit",
        url_path="emergency-exit",
        icon="emergency_home",
        variant=ActionVariant.DANGER,
        permissions=["act"],
    )
    def emergency_exit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Leave everything ahead of all else, after a page that asks."""
        return leave_page(self, request, object_id, emergency=True)

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Show the position with its history."""
        events = timeline(int(object_id)).order_by("-pk")[:_SHOWN_EVENTS] if is_id(object_id) else []
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "timeline": events})


@admin.register(Order)
class OrderDesk(OrderAdmin):
    """Orders, with cancelling and retrying."""

    actions_detail: ClassVar[Any] = ("cancel", "retry")

    def has_cancel_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may call the order off, and whether it may still be."""
        return _may_act(request) and (object_id is None or not _exists(Order, object_id, state__in=TERMINAL))

    def has_retry_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may send it again, and whether it is a failed exit."""
        failed = TERMINAL - {OrderState.FILLED}
        return _may_act(request) and (object_id is None or _exists(Order, object_id, intent="exit", state__in=failed))

    @action(description="Cancel", icon="cancel", variant=ActionVariant.WARNING, permissions=["cancel"])
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Call the order off, after a page that asks."""

        def verb(order_id: int, note: str, now: datetime) -> str:
            order = request_cancel(order_id=order_id, now=now, actor=actor_of(request), why=note)
            return f"Order {order.pk} is now {order.state}."

        question = "An unsent order ends at once. A working one may still fill until its broker confirms the end."
        return ask_page(self, request, object_id, title="Cancel order", question=question, verb=verb)

    @action(description="Retry", icon="replay", variant=ActionVariant.PRIMARY, permissions=["retry"])
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send a failed exit again, after a page that asks."""

        def verb(order_id: int, note: str, now: datetime) -> str:
            order = retry_exit(order_id=order_id, now=now, actor=actor_of(request))
            remark_on_order(order, note=note, now=now, actor=actor_of(request))
            return f"Order {order.pk} is on its way: {order.side} {show_value(order.quantity)} at market."

        question = "A new order leaves all that remains of the position, with more room for slippage."
        return ask_page(self, request, object_id, title="Retry exit", question=question, verb=verb)


def _may_act(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("orders.change_order"))


def _exists(model: type[Position | Order], object_id: Any, **condition: Any) -> bool:
    return is_id(str(object_id)) and model._default_manager.filter(pk=object_id, **condition).exists()


@admin.register(Bracket)
class BracketAdmin(RowAdmin):
    """Exit plans."""

    list_display = (
        "id", "subject", "status_label", "mode", "entry_price_plain", "stop_price_plain", "targets", "ratio_plain",
        "created_at_plain", "armed_at_plain", "changed_at_plain", "ended_at_plain",
    )  # fmt: skip
    list_filter = ("status", "mode")
    search_fields = ("=id", "=position__id", "position__instrument__symbol", "entry_order__instrument__symbol")
    ordering: ClassVar[Any] = ("-pk",)
    inlines = (TriggerInline,)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return brackets with what they protect."""
        return brackets_in_detail()

    @display(description="protects")
    def subject(self, bracket: Bracket) -> str:
        """Return the position, or the entry that has not filled yet."""
        return str(bracket.position or bracket.entry_order)

    @display(description="status", ordering="status", label=BRACKET_LABELS)
    def status_label(self, bracket: Bracket) -> str:
        """Return the status."""
        return str(bracket.status)

    @display(description="targets")
    def targets(self, bracket: Bracket) -> str:
        """Return the prices of the rungs."""
        return _prices(bracket.target_prices)


@admin.register(Heartbeat)
class HeartbeatAdmin(RowAdmin):
    """Signs of life."""

    list_display = ("name", "at_plain")
