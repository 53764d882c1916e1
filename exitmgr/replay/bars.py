"""The bars of one symbol: floats to find a bar quickly, exact numbers to decide on it.

Nothing is ever decided on a float. They only say which bars need not be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from positions.values import Candle

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

_BARS_KEPT: Final = 100_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Column(Protocol):
    """A column of a file: `column[row].as_py()` is what stands there."""

    def __getitem__(self, row: int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, exactly as the file has it; `ts` is its start as it is written there."""

    ts: str
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


@dataclass(frozen=True, kw_only=True)
class Series:
    """The bars of one symbol in the order of their starts.

    `starts` are microseconds since 1970, `rows` the places of the bars in the file's columns. With `told_apart` two
    prices that are equal as floats are equal.
    """

    symbol: str
    starts: Numbers
    opens: Floats
    highs: Floats
    lows: Floats
    closes: Floats
    rows: Numbers
    columns: dict[str, Column]
    told_apart: bool

    def __len__(self) -> int:
        return len(self.starts)

    def bar(self, index: int) -> Bar:
        """Return the exact bar at an index; positions of one symbol often meet in the same ones."""
        bar = self._bars.get(index)
        if bar is None:
            if len(self._bars) >= _BARS_KEPT:
                self._bars.clear()
            bar = self._bars[index] = self._read(index)
        return bar

    def _read(self, index: int) -> Bar:
        row = int(self.rows[index])
        start = moment(int(self.starts[index]))
        written = self.columns["ts"][row].as_py()
        return Bar(
            ts=written if isinstance(written, str) else spell_moment(start),
            start=start,
            open=self._price("open", row),
            high=self._price("high", row),
            low=self._price("low", row),
            close=self._price("close", row),
        )

    def candles(self, first: int, end: int) -> list[Candle]:
        """Return exact bars as plain values; each is read once."""
        known = self._candles
        for index in range(first, end):
            if index not in known:
                row = int(self.rows[index])
                volume = self._price("volume", row) if "volume" in self.columns else Decimal(0)
                known[index] = Candle(
                    moment(int(self.starts[index])),
                    self._price("open", row),
                    self._price("high", row),
                    self._price("low", row),
                    self._price("close", row),
                    volume,
                )
        return [known[index] for index in range(first, end)]

    @cached_property
    def _bars(self) -> dict[int, Bar]:
        return {}

    @cached_property
    def _candles(self) -> dict[int, Candle]:
        return {}

    def first_at(self, at: datetime) -> int:
        """Return the index of the first bar that starts at or after a moment; the number of bars if none does."""
        return int(np.searchsorted(self.starts, microseconds(at), side="left"))

    def highest(self, first: int, end: int) -> Decimal:
        """Return the exact highest price of the bars from `first` up to, not including, `end`."""
        return self._extreme("high", self.highs[first:end], first, best=max)

    def lowest(self, first: int, end: int) -> Decimal:
        """Return the exact lowest price of the bars from `first` up to, not including, `end`."""
        return self._extreme("low", self.lows[first:end], first, best=min)

    @cached_property
    def bar_seconds(self) -> int | None:
        """Return how long a bar is: the smallest distance between two starts, None for a single bar."""
        return None if len(self) < 2 else max(1, int(np.diff(self.starts).min()) // 1_000_000)

    def _extreme(self, column: str, prices: Floats, first: int, *, best: Any) -> Decimal:
        index = int(prices.argmax() if best is max else prices.argmin())
        if self.told_apart:
            return self._price(column, int(self.rows[first + index]))
        equals = np.flatnonzero(prices == prices[index])
        return Decimal(best(self._price(column, int(self.rows[first + other])) for other in equals))

    def _price(self, column: str, row: int) -> Decimal:
        return exact(self.columns[column][row].as_py())


def exact(written: object) -> Decimal:
    """Return the number a file has: a float is the shortest decimal that reads back as it."""
    return written if isinstance(written, Decimal) else Decimal(str(written))


def moment(since_1970: int) -> datetime:
    """Return the time so many microseconds after the start of 1970."""
    return _EPOCH + timedelta(microseconds=since_1970)


def microseconds(at: datetime) -> int:
    """Return the microseconds from the start of 1970 to a time."""
    return (at - _EPOCH) // _MICROSECOND


def spell_moment(at: datetime) -> str:
    """Return a time in ISO 8601, in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
