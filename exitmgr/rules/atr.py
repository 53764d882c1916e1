"""How far a price usually moves: Wilder's Average True Range, and which bars may be measured at all. Pure.

Whatever cannot be measured is a reason in words, never a guess: the caller has a fallback and says that it used it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

from exitmgr.rules.compile import Range
from positions.values import Candle

#: The newest bars any measure looks at, so that two callers with more history than that agree: what the longest
#: period needs. At a period of 14 the weight of all older bars together is below 1E-31, past a Decimal's digits.
MOST_BARS: Final = 1_001
#: A newest bar that ended longer ago than this many bar lengths says nothing about now ...
STALE_BARS: Final = 5
#: ... unless the venue may just have been closed: Thursday's close to Tuesday's end over Easter is the longest usual.
LONGEST_CLOSE: Final = timedelta(days=5)


class NotMeasurable(Exception):
    """A measure cannot be taken; the message says why, as the end of a sentence."""


def true_range(bar: Candle, *, previous_close: Decimal) -> Decimal:
    """Return the widest of high - low, high - previous close and previous close - low, in price units."""
    return max(bar.high, previous_close) - min(bar.low, previous_close)


def wilder_atr(bars: Sequence[Candle], *, period: int) -> list[Decimal | None]:
    """Return the Average True Range at each bar, in price units; None where there are not yet enough bars.

    The first bar has no true range, as no close comes before it. The first average is the mean of the first `period`
    true ranges, each next one (average x (period - 1) + true range) / period.

    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978, chapter III.

    :raises ValueError: the period is not above 0.
    """
    require_period(period)
    series: list[Decimal | None] = [None] * min(len(bars), period)
    if len(bars) <= period:
        return series
    ranges = [true_range(bar, previous_close=before.close) for before, bar in pairwise(bars)]
    average = sum(ranges[:period], Decimal(0)) / period
    series.append(average)
    for width in ranges[period:]:
        average = (average * (period - 1) + width) / period
        series.append(average)
    return series


def measure_range(
    bars: Sequence[Candle], *, period: int, at: datetime, bar_seconds: int, closed_for: timedelta = LONGEST_CLOSE
) -> Range:
    """Return the Average True Range of the bars that were finished at a moment, or why there is none.

    `bars` come oldest first and are `bar_seconds` long; `closed_for` is how long the venue may have been closed.
    """
    try:
        usable = usable_bars(bars, needed=period + 1, at=at, bar_seconds=bar_seconds, closed_for=closed_for)
    except NotMeasurable as error:
        return Range(None, str(error))
    value = wilder_atr(usable, period=period)[-1]
    return Range(value) if value else Range(None, f"the last {len(usable)} bars do not move")


def usable_bars(
    bars: Sequence[Candle], *, needed: int, at: datetime, bar_seconds: int, closed_for: timedelta = LONGEST_CLOSE
) -> list[Candle]:
    """Return the newest bars that were finished at a moment, oldest first, `MOST_BARS` at most.

    :raises NotMeasurable: there are fewer than `needed`, the newest is too old, or one of them is no bar.
    """
    length = timedelta(seconds=bar_seconds)
    finished = bisect_right(bars, at - length, key=lambda bar: bar.start)
    newest = list(bars[max(0, finished - MOST_BARS) : finished])
    if not newest:
        raise NotMeasurable("no bars are known")
    if len(newest) < needed:
        raise NotMeasurable(f"only {len(newest)} finished bars are known and {needed} are needed")
    for bar in newest:
        if bar.flaw:
            raise NotMeasurable(f"the bar of {bar.start:%Y-%m-%d %H:%M} {bar.flaw}")
    if any(bar.start <= before.start for before, bar in pairwise(newest)):
        raise NotMeasurable("the bars are not in the order of their times")
    ended_at = newest[-1].start + length
    if at - ended_at > max(STALE_BARS * length, closed_for):
        raise NotMeasurable(f"the newest bar is too old, it ended {ended_at:%Y-%m-%d %H:%M} UTC")
    return newest


def require_period(period: int) -> None:
    """Refuse a period that is no number of bars.

    :raises ValueError: it is not above 0.
    """
    if period < 1:
        raise ValueError(f"period must be above 0; got {period}")
