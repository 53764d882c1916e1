"""What the doors of the configuration read and write."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from exitmgr.models import PolicyVersion
from positions.wire import Number, Row, Strict

_LONGEST_NOTE = 500
_MOST_BRACKETS = 10_000
_LARGEST_ID = 2**63 - 1


class PolicyVersionSerializer(Row):
    """One version and its past."""

    document = serializers.DictField(read_only=True)
    problems = serializers.DictField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = PolicyVersion
        fields: tuple[str, ...] = (
            "number", "status", "document", "note", "problems", "created_by", "created_at", "activated_by",
            "activated_at", "superseded_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class DraftSerializer(Strict):
    """A version to be."""

    document = serializers.DictField(
        help_text="As config/trading.yaml; what it leaves out comes from the layers below."
    )
    note = serializers.CharField(required=False, allow_blank=True, max_length=_LONGEST_NOTE, help_text="Why.")


class NothingSerializer(Strict):
    """Nothing to say."""


class ReplacesSerializer(Strict):
    """What the decision was made against."""

    replaces = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=_LARGEST_ID,
        help_text="Refuse unless this version is in force; null for the file alone.",
    )  # fmt: skip


class RollbackSerializer(ReplacesSerializer):
    """How far back."""

    to = serializers.IntegerField(
        required=False, min_value=1, max_value=_LARGEST_ID, help_text="The one before the present one when left out."
    )


class ReapplySerializer(Strict):
    """Which open positions get the plan of the configuration in force."""

    brackets = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=_LARGEST_ID), required=False, allow_empty=False,
        max_length=_MOST_BRACKETS, help_text="All whose plan came from the configuration when left out.",
    )  # fmt: skip
    confirm = serializers.BooleanField(default=False, help_text="Also where it sells at once.")


class WhoSerializer(Strict):
    """For whom."""

    account = serializers.CharField(required=False, default="", max_length=64)
    symbol = serializers.CharField(required=False, default="", max_length=32)


class PathSerializer(WhoSerializer):
    """Which key, for whom."""

    path = serializers.CharField(required=False, default="", max_length=200, help_text="Every key when left out.")
    position = serializers.IntegerField(required=False, min_value=1, max_value=_LARGEST_ID)


class AgainstSerializer(Strict):
    """What to compare with."""

    against = serializers.RegexField(
        r"^(file|[1-9][0-9]{0,8})$",
        required=False,
        help_text="The number of a version, or file; what is in force when left out.",
        error_messages={"invalid": "must be the number of a version, or file"},
    )


class ChangeSerializer(serializers.Serializer[Any]):
    """One key before and after; null where it is not set."""

    path = serializers.CharField()
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class LayerSaysSerializer(serializers.Serializer[Any]):
    """What one layer says."""

    layer = serializers.CharField()
    value = serializers.JSONField(allow_null=True)


class ExplanationSerializer(serializers.Serializer[Any]):
    """A value, where it comes from, and what every layer says, the weakest first."""

    path = serializers.CharField()
    value = serializers.JSONField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment]  # a field, taken out of the class
    says = LayerSaysSerializer(many=True)


class BracketPreviewSerializer(serializers.Serializer[Any]):
    """What a version would change about one open position."""

    bracket = serializers.IntegerField(source="bracket_id")
    position = serializers.IntegerField(source="position_id")
    account = serializers.CharField()
    symbol = serializers.CharField()
    changes = serializers.BooleanField()
    stop_before = Number(allow_null=True)
    stop_after = Number(allow_null=True)
    targets_before = serializers.ListField(child=Number())
    targets_after = serializers.ListField(child=Number())
    price = Number(allow_null=True)
    would_fire = serializers.ListField(child=serializers.CharField())
    problem = serializers.CharField()


class ReappliedSerializer(serializers.Serializer[Any]):
    """What became of one open position."""

    bracket = serializers.IntegerField(source="bracket_id")
    position = serializers.IntegerField(source="position_id")
    applied = serializers.BooleanField()
    why = serializers.CharField()
