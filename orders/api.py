"""Doors to what we asked a broker to do: orders, their fills and events, and calling one off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api import EventSerializer
from alerts.queries import events_about
from orders.cancel import request_cancel
from orders.models import Fill, Intent, Order
from orders.queries import listed_orders, orders_in_detail
from orders.settle import settle_order
from orders.states import OrderState
from positions.wire import Number, Row, Strict


class FillSerializer(Row):
    """One execution at the broker."""

    class Meta:
        model = Fill
        fields: tuple[str, ...] = ("id", "execution_id", "quantity", "price", "fee", "filled_at", "booked_at")
        read_only_fields: tuple[str, ...] = fields


class OrderSerializer(Row):
    """An order: what was wanted, how far it came, and what it was decided on."""

    account = serializers.CharField(source="account.name", read_only=True)
    symbol = serializers.CharField(source="instrument.symbol", read_only=True)
    position = serializers.IntegerField(source="position_id", read_only=True, allow_null=True)
    retry_of = serializers.IntegerField(source="retry_of_id", read_only=True, allow_null=True)
    average_fill_price = Number(read_only=True, allow_null=True, places=8)
    is_live = serializers.BooleanField(read_only=True)

    class Meta:
        model = Order
        fields: tuple[str, ...] = (
            "id", "account", "symbol", "position", "intent", "reason", "strategy", "lane", "urgency", "side",
            "quantity", "filled_quantity", "average_fill_price", "reserved", "order_type", "time_in_force",
            "limit_price", "stop_price", "expected_price", "trigger_price", "max_slippage_bps", "leg", "attempt",
            "retry_of", "client_order_id", "broker_order_id", "state", "is_live", "tries", "next_attempt_at",
            "last_error", "created_at", "priced_at", "submitted_at", "accepted_at", "heard_at", "cancel_asked_at",
            "cancel_for", "ended_at", "waits", "resting", "order_class", "group", "quarantined_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class OrderDetailSerializer(OrderSerializer):
    """An order with its fills, its events and the quote it was decided on."""

    fills = FillSerializer(many=True, read_only=True)
    events = serializers.SerializerMethodField()
    priced_from = serializers.DictField(read_only=True)

    class Meta(OrderSerializer.Meta):
        fields: tuple[str, ...] = (*OrderSerializer.Meta.fields, "priced_from", "fills", "events")
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(EventSerializer(many=True))
    def get_events(self, order: Order) -> Any:
        """Return what happened to it, oldest first."""
        return EventSerializer(events_about(order_ids=[order.pk]).order_by("pk"), many=True).data


class OrderFilter(filters.FilterSet):
    """Which orders to list."""

    state = filters.MultipleChoiceFilter(choices=[(str(state), str(state)) for state in OrderState])
    intent = filters.ChoiceFilter(choices=Intent.choices)
    reason = filters.CharFilter()
    symbol = filters.CharFilter(field_name="instrument__symbol")
    account = filters.CharFilter(field_name="account__name")
    position = filters.NumberFilter(field_name="position_id", min_value=0, max_value=2**63 - 1)


class CancelSerializer(Strict):
    """Calling an order off."""

    note = serializers.CharField(required=False, max_length=500, help_text="Why; kept with the event.")


class SettlementSerializer(Strict):
    """What a person found at the broker about an order whose outcome nobody could prove."""

    arrived = serializers.BooleanField(help_text="Whether the broker has it.")
    broker_order_id = serializers.CharField(
        required=False, allow_blank=True, max_length=64, help_text="The broker's own id, where it has it."
    )


class OrderViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Order]):
    """Orders, the latest first."""

    queryset = Order.objects.all()
    serializer_class: type[serializers.BaseSerializer[Any]] = OrderSerializer
    filterset_class = OrderFilter
    ordering_fields = ("created_at", "id")
    lookup_value_regex = r"\d{1,18}"
    needs: ClassVar[Mapping[str, str]] = dict.fromkeys(("cancel", "settle"), "orders.change_order")

    def get_queryset(self) -> QuerySet[Order]:
        """Return what the action shows."""
        return listed_orders() if self.action == "list" else orders_in_detail()

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """Return the fields the action shows."""
        return OrderSerializer if self.action == "list" else OrderDetailSerializer

    @extend_schema(
        request=CancelSerializer,
        responses={202: OrderDetailSerializer},
        examples=[OpenApiExample("With a note", value={"note": "wrong symbol"}, request_only=True)],
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def cancel(self, request: Request, pk: str) -> Response:
        """Call an order off: an unsent one ends at once, a working one when its broker says so."""
        form = CancelSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        request_cancel(
            order_id=int(pk),
            now=datetime.now(UTC),
            actor=actor_of(request),
            why=form.validated_data.get("note", ""),
        )
        return Response(self.shown(int(pk)), status=202)

    @extend_schema(
        request=SettlementSerializer,
        responses={200: OrderDetailSerializer},
        examples=[
            OpenApiExample("It never arrived", value={"arrived": False}, request_only=True),
            OpenApiExample(
                "It is at the broker", value={"arrived": True, "broker_order_id": "904837e3"}, request_only=True
            ),
        ],
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def settle(self, request: Request, pk: str) -> Response:
        """Say whether an order of unknown outcome reached its broker, after looking there."""
        form = SettlementSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        settle_order(order_id=int(pk), **form.validated_data, now=datetime.now(UTC), actor=actor_of(request))
        return Response(self.shown(int(pk)))

    def shown(self, order_id: int) -> Any:
        """Return an order as the API writes it in detail."""
        return OrderDetailSerializer(orders_in_detail().get(pk=order_id)).data


def actor_of(request: Any) -> str:
    """Return who acts, as events name them."""
    return str(request.user.get_username())[:64]
