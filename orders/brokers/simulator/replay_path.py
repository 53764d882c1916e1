"""Daily bars, and the path of prices inside one; pure and deterministic.

There is no free intraday history in this repository, so a session's path is interpolated from its bar:
a rising bar goes open, low, high, close; a falling one open, high, low, close. It touches all four exactly.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

from .matching import Quote

CENT: Final = Decimal("0.01")
MIN_STEPS: Final = 4
COLUMNS: Final = ("ts", "symbol", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a symbol; ts is the start of its session, RFC 3339 in UTC."""

    ts: str
    symbol: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int

    @property
    def session(self) -> str:
        """Return the date of the bar."""
        return self.ts[:10]


def read_bars(path: Path) -> list[Bar]:
    """Return the bars of a CSV file, oldest first.

    :raises ValueError: the file has other columns, or a row that is not a bar; says which line.
    """
    with path.open(newline="") as lines:
        reader = csv.reader(lines)
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise ValueError(f"{path}: the first line must be {','.join(COLUMNS)}, not {','.join(header)}")
        bars = []
        for number, row in enumerate(reader, 2):
            try:
                ts, symbol, *prices, volume = row
                open_, high, low, close = (Decimal(price) for price in prices)
                date.fromisoformat(ts[:10])
                bar = Bar(ts, symbol, open_, high, low, close, int(volume))
            except (ValueError, ArithmeticError):
                raise ValueError(f"{path}, line {number}: not a bar: {','.join(row)}") from None
            if not bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
                raise ValueError(f"{path}, line {number}: open and close must lie between low and high")
            bars.append(bar)
    return sorted(bars, key=lambda bar: (bar.ts, bar.symbol))


def turning_points(bar: Bar) -> list[Decimal]:
    """Return open, the two extremes in their order, and close."""
    extremes = [bar.low, bar.high] if bar.close >= bar.open else [bar.high, bar.low]
    return [bar.open, *extremes, bar.close]


def interpolate(bar: Bar, *, steps: int) -> list[Decimal]:
    """Return the prices of a session, its first the open and its last the close.

    Each of the three stretches gets steps in proportion to its length, and at least one.

    :raises ValueError: fewer than four steps cannot touch four prices.
    """
    if steps < MIN_STEPS:
        raise ValueError(f"steps must be at least {MIN_STEPS}, not {steps}")
    points = turning_points(bar)
    lengths = [abs(end - start) for start, end in pairwise(points)]
    total, moves = sum(lengths, Decimal(0)), steps - 1
    first = _share(lengths[0], total, moves, keep=2)
    second = _share(lengths[1], lengths[1] + lengths[2], moves - first, keep=1)
    path = [points[0]]
    for (start, end), count in zip(pairwise(points), (first, second, moves - first - second), strict=True):
        path += [_round(start + (end - start) * step / count, start, end) for step in range(1, count)]
        path.append(end)
    return path


def _share(length: Decimal, total: Decimal, moves: int, *, keep: int) -> int:
    """Return how many moves a stretch gets while keep moves are left to the stretches after it."""
    wanted = int(moves * length / total) if total else 1
    return max(1, min(wanted, moves - keep))


def _round(price: Decimal, start: Decimal, end: Decimal) -> Decimal:
    """Return a price in whole cents that does not leave the stretch."""
    low, high = sorted((start, end))
    return min(max(price.quantize(CENT, rounding=ROUND_HALF_UP), low), high)


def quote_around(*, symbol: str, last: Decimal, spread_bps: Decimal, at: str) -> Quote:
    """Return a quote with the last price in its middle; a spread above zero is a cent each side at least."""
    if spread_bps == 0:
        return Quote(symbol, last, last, last, at)
    half = max((last * spread_bps / 20_000).quantize(CENT, rounding=ROUND_HALF_UP), CENT)
    return Quote(symbol, max(last - half, CENT), last + half, last, at)


def combine(bars: list[Decimal], *, symbol: str, ts: str, volume: int) -> Bar:
    """Return the bar of a run of prices."""
    return Bar(ts, symbol, bars[0], max(bars), min(bars), bars[-1], volume)
