"""Doors to positions and their plans: registering, leaving, entering, retrying, and the instruments they are in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api import EventSerializer
from exitmgr.bracket_payloads import BracketSerializer, EnteredOrderSerializer
from exitmgr.entries import enter, register_position
from exitmgr.exits import request_exit, retry_exit
from exitmgr.models import Bracket
from exitmgr.payloads import (
    EntrySerializer,
    ExitSerializer,
    InstrumentChanges,
    NewInstrument,
    NoteSerializer,
    PositionDetailSerializer,
    PositionWithPlanSerializer,
    RegistrationSerializer,
    validated,
)
from exitmgr.plan_api import PlanDoors
from exitmgr.queries import brackets_in_detail, listed_positions, positions_in_detail, timeline
from exitmgr.reference_data import add_instrument, change_instrument
from exitmgr.remarks import remark_on_order
from exitmgr.rules.types import ExitReason
from exitmgr.states import BracketStatus
from orders.api import OrderDetailSerializer, OrderViews, actor_of
from orders.models import Order
from positions.api import InstrumentSerializer, InstrumentViews, PositionFilter
from positions.models import Position

_EXAMPLE_PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"rr": "3"}]}


class PositionViews(PlanDoors, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Position]):
    """What is held, what it is worth, how it is protected, and the ways out of it."""

    queryset = Position.objects.all()
    serializer_class: type[serializers.BaseSerializer[Any]] = PositionWithPlanSerializer
    filterset_class = PositionFilter
    ordering_fields = ("opened_at", "id")
    lookup_value_regex = r"\d{1,18}"
    needs: ClassVar[Mapping[str, str]] = {
        "exit": "positions.change_position",
        "emergency_exit": "positions.change_position",
        "events": "alerts.view_event",
    }

    def get_queryset(self) -> QuerySet[Position]:
        """Return what the action shows."""
        return listed_positions() if self.action == "list" else positions_in_detail()

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """Return the fields the action shows."""
        return PositionWithPlanSerializer if self.action == "list" else PositionDetailSerializer

    @extend_schema(
        request=RegistrationSerializer,
        responses={201: PositionDetailSerializer},
        examples=[
            OpenApiExample(
                "A holding of 100 shares",
                value={
                    "account": "paper", "symbol": "AAPL", "side": "long", "quantity": "100", "entry_price": "187.40",
                    "opened_at": "2026-03-02T15:30:00Z", "plan": _EXAMPLE_PLAN,
                },
                request_only=True,
            )
        ],
    )  # fmt: skip
    def create(self, request: Request) -> Response:
        """Take a holding that exists at the broker under care; its plan is armed at once."""
        given = validated(RegistrationSerializer, request)
        now = datetime.now(UTC)
        given.setdefault("opened_at", now)
        position, _ = register_position(**given, now=now, actor=actor_of(request))
        shown = PositionDetailSerializer(positions_in_detail().get(pk=position.pk)).data
        return Response(shown, status=201, headers={"Location": f"{request.path}/{position.pk}"})

    @extend_schema(
        request=ExitSerializer,
        responses={201: OrderDetailSerializer},
        examples=[
            OpenApiExample("Half of what remains", value={"percentage": "50", "note": "news"}, request_only=True)
        ],
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def exit(self, request: Request, pk: str) -> Response:
        """Leave a percentage of what remains, all of it when no percentage is given."""
        given = validated(ExitSerializer, request)
        return _leave(request, position_id=int(pk), reason=ExitReason.MANUAL, **given)

    @extend_schema(
        request=NoteSerializer,
        responses={201: OrderDetailSerializer},
        examples=[OpenApiExample("With a note", value={"note": "exchange halts in a minute"}, request_only=True)],
    )
    @action(detail=True, methods=["post"], url_path="emergency-exit", filter_backends=(), pagination_class=None)
    def emergency_exit(self, request: Request, pk: str) -> Response:
        """Leave everything that no other exit has claimed, ahead of every other order, also in a halted account."""
        given = validated(NoteSerializer, request)
        return _leave(request, position_id=int(pk), reason=ExitReason.EMERGENCY, **given)

    @extend_schema(responses=EventSerializer(many=True), filters=False)
    @action(detail=True, serializer_class=EventSerializer, filter_backends=())
    def events(self, request: Request, pk: str) -> Response:
        """List everything that happened to the position, from its entry order on, oldest first."""
        if not Position.objects.filter(pk=pk).exists():
            raise Position.DoesNotExist(f"there is no position {pk}")
        assert self.paginator is not None  # noqa: S101 - set by the installation
        self.paginator.ordering = "pk"  # type: ignore[attr-defined]
        history: Any = timeline(int(pk))
        page: Any = self.paginate_queryset(history)
        return self.get_paginated_response(EventSerializer(page, many=True).data)


def _leave(request: Request, *, position_id: int, reason: ExitReason, note: str = "", **how: Any) -> Response:
    now = datetime.now(UTC)
    order = request_exit(position_id=position_id, now=now, actor=actor_of(request), reason=reason, **how)
    remark_on_order(order, note=note, now=now, actor=actor_of(request))
    return _created(order)


def _created(order: Order, *, shown_by: type[OrderDetailSerializer] = OrderDetailSerializer) -> Response:
    return Response(shown_by(order).data, status=201, headers={"Location": f"/api/v1/orders/{order.pk}"})


class OrderDoors(OrderViews):
    """Orders, the latest first, and the ways to make one."""

    needs: ClassVar[Mapping[str, str]] = {**OrderViews.needs, "retry": "orders.change_order"}

    @extend_schema(
        request=EntrySerializer,
        responses={201: EnteredOrderSerializer},
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description="Names the request: the same key again is refused with 409 and enters nothing.",
            )
        ],
        examples=[
            OpenApiExample(
                "Buy 10 shares, out at 1 % against or 2 % in favour",
                value={
                    "account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10",
                    "plan": {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]},
                },
                request_only=True,
            )
        ],
    )  # fmt: skip
    def create(self, request: Request) -> Response:
        """Enter a position; its plan is armed when the entry fills. Without a plan it gets the default one."""
        form = EntrySerializer(data=request.data, context={"idempotency_key": request.headers.get("Idempotency-Key")})
        form.is_valid(raise_exception=True)
        order = enter(**form.validated_data, now=datetime.now(UTC), actor=actor_of(request))
        return _created(order, shown_by=EnteredOrderSerializer)

    @extend_schema(
        request=NoteSerializer,
        responses={201: OrderDetailSerializer},
        examples=[OpenApiExample("With a note", value={"note": "the broker is back"}, request_only=True)],
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def retry(self, request: Request, pk: str) -> Response:
        """Send a failed exit again: all that remains, with more room for slippage."""
        given = validated(NoteSerializer, request)
        now = datetime.now(UTC)
        order = retry_exit(order_id=int(pk), now=now, actor=actor_of(request))
        remark_on_order(order, note=given.get("note", ""), now=now, actor=actor_of(request))
        return _created(order)


class BracketFilter(filters.FilterSet):
    """Which brackets to list."""

    status = filters.MultipleChoiceFilter(choices=[(str(status), str(status)) for status in BracketStatus])
    position = filters.NumberFilter(field_name="position_id", min_value=0, max_value=2**63 - 1)


class BracketViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Bracket]):
    """Exit plans and the triggers they compiled to, the latest first."""

    queryset = Bracket.objects.all()
    serializer_class = BracketSerializer
    filterset_class = BracketFilter
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Bracket]:
        """Return brackets with their triggers."""
        return brackets_in_detail()


class InstrumentDoors(InstrumentViews):
    """What can be held; setting it up needs the permission to."""

    @extend_schema(
        request=NewInstrument,
        responses={201: InstrumentSerializer},
        examples=[
            OpenApiExample(
                "A coin",
                value={
                    "symbol": "BTC/USD", "asset_class": "crypto", "tick": "0.01", "lot": "0.00000001",
                    "dust": "0.00001", "calendar": "24/7", "shortable": False,
                },
                request_only=True,
            )
        ],
    )  # fmt: skip
    def create(self, request: Request) -> Response:
        """Make a symbol known."""
        values = validated(NewInstrument, request)
        instrument = add_instrument(values=values, now=datetime.now(UTC), actor=actor_of(request))
        location = {"Location": f"{request.path}/{instrument.pk}"}
        return Response(InstrumentSerializer(instrument).data, status=201, headers=location)

    @extend_schema(
        request=InstrumentChanges,
        responses={200: InstrumentSerializer},
        examples=[OpenApiExample("No entries for now", value={"tradable": False}, request_only=True)],
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is known about a symbol; the symbol itself stays."""
        values = validated(InstrumentChanges, request)
        instrument = change_instrument(
            instrument_id=int(pk), values=values, now=datetime.now(UTC), actor=actor_of(request)
        )
        return Response(InstrumentSerializer(instrument).data)
