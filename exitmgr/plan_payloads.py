"""What the doors to a position's plan read and write: the plan, what it came to, and what a new one would change."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from exitmgr.bracket_payloads import BracketSerializer, NotesField, TriggerSerializer
from exitmgr.models import Bracket
from exitmgr.payloads import NoteSerializer, PlanField, refused_plan
from exitmgr.plan_edits import merged_plan
from exitmgr.plan_previews import PlanPreview
from exitmgr.queries import stops_now
from exitmgr.rules.plan import InvalidPlan, Plan, plan_as_json
from exitmgr.states import TriggerStatus
from positions.wire import Number, shown, spell


class PlanChangeSerializer(NoteSerializer):
    """A plan, whole."""

    plan = PlanField()
    confirm = serializers.BooleanField(
        required=False, default=False, help_text="Change it even if that leaves the position at once."
    )


class PlanPartsField(PlanField):
    """Some parts of a plan, put into the one there is; null takes a part out."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the whole plan that comes of it.

        :raises ValidationError: with every mistake.
        """
        if not isinstance(data, dict):
            raise serializers.ValidationError(f"must be an object with some parts of a plan; got {shown(data)}")
        try:
            return merged_plan(self.context["plan"], data)
        except InvalidPlan as error:
            raise refused_plan(error) from None


class PlanPartsSerializer(PlanChangeSerializer):
    """Parts of a plan."""

    plan = PlanPartsField(help_text="The parts to replace; null takes one out, the others stay.")


class PlanPreviewSerializer(serializers.Serializer[PlanPreview]):
    """What a plan would change, before anything is changed."""

    plan = serializers.SerializerMethodField(help_text="The whole plan as it would be kept.")
    price = Number(allow_null=True, help_text="What the position could be left at now; null when nobody knows.")
    stop_before = Number(allow_null=True)
    stop_after = Number(allow_null=True)
    tightest_before = Number(allow_null=True, help_text="The nearest armed stop, trails and break-even included.")
    tightest_after = Number(allow_null=True)
    loosens = serializers.BooleanField(help_text="A stop would give away more than it does now.")
    targets_before = serializers.ListField(child=Number())
    targets_after = serializers.ListField(child=Number())
    would_fire = serializers.ListField(child=serializers.CharField(), help_text="Triggers that would fire at once.")
    notes = NotesField()

    @extend_schema_field(Plan)  # type: ignore[arg-type]  # an extension describes pydantic's models
    def get_plan(self, preview: PlanPreview) -> dict[str, Any]:
        """Return the whole plan as it would be kept."""
        return plan_as_json(preview.plan)


class PlanStateSerializer(BracketSerializer):
    """The plan of a position as it was given, what it came to, and its triggers by slot as they stand."""

    bracket = serializers.IntegerField(source="pk", read_only=True)
    stop_now = serializers.SerializerMethodField()
    triggers = serializers.SerializerMethodField()  # type: ignore[assignment]  # by slot here, not as a list

    class Meta(BracketSerializer.Meta):
        fields: tuple[str, ...] = (
            "position", "bracket", "status", "plan", "entry_price", "stop_price", "stop_now", "target_prices", "ratio",
            "atr", "notes", "error", "armed_at", "changed_at", "triggers",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(Number(allow_null=True, help_text="The nearest armed stop, trails and break-even included."))
    def get_stop_now(self, bracket: Bracket) -> str | None:
        """Return the nearest armed stop."""
        stop = stops_now([bracket.position_id or 0]).get(bracket.position_id or 0)
        return None if stop is None else spell(stop)

    @extend_schema_field({"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Trigger"}})
    def get_triggers(self, bracket: Bracket) -> dict[str, Any]:
        """Return what counts of the triggers; of a slot that was armed again the latest one."""
        rows = sorted(bracket.triggers.all(), key=lambda row: row.pk)
        counting = {row.slot: row for row in rows if row.status != TriggerStatus.CANCELLED}
        return {slot: TriggerSerializer(row).data for slot, row in counting.items()}
