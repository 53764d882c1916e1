"""Doors to the journal and to the alerts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.models import Alert, Event, Severity
from alerts.queries import MOST_EVENTS, events_after

_LARGEST_ID = 2**63 - 1


class EventSerializer(serializers.ModelSerializer[Event]):
    """One thing that happened; the references are ids."""

    data = serializers.DictField(read_only=True)  # type: ignore[assignment]  # a field, taken out of the class

    class Meta:
        model = Event
        fields = ("id", "at", "kind", "actor", "account_ref", "position_ref", "order_ref", "bracket_ref", "data")
        read_only_fields = fields


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """Something a person should know."""

    data = serializers.DictField(read_only=True)  # type: ignore[assignment]  # a field, taken out of the class
    acknowledged_by = serializers.CharField(source="acknowledged_by.username", read_only=True, default=None)
    resolved_by = serializers.CharField(source="resolved_by.username", read_only=True, default=None)

    class Meta:
        model = Alert
        fields = (
            "id", "kind", "severity", "title", "message", "requires_action", "count", "data", "account_ref",
            "position_ref", "order_ref", "raised_at", "last_seen_at", "acknowledged_at", "acknowledged_by",
            "resolved_at", "resolved_by",
        )  # fmt: skip
        read_only_fields = fields


class AlertFilter(filters.FilterSet):
    """Which alerts to list."""

    severity = filters.MultipleChoiceFilter(choices=Severity.choices)
    kind = filters.CharFilter()
    requires_action = filters.BooleanFilter()
    resolved = filters.BooleanFilter(field_name="resolved_at", lookup_expr="isnull", exclude=True)
    acknowledged = filters.BooleanFilter(field_name="acknowledged_at", lookup_expr="isnull", exclude=True)
    position = filters.NumberFilter(field_name="position_ref")
    order = filters.NumberFilter(field_name="order_ref")


class AlertViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Alert]):
    """What a person should know, the latest first."""

    queryset = Alert.objects.select_related("acknowledged_by", "resolved_by")
    serializer_class = AlertSerializer
    filterset_class = AlertFilter
    lookup_value_regex = r"\d{1,18}"


class _Place(serializers.Serializer[Any]):
    """Where to go on reading."""

    after = serializers.IntegerField(min_value=0, max_value=_LARGEST_ID, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MOST_EVENTS, default=100)

    def to_internal_value(self, data: Any) -> Any:
        """Return the place.

        :raises ValidationError: a parameter is unknown or wrong.
        """
        unknown = sorted(set(data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError(dict.fromkeys(unknown, "is unknown; known here: after, limit"))
        return super().to_internal_value(data)


class EventViews(viewsets.GenericViewSet[Event]):
    """The journal as a feed: ask again with `next_after` and nothing is missed."""

    queryset = Event.objects.all()
    serializer_class = EventSerializer
    filter_backends = ()
    pagination_class = None

    @extend_schema(
        parameters=[
            OpenApiParameter("after", int, description="The last id you have seen; 0 for the beginning."),
            OpenApiParameter("limit", int, description=f"At most {MOST_EVENTS}; 100 when left out."),
        ],
        responses=inline_serializer(
            "Events", {"results": EventSerializer(many=True), "next_after": serializers.IntegerField()}
        ),
    )
    def list(self, request: Request) -> Response:
        """Return the events after an id, oldest first."""
        place = _Place(data=request.query_params)
        place.is_valid(raise_exception=True)
        after, limit = place.validated_data["after"], place.validated_data["limit"]
        events = events_after(after=after, limit=limit, now=datetime.now(UTC))
        return Response(
            {"results": EventSerializer(events, many=True).data, "next_after": events[-1].pk if events else after}
        )
