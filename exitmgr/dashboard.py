"""What the front page of the admin site shows: what is held, what is being left, and what a person should look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.http import HttpRequest
from django.urls import reverse

from alerts.models import Alert
from exitmgr.models import Heartbeat
from exitmgr.queries import positions_on_the_desk
from exitmgr.watch import HEARTBEAT
from orders.models import Order
from orders.states import LIVE
from positions.admin import show_value
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side

_ROWS: Final = 15


def fill_index(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the page's context with counts, the latest open positions and the alerts that are not settled.

    Nothing is shown that the user may not see in its own list.
    """
    user = request.user
    cards: list[dict[str, Any]] = []
    if user.has_perm("positions.view_position"):
        held = Position.objects.exclude(status=PositionStatus.CLOSED)
        leaving = held.filter(status=PositionStatus.EXIT_PENDING)
        address = reverse("admin:positions_position_changelist")
        cards += [
            {"name": "Open positions", "value": held.count(), "href": address},
            {"name": "Being left", "value": leaving.count(), "href": f"{address}?status__exact=exit_pending"},
        ]
        latest = positions_on_the_desk().exclude(status=PositionStatus.CLOSED).order_by("-pk")[:_ROWS]
        context["positions"] = [_row(position) for position in latest]
    if user.has_perm("orders.view_order"):
        live = Order.objects.filter(state__in=LIVE).count()
        cards.append({"name": "Orders under way", "value": live, "href": reverse("admin:orders_order_changelist")})
    if user.has_perm("alerts.view_alert"):
        unsettled = Alert.objects.filter(resolved_at__isnull=True)
        href = f"{reverse('admin:alerts_alert_changelist')}?resolved_at__isempty=1"
        cards.append({"name": "Unsettled alerts", "value": unsettled.count(), "href": href})
        context["alerts"] = unsettled.order_by("-requires_action", "-last_seen_at")[:_ROWS]
    return {**context, "cards": cards, "last_scan": _last_scan()}


def _row(position: Any) -> dict[str, Any]:
    pnl, percent = position.unrealized_pnl, position.unrealized_pct
    return {
        "name": f"{Side(position.side).word} {position.instrument} #{position.pk}",
        "href": reverse("admin:positions_position_change", args=[position.pk]),
        "status": position.status,
        "figures": [
            show_value(position.remaining),
            show_value(position.average_entry, places=4),
            show_value(position.price),
            show_value(position.stop_price, places=4),
        ],
        "pnl": "-" if pnl is None else f"{pnl:.2f} ({percent:.2f} %)",
        "is_loss": pnl is not None and pnl < 0,
    }


def _last_scan() -> str:
    last = Heartbeat.objects.filter(pk=HEARTBEAT).values_list("at", flat=True).first()
    return f"{(datetime.now(UTC) - last).total_seconds():.0f} s ago" if last else "never"
