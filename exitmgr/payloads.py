"""What the doors of this room read and write: positions with their plan, entries, exits, instruments."""

from __future__ import annotations

import uuid
from typing import Any, cast

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.validators import UniqueValidator

from exitmgr.bracket_payloads import BracketBriefSerializer, BracketSerializer
from exitmgr.models import Bracket
from exitmgr.queries import LIVE_ORDERS
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan
from orders.api import OrderSerializer
from positions.api import PositionSerializer
from positions.calendars import UnknownCalendar, require_calendar
from positions.models import Account, Instrument, Position
from positions.values import AssetClass, Side
from positions.wire import Moment, Number, Strict, Word, shown, spell

_LONGEST_NOTE = 500
_LONGEST_KEY = 64
_PLAN = "Left out: the one the configuration comes to."
_SETTINGS = (
    "Configuration of this position alone: parts of exit_manager, trade_exit, risk_reward, over those of its symbol."
)


class PositionWithPlanSerializer(PositionSerializer):
    """A position, its worth and its plan in short."""

    bracket = serializers.SerializerMethodField()

    class Meta(PositionSerializer.Meta):
        fields: tuple[str, ...] = (*PositionSerializer.Meta.fields, "bracket")
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(BracketBriefSerializer(allow_null=True))
    def get_bracket(self, position: Position) -> Any:
        """Return the latest bracket in short."""
        latest = _latest_bracket(position)
        return BracketBriefSerializer(latest).data if latest else None


class PositionDetailSerializer(PositionSerializer):
    """A position, its worth, its plan with every trigger, and the orders that may still trade."""

    peak = serializers.SerializerMethodField()
    trough = serializers.SerializerMethodField()
    bracket = serializers.SerializerMethodField()
    live_orders = serializers.SerializerMethodField()

    class Meta(PositionSerializer.Meta):
        fields: tuple[str, ...] = (*PositionSerializer.Meta.fields, "peak", "trough", "bracket", "live_orders")
        read_only_fields: tuple[str, ...] = fields

    @extend_schema_field(Number())
    def get_peak(self, position: Any) -> str:
        """Return the highest price since the entry; of a closed position the one until then."""
        return spell(position.highest if position.peak is None else position.peak, places=8)

    @extend_schema_field(Number())
    def get_trough(self, position: Any) -> str:
        """Return the lowest price since the entry; of a closed position the one until then."""
        return spell(position.lowest if position.trough is None else position.trough, places=8)

    @extend_schema_field(BracketSerializer(allow_null=True))
    def get_bracket(self, position: Position) -> Any:
        """Return the latest bracket with its triggers."""
        latest = _latest_bracket(position)
        return BracketSerializer(latest).data if latest else None

    @extend_schema_field(OrderSerializer(many=True))
    def get_live_orders(self, position: Position) -> Any:
        """Return the orders that may still trade, the most urgent first."""
        return OrderSerializer(getattr(position, LIVE_ORDERS), many=True).data


def _latest_bracket(position: Position) -> Bracket | None:
    return next(iter(position.brackets.all()), None)


@extend_schema_field(Plan)  # type: ignore[arg-type]  # an extension describes pydantic's models
class PlanField(serializers.Field[Plan, Any, Any, Any]):
    """An exit plan; each mistake is reported at its own path."""

    def to_internal_value(self, data: Any) -> Plan:
        """Return the plan.

        :raises ValidationError: with every mistake.
        """
        try:
            return parse_plan(data)
        except InvalidPlan as error:
            raise refused_plan(error) from None


def refused_plan(error: InvalidPlan) -> serializers.ValidationError:
    """Return a plan's mistakes, each at its own path."""
    return serializers.ValidationError(
        {"non_field_errors" if path == "plan" else path: [text] for path, text in error.problems.items()}
    )


@extend_schema_field({"type": "string", "description": "The account's name."})
class AccountField(serializers.Field[Account, Any, Any, Any]):
    """An account by its name."""

    def to_internal_value(self, data: Any) -> Account:
        """Return the account.

        :raises ValidationError: there is none of that name.
        """
        accounts = Account.objects.defer("credentials")
        found = accounts.filter(name=data).first() if isinstance(data, str) and "\0" not in data else None
        if found is None:
            names = ", ".join(Account.objects.order_by("name").values_list("name", flat=True)[:8])
            raise serializers.ValidationError(f"{shown(data)} is unknown; known are {names or 'none yet'}")
        return found


class SideField(Word):
    """Long or short."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__([side.word for side in Side], **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        """Return the side.

        :raises ValidationError: it is neither.
        """
        return Side.parse(super().to_internal_value(data))


class RegistrationSerializer(Strict):
    """A holding that exists at the broker and is to be looked after."""

    account = AccountField()
    symbol = serializers.CharField(max_length=32)
    side = SideField()
    quantity = Number(above=0)
    entry_price = Number(above=0)
    opened_at = Moment(required=False, help_text="With its offset; now when left out.")
    strategy = serializers.CharField(required=False, allow_blank=True, max_length=64)
    plan = PlanField(required=False, allow_null=True, help_text=_PLAN)
    settings = serializers.DictField(required=False, help_text=_SETTINGS)


class EntrySerializer(Strict):
    """A position to be entered."""

    account = AccountField()
    symbol = serializers.CharField(max_length=32)
    side = SideField()
    quantity = Number(above=0)
    limit_price = Number(above=0, required=False, allow_null=True, help_text="A market order when left out.")
    strategy = serializers.CharField(required=False, allow_blank=True, max_length=64)
    request_id = serializers.CharField(
        required=False, max_length=_LONGEST_KEY, help_text="Names the request, as the Idempotency-Key header does."
    )
    allow_duplicate = serializers.BooleanField(
        required=False, default=False, help_text="Also when one just like it was asked for a moment ago."
    )
    plan = PlanField(required=False, allow_null=True, help_text=_PLAN)
    settings = serializers.DictField(required=False, help_text=_SETTINGS)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Name the request: by the field, by the header, else by a new id.

        :raises ValidationError: field and header name it differently, or the header is no name.
        """
        header = self.context.get("idempotency_key")
        if header is not None and not (0 < len(header) <= _LONGEST_KEY and header.isascii() and header.isprintable()):
            raise serializers.ValidationError(
                {"Idempotency-Key": f"must be 1 to {_LONGEST_KEY} printable ASCII characters"}
            )
        if header is not None and attrs.setdefault("request_id", header) != header:
            raise serializers.ValidationError({"request_id": "differs from the Idempotency-Key header; give only one"})
        attrs.setdefault("request_id", str(uuid.uuid4()))
        return attrs


class NoteSerializer(Strict):
    """A person's reason."""

    note = serializers.CharField(
        required=False, allow_blank=True, max_length=_LONGEST_NOTE, help_text="Why; kept in the journal."
    )


class ExitSerializer(NoteSerializer):
    """How much to leave."""

    percentage = Number(above=0, at_most=100, required=False, help_text="Of what remains; 100 when left out.")


class InstrumentChanges(Strict):
    """What may be changed about an instrument."""

    asset_class = Word(AssetClass, required=False)
    tick = Number(above=0, required=False, help_text="Smallest price step.")
    lot = Number(above=0, required=False, help_text="Smallest quantity step.")
    min_notional = Number(at_least=0, required=False)
    dust = Number(at_least=0, required=False, help_text="A remainder below this counts as closed.")
    collar_pct = Number(above=0, required=False)
    confirm_seconds = serializers.IntegerField(
        min_value=1, max_value=86_400, required=False, allow_null=True,
        help_text="A print outside the collar that stands so long is believed without a second one.",
    )  # fmt: skip
    max_age_seconds = serializers.IntegerField(
        min_value=1, max_value=86_400, required=False, help_text="An older price decides nothing."
    )
    max_spread_pct = Number(
        above=0, required=False, allow_null=True, help_text="A wider spread, in percent of the mid, is not believed."
    )
    calendar = serializers.CharField(required=False, max_length=16, help_text="Exchange calendar; 24/7 never closes.")
    shortable = serializers.BooleanField(required=False)
    tradable = serializers.BooleanField(required=False)

    def validate_calendar(self, calendar: str) -> str:
        """Return the calendar.

        :raises ValidationError: there is none of that name.
        """
        try:
            return require_calendar(calendar)
        except UnknownCalendar as error:
            raise serializers.ValidationError(str(error)) from None


class NewInstrument(InstrumentChanges):
    """An instrument to be made known; what is left out gets its default."""

    symbol = serializers.RegexField(
        r"^[A-Z0-9][A-Z0-9./_-]*$",
        max_length=32,
        error_messages={"invalid": "must be capital letters, digits and any of . / _ -, as in BRK.B or BTC/USD"},
        validators=[UniqueValidator(Instrument.objects.all(), message="is known already; change it instead")],
    )


def validated(form_class: type[Strict], request: Request) -> dict[str, Any]:
    """Return the request's body as the form reads it.

    :raises ValidationError: with every mistake in it.
    """
    form = form_class(data=request.data)
    form.is_valid(raise_exception=True)
    return cast(dict[str, Any], form.validated_data)
