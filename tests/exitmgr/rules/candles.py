"""Bars for tests of the measures: made by hand, made by hypothesis, and twelve years of real ones."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from positions.values import Candle

D = Decimal
DAY = 86_400
FIRST = datetime(2026, 3, 2, tzinfo=UTC)


def candle(day: int, open_: Any, high: Any, low: Any, close: Any) -> Candle:
    """Return the bar of a day after the first one."""
    return Candle(FIRST + timedelta(days=day), *(D(str(price)) for price in (open_, high, low, close)))


def closing_at(*closes: Any) -> list[Candle]:
    """Return daily bars that do not move within the day."""
    return [candle(day, close, close, close, close) for day, close in enumerate(closes)]


def end_of(bars: Sequence[Candle]) -> datetime:
    """Return the moment the last daily bar is finished."""
    return bars[-1].start + timedelta(seconds=DAY)


def column(bars: Sequence[Candle], name: str) -> Any:
    """Return one column as the numbers TA-Lib reads."""
    return np.array([float(getattr(bar, name)) for bar in bars])


@lru_cache
def real_bars(symbol: str) -> tuple[Candle, ...]:
    """Return the daily bars of a symbol from 2000 (or its listing) to 2013."""
    from bokeh_sampledata import package_path

    with gzip.open(package_path("stocks.csv.gz"), "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row[0] == symbol]
    return tuple(
        Candle(datetime.fromisoformat(f"{day}T00:00:00+00:00"), *map(D, prices)) for _, day, *prices, _ in rows
    )


_cents = st.integers(min_value=1, max_value=10_000_00)


@st.composite
def candles(draw: st.DrawFn, *, fewest: int, most: int = 80) -> list[Candle]:
    """Draw daily bars whose prices are whole cents."""
    quadruples = draw(st.lists(st.tuples(_cents, _cents, _cents, _cents), min_size=fewest, max_size=most))
    bars = []
    for day, cents in enumerate(quadruples):
        low, one, other, high = (D(price) / 100 for price in sorted(cents))
        open_, close = (one, other) if cents[0] % 2 else (other, one)
        bars.append(Candle(FIRST + timedelta(days=day), open_, high, low, close))
    return bars
