"""Doors to the plan of a position: as it stands, what a new one would change, and the change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from exitmgr.brackets import open_bracket
from exitmgr.models import Bracket
from exitmgr.plan_edits import change_plan, preview_plan
from exitmgr.plan_payloads import (
    PlanChangeSerializer,
    PlanPartsSerializer,
    PlanPreviewSerializer,
    PlanStateSerializer,
)
from exitmgr.queries import brackets_in_detail
from orders.api import actor_of
from positions.models import Position

_ANSWER = PolymorphicProxySerializer(
    component_name="PlanAnswer",
    serializers=[PlanStateSerializer, PlanPreviewSerializer],
    resource_type_field_name=None,
    many=False,
)
_PREVIEW = OpenApiParameter(
    "preview",
    bool,
    OpenApiParameter.QUERY,
    description="Answer with what would change and what would fire at once; change nothing.",
)


class PlanDoors(viewsets.GenericViewSet[Position]):
    """The plan of a position."""

    @extend_schema(responses=PlanStateSerializer)
    @action(detail=True, filter_backends=(), pagination_class=None)
    def plan(self, request: Request, pk: str) -> Response:
        """Show the plan as it was given, what it came to, and its triggers by slot as they stand."""
        _known_parameters(request, known=())
        return Response(_state(_position(pk)))

    @extend_schema(
        request=PlanChangeSerializer,
        responses=_ANSWER,
        parameters=[_PREVIEW],
        examples=[
            OpenApiExample(
                "A stop, a target and a trail",
                value={
                    "plan": {
                        "stop_loss": {"price": "185.00"},
                        "take_profits": [{"pct": "3"}],
                        "trailing": {"pct": "1", "activation_pct": "2"},
                    },
                    "note": "earnings are over",
                },
                request_only=True,
            )
        ],
    )
    @plan.mapping.put
    def replace_plan(self, request: Request, pk: str) -> Response:
        """Give the position this plan, whole; what has fired stays fired.

        One that would leave the position at once is refused with 409 unless it is confirmed.
        """
        form = PlanChangeSerializer(data=request.data)
        return _change(request, _position(pk), form, based_on=None)

    @extend_schema(
        request=PlanPartsSerializer,
        responses=_ANSWER,
        parameters=[_PREVIEW],
        examples=[
            OpenApiExample("Move the stop", value={"plan": {"stop_loss": {"price": "188.20"}}}, request_only=True),
            OpenApiExample(
                "Break even instead of the time limit",
                value={"plan": {"break_even": {"at_profit_pct": "1"}, "time_limit_seconds": None}},
                request_only=True,
            ),
        ],
    )
    @plan.mapping.patch
    def change_parts(self, request: Request, pk: str) -> Response:
        """Replace some parts of the plan; null takes a part out, the others stay.

        One that would leave the position at once is refused with 409 unless it is confirmed.
        """
        position = _position(pk)
        bracket = open_bracket(position)
        current = bracket.plan if bracket else {}
        form = PlanPartsSerializer(data=request.data, context={"plan": current})
        return _change(request, position, form, based_on=current)


def _change(
    request: Request, position: Position, form: PlanChangeSerializer, *, based_on: Mapping[str, Any] | None
) -> Response:
    preview = _wants_preview(request)
    form.is_valid(raise_exception=True)
    given, now = form.validated_data, datetime.now(UTC)
    if preview:
        told = preview_plan(position, given["plan"], now=now)
        return Response(PlanPreviewSerializer(told).data)
    change_plan(
        position_id=position.pk, now=now, actor=actor_of(request), based_on=based_on,
        plan=given["plan"], confirm=given["confirm"], note=given.get("note", ""),
    )  # fmt: skip
    return Response(_state(position))


def _position(pk: str) -> Position:
    found = Position.objects.select_related("instrument").filter(pk=pk).first()
    if found is None:
        raise Position.DoesNotExist(f"there is no position {pk}")
    return found


def _state(position: Position) -> Any:
    latest = brackets_in_detail().filter(position=position).order_by("-pk").first()
    if latest is None:
        raise Bracket.DoesNotExist(f"position {position.pk} has no plan; give it one with PUT")
    return PlanStateSerializer(latest).data


def _wants_preview(request: Request) -> bool:
    _known_parameters(request, known=("preview",))
    given = request.query_params.get("preview", "false")
    if given not in ("true", "false"):
        raise serializers.ValidationError({"preview": f"must be true or false; got {given[:40]!r}"})
    return given == "true"


def _known_parameters(request: Request, *, known: tuple[str, ...]) -> None:
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        words = f"known here: {', '.join(known)}" if known else "there are none here"
        raise serializers.ValidationError(dict.fromkeys(unknown, f"is unknown; {words}"))
