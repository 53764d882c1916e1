"""What kind of market it is: trending, ranging or volatile, by published indicators with usual thresholds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Final

from exitmgr.rules.atr import LONGEST_CLOSE, NotMeasurable, require_period, true_range, usable_bars
from positions.values import Candle

ADX_PERIOD: Final = 14
TRENDING_ADX: Final = Decimal(25)
BAND_PERIOD: Final = 20
BAND_DEVIATIONS: Final = Decimal(2)
#: Six months of daily bars.
BULGE_BARS: Final = 125


class Regime(StrEnum):
    """The kinds of market that are told apart."""

    TRENDING = "trending"
    RANGING = "ranging"
    VOLATILE = "volatile"


@dataclass(frozen=True, slots=True)
class Reading:
    """The kind of market and the figures that say so; None where it cannot be read, and why."""

    regime: Regime | None
    why: str
    adx: Decimal | None = None
    bandwidth: Decimal | None = None

    @property
    def value(self) -> Regime | None:
        """Return what was measured, as every measure names it."""
        return self.regime


def read_regime(
    bars: Sequence[Candle],
    *,
    at: datetime,
    bar_seconds: int,
    adx_period: int = ADX_PERIOD,
    trending_adx: Decimal = TRENDING_ADX,
    band_period: int = BAND_PERIOD,
    bulge_bars: int = BULGE_BARS,
    closed_for: timedelta = LONGEST_CLOSE,
) -> Reading:
    """Return the kind of market at a moment.

    Volatile while Bollinger's BandWidth is the widest of `bulge_bars` bars (his "Bulge"), else trending where Wilder's
    Average Directional Index is `trending_adx` or more, else ranging. A bulge comes first: it is where trends break.
    """
    needed = max(2 * adx_period, band_period + bulge_bars - 1)
    try:
        usable = usable_bars(bars, needed=needed, at=at, bar_seconds=bar_seconds, closed_for=closed_for)
    except NotMeasurable as error:
        return Reading(None, str(error))
    adx = wilder_adx(usable, period=adx_period)[-1]
    widths = [width for width in bandwidths(usable[-needed:], period=band_period)[-bulge_bars:] if width is not None]
    width = widths[-1]
    if width == max(widths) and width > min(widths):
        why = f"the BandWidth of {width:.4g} % is the widest of {bulge_bars} bars"
        return Reading(Regime.VOLATILE, why, adx, width)
    if adx is None:
        return Reading(None, f"the last {len(usable)} bars do not move", adx, width)
    regime, word = (Regime.TRENDING, "at or above") if adx >= trending_adx else (Regime.RANGING, "below")
    return Reading(regime, f"the ADX of {adx:.4g} is {word} {trending_adx:f}", adx, width)


def wilder_adx(bars: Sequence[Candle], *, period: int) -> list[Decimal | None]:
    """Return the Average Directional Index at each bar, 0 to 100; None for the first 2 x period - 1 bars.

    Directional movements and true ranges are summed over the first `period` - 1 changes, then each next one is added
    and a `period`-th of the sum taken off; the first index is the mean of the first `period` directional indices.
    Where nothing moves there is no direction, and the index stays as it was.

    Source: J. Welles Wilder, New Concepts in Technical Trading Systems, 1978, chapter IV, with the start of the sums
    that TA-Lib uses (Wilder sums one change more before he takes off).

    :raises ValueError: the period is not above 1.
    """
    if period < 2:
        raise ValueError(f"period must be above 1; got {period}")
    series: list[Decimal | None] = [None] * min(len(bars), 2 * period - 1)
    if len(bars) < 2 * period:
        return series
    up = down = width = Decimal(0)
    first: list[Decimal] = []
    average = Decimal(0)
    for count, (before, bar) in enumerate(pairwise(bars), start=1):
        if count >= period:
            up, down, width = (total - total / period for total in (up, down, width))
        rise, fall = bar.high - before.high, before.low - bar.low
        up += rise if rise > fall and rise > 0 else 0
        down += fall if fall > rise and fall > 0 else 0
        width += true_range(bar, previous_close=before.close)
        if count < period:
            continue
        index = _directional_index(up, down, width)
        if count < 2 * period:
            first.append(index or Decimal(0))
            average = sum(first, Decimal(0)) / period
        elif index is not None:
            average = (average * (period - 1) + index) / period
        if count >= 2 * period - 1:
            series.append(average)
    return series


def _directional_index(up: Decimal, down: Decimal, width: Decimal) -> Decimal | None:
    return 100 * abs(up - down) / (up + down) if width and up + down else None


def bandwidths(
    bars: Sequence[Candle], *, period: int = BAND_PERIOD, deviations: Decimal = BAND_DEVIATIONS
) -> list[Decimal | None]:
    """Return Bollinger's BandWidth at each bar: upper band less lower band, in percent of the middle one.

    The middle is the mean of `period` closes, the bands lie `deviations` population standard deviations from it.

    Source: J. Bollinger, Bollinger on Bollinger Bands, 2001, chapters 8 and 15.

    :raises ValueError: the period is not above 0.
    """
    require_period(period)
    series: list[Decimal | None] = [None] * min(len(bars), period - 1)
    closes = [bar.close for bar in bars]
    for end in range(period, len(closes) + 1):
        some = closes[end - period : end]
        middle = sum(some, Decimal(0)) / period
        variance = sum(((close - middle) ** 2 for close in some), Decimal(0)) / period
        series.append(2 * deviations * variance.sqrt() / middle * 100)
    return series
