"""What people and programs read about positions: their worth now, their extremes, when they were judged last."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from django.db.models import (
    Case,
    DateTimeField,
    Exists,
    Expression,
    ExpressionWrapper,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.aggregates import Aggregate
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest, Least, TruncMinute

from positions.fields import NumberField
from positions.models import Bar, Instrument, Position
from positions.states import PositionStatus
from positions.values import Side

#: Symbols followed at once; those with open positions come first.
MOST_SYMBOLS: Final = 5_000


def followed_symbols() -> frozenset[str]:
    """Return the symbols whose prices are wanted: all that are held, then what may be traded."""
    held = Exists(Position.objects.exclude(status=PositionStatus.CLOSED).filter(instrument=OuterRef("pk")))
    instruments = Instrument.objects.annotate(held=held).filter(Q(held=True) | Q(tradable=True))
    return frozenset(instruments.order_by("-held", "pk").values_list("symbol", flat=True)[:MOST_SYMBOLS])


def open_positions() -> QuerySet[Position]:
    """Return the positions that are not closed, each with its account, instrument and worth."""
    positions = Position.objects.exclude(status=PositionStatus.CLOSED)
    return with_worth(positions).select_related("account", "instrument")


def with_worth(positions: QuerySet[Position]) -> QuerySet[Position]:
    """Add what each position could be left at now and what came of it so far.

    `price` (bid for longs, ask for shorts), `priced_at`, `unrealized_pnl` (quote currency, before fees),
    `unrealized_pct` (of the entry price), `evaluated_at` (last scan of the instrument), `highest` and `lowest` (last
    price since the entry). None where the instrument has no price yet; the extremes then are the entry price.
    """
    entry = F("entry_cost") / F("quantity")
    gain = F("side") * (F("price") - entry)
    return positions.annotate(
        price=Case(
            When(side=Side.LONG, then=F("instrument__quote__bid")),
            default=F("instrument__quote__ask"),
            output_field=NumberField(),
        ),
        priced_at=F("instrument__quote__source_at"),
        evaluated_at=F("instrument__quote__scanned_at"),
        unrealized_pnl=_number(gain * (F("quantity") - F("exited"))),
        unrealized_pct=_number(gain / entry * Value(Decimal(100), output_field=NumberField())),
        highest=_extreme(Greatest, Max("high"), accumulator="bar_high"),
        lowest=_extreme(Least, Min("low"), accumulator="bar_low"),
    )


def _number(expression: Combinable) -> Expression:
    return ExpressionWrapper(expression, output_field=NumberField())


def _extreme(pick: type[Greatest | Least], of_bars: Aggregate, *, accumulator: str) -> Expression:
    """Return the extreme of what `positions.bars.peak_and_trough` looks at, for positions that are open.

    The database's greatest() and least() leave out what is null.
    """
    bars = (
        Bar.objects.filter(instrument=OuterRef("instrument"), seconds=60, start__gte=OuterRef("opened_at"))
        .order_by()
        .values("instrument")
        .annotate(extreme=of_bars)
        .values("extreme")
    )
    minute = TruncMinute("instrument__quote__source_at", output_field=DateTimeField())
    return pick(
        _number(F("entry_cost") / F("quantity")),
        Subquery(bars, output_field=NumberField()),
        Case(
            When(instrument__quote__source_at__gte=F("opened_at"), then=F("instrument__quote__last")),
            output_field=NumberField(),
        ),
        Case(When(opened_at__lte=minute, then=F(f"instrument__quote__{accumulator}")), output_field=NumberField()),
        output_field=NumberField(),
    )
