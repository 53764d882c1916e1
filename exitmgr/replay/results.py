"""What came of a replay: the exits of each position, what is still held, and how both are written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any, Final

from exitmgr.replay.holdings import Holding

#: Places of a percentage, which is a quotient and has to be rounded; every other figure is exact.
PCT_PLACES: Final = Decimal("1e-10")
_EXACT: Final = 80
ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """One exit; `at` is the index of its bar among its symbol's, `ts` that bar's start as the file has it.

    `trigger_price` is the level that was crossed, None where time decided. P&L is net of fees.
    """

    reason: str
    at: int
    ts: str
    trigger_price: Decimal | None
    exit_price: Decimal
    quantity: Decimal
    realized_pnl: Decimal
    realized_pct: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one position.

    It saw the bars from index `first` up to, not including, `end`. `last_price` is the close of the last one, None if
    it saw none; `open_pnl` what the rest would have brought there, before fees.
    """

    holding: Holding
    exits: tuple[Exit, ...]
    remaining: Decimal
    first: int
    end: int
    last_price: Decimal | None
    open_pnl: Decimal
    stop_price: Decimal | None
    target_prices: tuple[Decimal, ...]
    notes: tuple[str, ...]

    @property
    def realized_pnl(self) -> Decimal:
        """Return the sum over the exits."""
        return _sum(exit_.realized_pnl for exit_ in self.exits)

    @property
    def total_pnl(self) -> Decimal:
        """Return what was realised and what the rest stands at."""
        return _sum((self.realized_pnl, self.open_pnl))

    @property
    def risk_multiple(self) -> Decimal | None:
        """Return the P&L as a multiple of what the stop put at risk (R), None without a stop."""
        if self.stop_price is None:
            return None
        risk = abs(self.holding.entry_price - self.stop_price) * self.holding.quantity
        return self.total_pnl / risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The figures of many positions; averages and rates are None where there is nothing to measure."""

    positions: int
    closed: int
    exits: int
    realized_pnl: Decimal
    open_pnl: Decimal
    win_rate_pct: Decimal | None
    average_r: Decimal | None
    worst_pnl: Decimal | None
    worst_position: str | int | None
    by_reason: dict[str, tuple[int, Decimal]]


def totals_of(outcomes: Iterable[Outcome]) -> Totals:
    """Return the totals; a win is a closed position that earned something after fees."""
    known = list(outcomes)
    closed = [outcome for outcome in known if not outcome.remaining]
    wins = sum(outcome.realized_pnl > 0 for outcome in closed)
    multiples = [multiple for outcome in known if (multiple := outcome.risk_multiple) is not None]
    worst = min(known, key=lambda outcome: outcome.total_pnl, default=None)
    exits = [exit_ for outcome in known for exit_ in outcome.exits]
    counts = Counter(exit_.reason for exit_ in exits)
    earned = {
        reason: _sum(exit_.realized_pnl for exit_ in exits if exit_.reason == reason) for reason in sorted(counts)
    }
    return Totals(
        positions=len(known),
        closed=len(closed),
        exits=len(exits),
        realized_pnl=_sum(outcome.realized_pnl for outcome in known),
        open_pnl=_sum(outcome.open_pnl for outcome in known),
        win_rate_pct=rounded(Decimal(100 * wins) / len(closed)) if closed else None,
        average_r=rounded(_sum(multiples) / len(multiples)) if multiples else None,
        worst_pnl=worst.total_pnl if worst is not None else None,
        worst_position=worst.holding.id if worst is not None else None,
        by_reason={reason: (counts[reason], earned[reason]) for reason in earned},
    )


def exits_as_json(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield each exit of a position as JSON values; numbers are exact strings."""
    for exit_ in outcome.exits:
        yield {
            "position": outcome.holding.id,
            "reason": str(exit_.reason),
            "ts": exit_.ts,
            "trigger_price": spell_or_none(exit_.trigger_price),
            "exit_price": spell(exit_.exit_price),
            "qty": spell(exit_.quantity),
            "realized_pnl": spell(exit_.realized_pnl),
            "realized_pct": spell(exit_.realized_pct),
        }


def totals_as_json(totals: Totals) -> dict[str, Any]:
    """Return the totals as JSON values; numbers are exact strings, counts are numbers."""
    return {
        "positions": totals.positions,
        "closed": totals.closed,
        "exits": totals.exits,
        "realized_pnl": spell(totals.realized_pnl),
        "open_pnl": spell(totals.open_pnl),
        "win_rate_pct": spell_or_none(totals.win_rate_pct),
        "average_r": spell_or_none(totals.average_r),
        "worst_pnl": spell_or_none(totals.worst_pnl),
        "worst_position": totals.worst_position,
        "by_reason": {
            reason: {"exits": count, "realized_pnl": spell(earned)}
            for reason, (count, earned) in totals.by_reason.items()
        },
    }


def realize(holding: Holding, *, price: Decimal, quantity: Decimal, fee_rate: Decimal) -> tuple[Decimal, Decimal]:
    """Return the P&L of leaving a quantity at a price, and that in percent of what it cost.

    `fee_rate` is the part of the traded value that is paid, on the way in and on the way out.
    """
    with localcontext(prec=_EXACT):
        cost, value = holding.entry_price * quantity, price * quantity
        earned = holding.side * (value - cost) - fee_rate * (value + cost)
        return earned, rounded(earned / cost * 100)


def spell(number: Decimal) -> str:
    """Return a number as a plain string, without exponent and without trailing zeros."""
    if not number:
        return "0"
    with localcontext(prec=_EXACT):
        return f"{number.normalize():f}"


def spell_or_none(number: Decimal | None) -> str | None:
    """Return a number as a plain string, None for None."""
    return None if number is None else spell(number)


def rounded(number: Decimal, *, to: Decimal = PCT_PLACES) -> Decimal:
    """Return a number rounded half to even."""
    with localcontext(prec=_EXACT):
        return number.quantize(to, rounding=ROUND_HALF_EVEN)


def _sum(numbers: Iterable[Decimal]) -> Decimal:
    with localcontext(prec=_EXACT):
        return sum(numbers, ZERO)
