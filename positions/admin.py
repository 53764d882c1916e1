"""The admin site's view of prices, and how every room shows its rows: read-only, numbers plain, times to the second."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib import admin
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline

from positions.models import Bar, Quote, RefusedPrice
from positions.wire import spell

_SUFFIX = "_plain"
Show = Callable[[Any], str]


def plainly(name: str, *, label: str | None = None, places: int | None = None) -> Show:
    """Return a column that shows an attribute plainly: a number without padding, a time in UTC, JSON indented."""

    def show(row: Any) -> str:
        return show_value(getattr(row, name), places=places)

    show.short_description = label or name.replace("_", " ")  # type: ignore[attr-defined]
    show.admin_order_field = name  # type: ignore[attr-defined]
    return show


def show_value(value: Any, *, places: int | None = None) -> str:
    """Return a value as people read it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, Decimal):
        return spell(value, places=places)
    if isinstance(value, datetime):
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}")
    if isinstance(value, dict | list):
        text = json.dumps(value, indent=2, cls=DjangoJSONEncoder)
        return format_html('<pre class="text-xs whitespace-pre-wrap">{}</pre>', text)
    return str(value)


class PlainColumns:
    """Gives an admin class a column `<field>_plain` for each number, time and JSON field of its model.

    `figures` names further attributes, such as annotations, and the decimals they are shown with.
    """

    figures: ClassVar[Mapping[str, int | None]] = {}

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)  # type: ignore[call-arg]
        self._plain = {
            field.name: plainly(field.name, label=str(field.verbose_name))
            for field in self._shown_model(model)._meta.fields
            if isinstance(field, models.DecimalField | models.DateTimeField | models.JSONField)
        }
        for name, places in self.figures.items():
            self._plain[name] = plainly(name, places=places)
        for name, show in self._plain.items():
            setattr(self, f"{name}{_SUFFIX}", show)

    def _shown_model(self, model: Any) -> Any:
        return getattr(self, "model", None) or model

    def plain_names(self, names: Any) -> list[Any]:
        """Return field names with the plain column in place of what Django would pad or localise."""
        return [f"{name}{_SUFFIX}" if name in self._plain else name for name in names]


class ReadOnly:
    """Rows the system keeps: people look at them, and act through verbs."""

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Refuse: only the system makes such rows."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Refuse: only verbs change such rows."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Refuse: nothing is ever deleted."""
        return False


class RowAdmin(ReadOnly, PlainColumns, ModelAdmin):
    """A read-only table of a model."""

    list_per_page = 50
    show_full_result_count = False
    list_filter_submit = False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return every field, plainly shown."""
        return self.plain_names(super().get_fields(request, obj))


class RowInline(ReadOnly, PlainColumns, TabularInline):
    """A read-only table of what belongs to a row."""

    extra = 0
    show_change_link = True
    columns: ClassVar[tuple[str, ...]] = ()

    def get_fields(self, _request: HttpRequest, _obj: Any = None) -> list[Any]:
        """Return the named columns, plainly shown."""
        return self.plain_names(self.columns)

    def get_readonly_fields(self, _request: HttpRequest, _obj: Any = None) -> list[Any]:
        """Return all of them."""
        return self.plain_names(self.columns)


@admin.register(Quote)
class QuoteAdmin(RowAdmin):
    """Latest prices."""

    list_display = (
        "instrument", "bid_plain", "ask_plain", "last_plain", "source", "source_at_plain", "received_at_plain",
        "scanned_at_plain",
    )  # fmt: skip
    list_select_related = ("instrument",)
    list_filter = ("source",)
    search_fields = ("instrument__symbol",)
    ordering = ("instrument__symbol",)


@admin.register(Bar)
class BarAdmin(RowAdmin):
    """Bars."""

    list_display = (
        "instrument", "start_plain", "seconds", "open_plain", "high_plain", "low_plain", "close_plain", "volume_plain"
    )  # fmt: skip
    list_select_related = ("instrument",)
    list_filter = ("seconds",)
    search_fields = ("instrument__symbol",)
    ordering = ("-start", "-pk")


@admin.register(RefusedPrice)
class RefusedPriceAdmin(RowAdmin):
    """Prices that were not believed."""

    list_display = ("symbol", "reason", "count", "last_price", "last_seen_at_plain")
    list_filter = ("reason",)
    search_fields = ("symbol",)
    ordering = ("-last_seen_at",)
