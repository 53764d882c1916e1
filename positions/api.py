"""Doors to what is held and what it is worth: accounts, instruments, quotes, bars, and the rows of positions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, inline_serializer
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from positions.models import Account, Bar, Instrument, LossWatch, Position, Quote
from positions.pushed_quotes import MOST_QUOTES, read_quotes
from positions.quotes import write_quotes
from positions.states import PositionStatus
from positions.values import Side
from positions.wire import Number, Row, Strict, spell

#: Ids fit a bigint; anything longer is no id of ours.
ID_PATTERN = r"\d{1,18}"


class LossWatchSerializer(Row):
    """What an account's losses are measured from, and the limit it has hit; a breach lasts until a person resets it."""

    class Meta:
        model = LossWatch
        fields: tuple[str, ...] = (
            "since", "pnl", "noted_at", "day", "day_start_pnl", "best_pnl", "hit_at", "reason", "action",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class AccountSerializer(Row):
    """An account, without its credentials; `loss_watch` is null while it has no loss limit."""

    loss_watch = LossWatchSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Account
        fields: tuple[str, ...] = (
            "id", "name", "broker", "base_url", "trading_state", "max_order_notional", "max_open_positions",
            "max_daily_loss", "max_drawdown", "loss_action", "loss_watch", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class InstrumentSerializer(Row):
    """An instrument with the increments its venue trades it in."""

    class Meta:
        model = Instrument
        fields: tuple[str, ...] = (
            "id", "symbol", "asset_class", "tick", "lot", "min_notional", "dust", "collar_pct",
            "confirm_seconds", "max_age_seconds", "max_spread_pct", "calendar", "shortable",
            "tradable",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class QuoteSerializer(Row):
    """The latest price of an instrument."""

    symbol = serializers.CharField(source="instrument.symbol", read_only=True)

    class Meta:
        model = Quote
        fields: tuple[str, ...] = (
            "symbol",
            "bid",
            "ask",
            "last",
            "seq",
            "source",
            "source_at",
            "received_at",
            "scanned_at",
        )
        read_only_fields: tuple[str, ...] = fields


class BarSerializer(Row):
    """Open, high, low, close and volume of a span."""

    symbol = serializers.CharField(source="instrument.symbol", read_only=True)

    class Meta:
        model = Bar
        fields: tuple[str, ...] = ("symbol", "start", "seconds", "open", "high", "low", "close", "volume")
        read_only_fields: tuple[str, ...] = fields


class PositionSerializer(Row):
    """A position and what it is worth now; `price` is the bid for a long, the ask for a short."""

    account = serializers.CharField(source="account.name", read_only=True)
    symbol = serializers.CharField(source="instrument.symbol", read_only=True)
    side = serializers.SerializerMethodField()
    average_entry = Number(read_only=True, places=8)
    remaining = Number(read_only=True)
    available = Number(read_only=True)
    price = Number(read_only=True, allow_null=True)
    priced_at = serializers.DateTimeField(read_only=True, allow_null=True)
    unrealized_pnl = Number(read_only=True, allow_null=True, places=8)
    unrealized_pct = serializers.SerializerMethodField()
    evaluated_at = serializers.DateTimeField(read_only=True, allow_null=True)

    class Meta:
        model = Position
        fields: tuple[str, ...] = (
            "id", "account", "symbol", "side", "strategy", "status", "quantity", "exited", "remaining", "reserved",
            "available", "average_entry", "entry_cost", "exit_value", "fees", "realized_pnl", "price", "priced_at",
            "unrealized_pnl", "unrealized_pct", "evaluated_at", "exit_reason", "last_exit_price", "last_exit_at",
            "opened_at", "closed_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(Number(allow_null=True))
    def get_unrealized_pct(self, position: Any) -> str | None:
        """Return the gain in percent of the entry price; of a closed position there is none any more."""
        if position.status == PositionStatus.CLOSED or position.unrealized_pct is None:
            return None
        return spell(position.unrealized_pct, places=4)

    def get_side(self, position: Position) -> str:
        """Return "long" or "short"."""
        return Side(position.side).word


class PositionFilter(filters.FilterSet):
    """Which positions to list."""

    status = filters.MultipleChoiceFilter(choices=[(str(status), str(status)) for status in PositionStatus])
    symbol = filters.CharFilter(field_name="instrument__symbol")
    account = filters.CharFilter(field_name="account__name")
    strategy = filters.CharFilter()
    side = filters.TypedChoiceFilter(
        choices=[(side.word, side.word) for side in Side], coerce=lambda word: Side.parse(word).value
    )


class BarFilter(filters.FilterSet):
    """Which bars to list; `since` and `until` are times of their start."""

    symbol = filters.CharFilter(field_name="instrument__symbol", required=True)
    seconds = filters.NumberFilter(required=True, min_value=1, max_value=86_400 * 7)
    since = filters.IsoDateTimeFilter(field_name="start", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="start", lookup_expr="lt")


class SymbolFilter(filters.FilterSet):
    """Which quotes to list."""

    symbol = filters.CharFilter(field_name="instrument__symbol")


class AccountViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Account]):
    """Accounts at brokers; credentials never leave the database through here."""

    queryset = Account.objects.select_related("loss_watch").defer("credentials")
    serializer_class = AccountSerializer
    lookup_value_regex = ID_PATTERN


class InstrumentViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Instrument]):
    """What can be held."""

    queryset = Instrument.objects.all()
    serializer_class: type[serializers.BaseSerializer[Any]] = InstrumentSerializer
    filterset_fields = ("symbol", "asset_class", "tradable")
    ordering_fields = ("symbol",)
    lookup_value_regex = ID_PATTERN


class BarViews(mixins.ListModelMixin, viewsets.GenericViewSet[Bar]):
    """Bars of one instrument and span, the latest first."""

    queryset = Bar.objects.select_related("instrument")
    serializer_class = BarSerializer
    filterset_class = BarFilter
    ordering_fields = ("start",)
    ordering = ("-start",)


class _QuotesSerializer(Strict):
    """A batch of prices."""

    quotes = serializers.ListField(min_length=1, max_length=MOST_QUOTES)


_PUSHED_QUOTE = inline_serializer(
    "PushedQuote",
    {
        "symbol": serializers.CharField(),
        "bid": Number(required=False),
        "ask": Number(required=False),
        "last": Number(required=False),
        "at": serializers.DateTimeField(required=False, help_text="With its offset; now when left out."),
    },
)
_OUTCOME = inline_serializer(
    "PushedQuotesOutcome",
    {
        "accepted": serializers.ListField(child=serializers.CharField()),
        "refused": inline_serializer(
            "RefusedQuote",
            {
                "symbol": serializers.CharField(),
                "reason": serializers.CharField(),
                "count": serializers.IntegerField(),
            },
            many=True,
        ),
        "unknown": serializers.ListField(child=serializers.CharField()),
        "malformed": inline_serializer(
            "MalformedQuote", {"field": serializers.CharField(), "message": serializers.CharField()}, many=True
        ),
    },
)


class QuoteViews(mixins.ListModelMixin, viewsets.GenericViewSet[Quote]):
    """The latest prices, and the door to push new ones through."""

    queryset = Quote.objects.select_related("instrument")
    serializer_class = QuoteSerializer
    filterset_class = SymbolFilter
    ordering = ("pk",)

    def get_queryset(self) -> QuerySet[Quote]:
        """Return the quotes with their instruments."""
        return Quote.objects.select_related("instrument")

    @extend_schema(
        request=inline_serializer(
            "PushedQuotes", {"quotes": serializers.ListField(child=_PUSHED_QUOTE, min_length=1, max_length=MOST_QUOTES)}
        ),
        responses={200: _OUTCOME},
        examples=[
            OpenApiExample(
                "Two prices",
                value={
                    "quotes": [{"symbol": "AAPL", "bid": "189.20", "ask": "189.22"}, {"symbol": "IBM", "last": "241"}]
                },
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        """Push prices; what is believed counts at once, everything else is named with its reason."""
        form = _QuotesSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        now = datetime.now(UTC)
        ticks, malformed = read_quotes(form.validated_data["quotes"], now=now)
        if not ticks:
            raise serializers.ValidationError(malformed)
        source = f"api:{request.user.get_username()}"[: Quote._meta.get_field("source").max_length]
        outcome = write_quotes(ticks=ticks, source=source, now=now)
        return Response(
            {
                "accepted": sorted(outcome.accepted_symbols),
                "refused": [
                    {"symbol": symbol, "reason": reason, "count": count}
                    for (symbol, reason), count in sorted(outcome.refused.items())
                ],
                "unknown": sorted(outcome.unknown_symbols),
                "malformed": [{"field": path, "message": text} for path, text in malformed.items()],
            }
        )
