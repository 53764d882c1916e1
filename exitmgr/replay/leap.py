"""Finds the next bar in which anything could happen to a position, on floats and with a margin.

A bar that is found may turn out to be uneventful; one that is passed over never is eventful.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exitmgr.replay.bars import Floats, Series
from exitmgr.rules.types import Direction, LevelTrigger, TrailTrigger

#: Far more than the floats of prices and levels can be off, far less than a tick of any market.
MARGIN: Final = 1e-9
_FIRST_CHUNK: Final = 256
_LARGEST_CHUNK: Final = 65_536


def next_eventful(
    series: Series, first: int, *, levels: Iterable[LevelTrigger], trails: Iterable[TrailTrigger],
    due_at: int | None, adverse_first: bool,
) -> int:  # fmt: skip
    """Return the index of the first bar from `first` on that has to be walked, the number of bars if none has.

    `due_at` is when time alone may change something, in microseconds since 1970.
    """
    end = len(series)
    if due_at is not None:
        end = first + int(np.searchsorted(series.starts[first:], due_at, side="left"))
    falls, rises = _nearest(levels)
    watched = [_Trail(trail, adverse_first=adverse_first) for trail in trails if trail.best is not None]
    size = _FIRST_CHUNK
    while first < end:
        chunk = slice(first, min(first + size, end))
        found = _first_in(series, chunk, falls=falls, rises=rises, trails=watched)
        if found is not None:
            return first + found
        first, size = chunk.stop, min(size * 4, _LARGEST_CHUNK)
    return end


def _nearest(levels: Iterable[LevelTrigger]) -> tuple[float | None, float | None]:
    """Return the highest level that a fall crosses and the lowest that a rise does, each moved towards the price."""
    falls: Decimal | None = None
    rises: Decimal | None = None
    for trigger in levels:
        level = trigger.level
        if level is None:
            continue
        if trigger.direction is Direction.FALL:
            falls = level if falls is None else max(falls, level)
        else:
            rises = level if rises is None else min(rises, level)
    return (
        None if falls is None else float(falls) * (1 + MARGIN),
        None if rises is None else float(rises) * (1 - MARGIN),
    )


def _first_in(
    series: Series, chunk: slice, *, falls: float | None, rises: float | None, trails: list[_Trail]
) -> int | None:
    touched: NDArray[np.bool_] | None = None
    if falls is not None:
        touched = series.lows[chunk] <= falls
    if rises is not None:
        risen = series.highs[chunk] >= rises
        touched = risen if touched is None else touched | risen
    for trail in trails:
        given_back = trail.given_back(series, chunk)
        touched = given_back if touched is None else touched | given_back
    if touched is None:
        return None
    index = int(touched.argmax())
    return index if touched[index] else None


class _Trail:
    """A trail's best price while bars are passed over; a short's is followed upside down, as a negative price."""

    def __init__(self, trigger: TrailTrigger, *, adverse_first: bool) -> None:
        self._falls = trigger.direction is Direction.FALL
        self._adverse_first = adverse_first
        sign = 1 if self._falls else -1
        self._best = sign * float(trigger.best or 0)
        pct = float(trigger.offset_pct or 0)
        self._kept = 1 - sign * pct / 100
        self._offset = float(trigger.offset or 0)

    def given_back(self, series: Series, chunk: slice) -> NDArray[np.bool_]:
        """Return which bars of a chunk may give back the offset, and follow the best price through them."""
        if self._falls:
            tops, bottoms = series.highs[chunk], series.lows[chunk]
            opens, closes = series.opens[chunk], series.closes[chunk]
        else:
            tops, bottoms = -series.lows[chunk], -series.highs[chunk]
            opens, closes = -series.opens[chunk], -series.closes[chunk]
        best = np.maximum(np.maximum.accumulate(tops), self._best)
        before = np.empty_like(best)
        before[0] = self._best
        before[1:] = best[:-1]
        self._best = float(best[-1])
        if not self._adverse_first:
            return bottoms <= self._level(best)
        at_the_bottom: NDArray[np.bool_] = bottoms <= self._level(np.maximum(before, opens))
        return at_the_bottom | (closes <= self._level(best))

    def _level(self, best: Floats) -> Floats:
        return best * self._kept - self._offset + MARGIN * np.abs(best)
