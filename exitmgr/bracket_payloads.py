"""What the doors show of a plan's outcome: brackets in short and in detail, and their triggers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from exitmgr.models import Bracket, Trigger
from exitmgr.queries import best_of, level_now
from orders.api import OrderDetailSerializer
from positions.wire import Number, Row, spell


class TriggerSerializer(Row):
    """One primitive of a plan: a level to be crossed, a trail to give back, a time to come."""

    level_now = serializers.SerializerMethodField(
        help_text="The price at which it fires now; of a trail that is followed its best price less the offset."
    )
    best_price = serializers.SerializerMethodField(help_text="Of a trail that is followed: what it is measured from.")
    steps = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()),
        read_only=True,
        help_text="Of a decaying target: from when on it lies at which price.",
    )

    class Meta:
        model = Trigger
        fields: tuple[str, ...] = (
            "id", "slot", "status", "reason", "kind", "act", "after", "basis", "direction", "level", "level_now",
            "best_price", "offset_pct", "offset", "due_at", "steps", "span_seconds", "move_pct", "fraction_pct", "rung",
            "order_type", "time_in_force", "armed_at", "fired_at", "seen_price", "order",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(Number(allow_null=True))
    def get_level_now(self, trigger: Trigger) -> str | None:
        """Return the price at which it fires now."""
        return _spelled(level_now(trigger))

    @extend_schema_field(Number(allow_null=True))
    def get_best_price(self, trigger: Trigger) -> str | None:
        """Return the best price a trail is measured from."""
        return _spelled(best_of(trigger))


def _spelled(price: Decimal | None) -> str | None:
    return None if price is None else spell(price)


class BracketBriefSerializer(Row):
    """The plan of a position in short."""

    target_prices = serializers.ListField(child=Number(), read_only=True)

    class Meta:
        model = Bracket
        fields: tuple[str, ...] = ("id", "status", "mode", "stop_price", "target_prices")
        read_only_fields: tuple[str, ...] = fields


class NotesField(serializers.ListField):
    """What calls for attention about a plan."""

    def __init__(self, **kwargs: Any) -> None:
        help_text = "What calls for attention but was not refused: a fallback used, a target too near."
        super().__init__(child=serializers.CharField(), read_only=True, help_text=help_text, **kwargs)


class BracketSerializer(BracketBriefSerializer):
    """The plan of a position, the prices it came to and the triggers it compiled to."""

    position = serializers.IntegerField(source="position_id", read_only=True, allow_null=True)
    entry_order = serializers.IntegerField(source="entry_order_id", read_only=True, allow_null=True)
    plan = serializers.DictField(read_only=True)
    ratio = Number(read_only=True, allow_null=True, places=4)
    notes = NotesField()
    triggers = TriggerSerializer(many=True, read_only=True)

    class Meta(BracketBriefSerializer.Meta):
        fields: tuple[str, ...] = (
            *BracketBriefSerializer.Meta.fields, "position", "entry_order", "plan", "entry_price", "ratio", "atr",
            "notes", "error", "created_at", "armed_at", "changed_at", "ended_at", "triggers",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class PendingPlanSerializer(Row):
    """The plan of an entry that is not filled yet."""

    plan = serializers.DictField(read_only=True)
    notes = NotesField()

    class Meta:
        model = Bracket
        fields: tuple[str, ...] = ("id", "status", "plan", "notes")
        read_only_fields: tuple[str, ...] = fields


class EnteredOrderSerializer(OrderDetailSerializer):
    """An entry and the plan that its fill will arm."""

    bracket = PendingPlanSerializer(read_only=True)

    class Meta(OrderDetailSerializer.Meta):
        fields: tuple[str, ...] = (*OrderDetailSerializer.Meta.fields, "bracket")
        read_only_fields: tuple[str, ...] = fields
