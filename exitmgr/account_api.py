"""Doors to whole accounts: the kill switch of one and over all, and leaving everything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from exitmgr.account_models import Flatten
from exitmgr.flatten import EVERYTHING, request_flatten
from exitmgr.payloads import validated
from exitmgr.switches import shown_switch, switch_account, switch_all
from orders.api import actor_of
from positions.api import AccountSerializer, AccountViews
from positions.models import Account, TradingSwitch
from positions.values import TradingState
from positions.wire import Row, Strict, Word

_SET = "positions.change_tradingswitch"
_LONGEST_NOTE = 500


class ReasonSerializer(Strict):
    """Why; it is kept in the journal."""

    note = serializers.CharField(max_length=_LONGEST_NOTE)


class SwitchChangeSerializer(ReasonSerializer):
    """What all accounts may do at most, and why."""

    state = Word(TradingState)


class FlattenRequestSerializer(ReasonSerializer):
    """A reason, and what is meant, typed out."""

    confirm = serializers.CharField(max_length=64, help_text="The account's name; for all accounts: everything.")


class SwitchSerializer(Row):
    """The switch over all accounts; what is stricter, it or an account's own state, counts."""

    class Meta:
        model = TradingSwitch
        fields: tuple[str, ...] = ("state", "note", "set_by", "set_at")
        read_only_fields: tuple[str, ...] = fields


class FlattenSerializer(Row):
    """A wish that an account, or all of them (null), hold nothing; it goes on until `ended_at`."""

    account = serializers.CharField(source="account.name", read_only=True, allow_null=True, default=None)

    class Meta:
        model = Flatten
        fields: tuple[str, ...] = ("id", "account", "note", "asked_by", "asked_at", "ended_at", "ended_why")
        read_only_fields: tuple[str, ...] = fields


_WHY = OpenApiExample("With its reason", value={"note": "the feed is wrong"}, request_only=True)


class AccountDoors(AccountViews):
    """Accounts at brokers, and what each may do; credentials never leave the database through here."""

    needs: ClassVar[Mapping[str, str]] = {"halt": _SET, "resume": _SET, "reduce_only": _SET, "flatten": _SET}

    @extend_schema(request=ReasonSerializer, responses={200: AccountSerializer}, examples=[_WHY])
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def halt(self, request: Request, pk: str) -> Response:
        """Send nothing for the account but emergency exits that a person asks for; entries are called off."""
        return _switched(request, pk, state=TradingState.HALTED)

    @extend_schema(request=ReasonSerializer, responses={200: AccountSerializer}, examples=[_WHY])
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def resume(self, request: Request, pk: str) -> Response:
        """Let the account do everything again; a flatten that is under way ends."""
        return _switched(request, pk, state=TradingState.ACTIVE)

    @extend_schema(request=ReasonSerializer, responses={200: AccountSerializer}, examples=[_WHY])
    @action(detail=True, methods=["post"], url_path="reduce-only", filter_backends=(), pagination_class=None)
    def reduce_only(self, request: Request, pk: str) -> Response:
        """Take no entries and call off those on their way; exits go on."""
        return _switched(request, pk, state=TradingState.REDUCE_ONLY)

    @extend_schema(
        request=FlattenRequestSerializer,
        responses={202: FlattenSerializer},
        examples=[OpenApiExample("Confirmed", value={"confirm": "paper", "note": "news"}, request_only=True)],
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def flatten(self, request: Request, pk: str) -> Response:
        """Leave everything the account holds at once and take no entries; it goes on until nothing is held."""
        return _flattening(request, account_id=int(pk))


class SwitchViews(viewsets.GenericViewSet[TradingSwitch]):
    """The kill switch over all accounts."""

    queryset = TradingSwitch.objects.all()
    serializer_class = SwitchSerializer
    filter_backends = ()
    pagination_class = None
    needs: ClassVar[Mapping[str, str]] = {"change": _SET, "flatten": _SET}

    @extend_schema(responses={200: SwitchSerializer})
    def retrieve(self, _request: Request) -> Response:
        """Show what all accounts may do at most."""
        return Response(SwitchSerializer(shown_switch()).data)

    @extend_schema(
        request=SwitchChangeSerializer,
        responses={200: SwitchSerializer},
        examples=[OpenApiExample("Stop", value={"state": "halted", "note": "prices are wrong"}, request_only=True)],
    )
    def change(self, request: Request) -> Response:
        """Set what all accounts may do at most; their own states stay as they are."""
        given = validated(SwitchChangeSerializer, request)
        switch = switch_all(
            state=TradingState(given["state"]), note=given["note"], now=datetime.now(UTC), actor=actor_of(request)
        )
        return Response(SwitchSerializer(switch).data)

    @extend_schema(
        request=FlattenRequestSerializer,
        responses={202: FlattenSerializer},
        examples=[OpenApiExample("Confirmed", value={"confirm": EVERYTHING, "note": "news"}, request_only=True)],
    )
    def flatten(self, request: Request) -> Response:
        """Leave everything in all accounts at once and take no entries; it goes on until nothing is held."""
        return _flattening(request, account_id=None)


def _switched(request: Request, pk: str, *, state: TradingState) -> Response:
    note = validated(ReasonSerializer, request)["note"]
    switch_account(account_id=int(pk), state=state, note=note, now=datetime.now(UTC), actor=actor_of(request))
    account = Account.objects.select_related("loss_watch").defer("credentials").get(pk=pk)
    return Response(AccountSerializer(account).data)


def _flattening(request: Request, *, account_id: int | None) -> Response:
    given: dict[str, Any] = validated(FlattenRequestSerializer, request)
    wish = request_flatten(account_id=account_id, **given, now=datetime.now(UTC), actor=actor_of(request))
    return Response(FlattenSerializer(wish).data, status=202)
