"""Doors to reconciliation: looking at an account, what differs, and what only a person can settle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from exitmgr.models import Difference
from exitmgr.payloads import validated
from exitmgr.reconcile.freezing import release_position
from exitmgr.reconcile.looks import Seen, reconcile_account
from exitmgr.reconcile.splitting import confirm_split
from orders.api import actor_of
from orders.brokers.registry import connect
from positions.splits import parse_ratio
from positions.wire import Row, Strict

_CHANGE = "positions.change_position"


class LookSerializer(Strict):
    """How to look: a dry run compares and changes nothing."""

    dry_run = serializers.BooleanField(default=False)


class SeenSerializer(serializers.Serializer[Any]):
    """One difference; `done` says what was done about it just now, empty while it is waited with."""

    kind = serializers.CharField()
    symbol = serializers.CharField()
    figures = serializers.DictField()
    positions = serializers.ListField(child=serializers.IntegerField())
    order = serializers.IntegerField(allow_null=True)
    done = serializers.CharField()


class ReleaseSerializer(Strict):
    """Why; it is kept in the journal."""

    note = serializers.CharField(max_length=500)


class SplitSerializer(Strict):
    """The symbol that was split, and new:old shares: 4:1, or 1:10 for a reverse split."""

    symbol = serializers.CharField(max_length=32)
    ratio = serializers.CharField(max_length=16)

    def validate_ratio(self, given: str) -> Fraction:
        """Read the ratio."""
        try:
            return parse_ratio(given)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None


class ReleasedSerializer(serializers.Serializer[Any]):
    """The positions that are watched again."""

    positions = serializers.ListField(child=serializers.IntegerField())


class DifferenceSerializer(Row):
    """A difference between our books and the broker's; open until `resolved_at`."""

    account = serializers.CharField(source="account.name", read_only=True)

    class Meta:
        model = Difference
        fields: tuple[str, ...] = (
            "id", "account", "key", "kind", "figures", "seen_at", "last_seen_at", "handled_at", "resolved_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class DifferenceFilter(filters.FilterSet):
    """Which differences to list."""

    account = filters.CharFilter(field_name="account__name")
    open = filters.BooleanFilter(field_name="resolved_at", lookup_expr="isnull")


class DifferenceViews(mixins.ListModelMixin, viewsets.GenericViewSet[Difference]):
    """Where accounts and their brokers differ, the latest first, and the ways to settle it."""

    queryset = Difference.objects.select_related("account").defer("account__credentials").order_by("-pk")
    serializer_class = DifferenceSerializer
    filterset_class = DifferenceFilter
    needs: ClassVar[Mapping[str, str]] = {"reconcile": _CHANGE, "release": _CHANGE, "confirm_split": _CHANGE}

    @extend_schema(
        request=LookSerializer,
        responses={200: SeenSerializer(many=True)},
        filters=False,
        examples=[OpenApiExample("Only compare", value={"dry_run": True}, request_only=True)],
    )
    def reconcile(self, request: Request, account_id: str) -> Response:
        """Compare an account with its broker now and do what has settled; what differs is answered."""
        dry_run = validated(LookSerializer, request)["dry_run"]
        seen = reconcile_account(
            account_id=int(account_id),
            connect=connect,
            clock=lambda: datetime.now(UTC),
            actor=actor_of(request),
            dry_run=dry_run,
        )
        return Response([_shown(one) for one in seen])

    @extend_schema(
        request=ReleaseSerializer,
        responses={200: ReleasedSerializer},
        filters=False,
        examples=[OpenApiExample("With its reason", value={"note": "no split, a typing error"}, request_only=True)],
    )
    def release(self, request: Request, position_id: str) -> Response:
        """Let the triggers of a frozen position count again, with its figures as they are."""
        note = validated(ReleaseSerializer, request)["note"]
        release_position(position_id=int(position_id), note=note, now=datetime.now(UTC), actor=actor_of(request))
        return Response({"positions": [int(position_id)]})

    @extend_schema(
        request=SplitSerializer,
        responses={200: ReleasedSerializer},
        filters=False,
        examples=[OpenApiExample("Four for one", value={"symbol": "AAPL", "ratio": "4:1"}, request_only=True)],
    )
    def confirm_split(self, request: Request) -> Response:
        """Put the positions of a symbol, frozen for this split, into new terms and watch them again."""
        given = validated(SplitSerializer, request)
        ids = confirm_split(
            symbol=given["symbol"], factor=given["ratio"], now=datetime.now(UTC), actor=actor_of(request)
        )
        return Response({"positions": ids})


def _shown(one: Seen) -> dict[str, Any]:
    return {
        "kind": str(one.difference.kind),
        "symbol": one.difference.symbol,
        "figures": dict(one.difference.figures),
        "positions": list(one.difference.position_ids),
        "order": one.difference.order_id,
        "done": one.done,
    }
