"""The admin site's view of the journal and of the alerts: to be read, never written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.decorators import display

from alerts.models import Alert, Event, Severity

_LABELS = {Severity.CRITICAL: "danger", Severity.WARNING: "warning", Severity.INFO: "info"}


def _to_the_second(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else "-"


class _JournalAdmin(ModelAdmin):
    """Rows that nobody adds, changes or deletes by hand."""

    list_per_page = 50
    show_full_result_count = False
    ordering: ClassVar[Any] = ("-pk",)

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    @display(description="data")
    def details(self, row: Any) -> str:
        """Return the data, indented."""
        return format_html('<pre class="text-xs whitespace-pre-wrap">{}</pre>', json.dumps(row.data, indent=2))


@admin.register(Event)
class EventAdmin(_JournalAdmin):
    """The journal."""

    list_display = ("id", "when", "kind", "actor", "account_ref", "position_ref", "order_ref", "bracket_ref")
    list_filter = ("kind", "actor")
    search_fields = ("=position_ref", "=order_ref", "kind", "actor")
    fields = ("when", "kind", "actor", "account_ref", "position_ref", "order_ref", "bracket_ref", "details")

    @display(description="at", ordering="at")
    def when(self, event: Event) -> str:
        """Return when it happened."""
        return _to_the_second(event.at)


@admin.register(Alert)
class AlertAdmin(_JournalAdmin):
    """What a person should know."""

    list_display = (
        "severity_label", "title", "requires_action", "count", "position_ref", "order_ref", "raised", "last_seen",
        "resolved",
    )  # fmt: skip
    list_display_links = ("title",)
    list_filter = ("severity", "requires_action", ("resolved_at", admin.EmptyFieldListFilter), "kind")
    list_select_related = ("acknowledged_by", "resolved_by")
    search_fields = ("title", "message", "=position_ref", "=order_ref")
    fields = (
        "severity_label", "title", "message", "requires_action", "count", "kind", "account_ref", "position_ref",
        "order_ref", "raised", "last_seen", "acknowledged_by", "resolved", "resolved_by", "details",
    )  # fmt: skip

    @display(description="severity", ordering="severity", label=_LABELS)
    def severity_label(self, alert: Alert) -> str:
        """Return how loud it is."""
        return str(alert.severity)

    @display(description="raised", ordering="raised_at")
    def raised(self, alert: Alert) -> str:
        """Return when it was first seen."""
        return _to_the_second(alert.raised_at)

    @display(description="last seen", ordering="last_seen_at")
    def last_seen(self, alert: Alert) -> str:
        """Return when it was seen last."""
        return _to_the_second(alert.last_seen_at)

    @display(description="resolved", ordering="resolved_at")
    def resolved(self, alert: Alert) -> str:
        """Return when it was settled."""
        return _to_the_second(alert.resolved_at)
