"""Kinds of market: the indicators against TA-Lib, the thresholds, and the reasons for knowing nothing."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.regime import Reading, Regime, bandwidths, read_regime, wilder_adx
from positions.values import Candle
from tests.exitmgr.rules.candles import DAY, D, candle, candles, closing_at, column, end_of, real_bars


def assert_adx_like_talib(bars: list[Candle], period: int) -> None:
    # an index of shares is the same in any unit; in whole ones two equal moves are equal to a float as well
    high, low, close = (np.round(column(bars, name) * 10_000) for name in ("high", "low", "close"))
    theirs = talib.ADX(high, low, close, timeperiod=period)
    ours = wilder_adx(bars, period=period)
    assert [value is None for value in ours] == np.isnan(theirs).tolist()
    values = [(float(our), their) for our, their in zip(ours, theirs, strict=True) if our is not None]
    assert all(our == pytest.approx(their, rel=1e-9, abs=1e-9) for our, their in values)


@pytest.mark.parametrize(("symbol", "period"), [("AAPL", 14), ("IBM", 7), ("MSFT", 2)])
def test_real_bars_have_the_adx_of_talib(symbol: str, period: int) -> None:
    assert_adx_like_talib(list(real_bars(symbol)), period)


@given(candles(fewest=4, most=60), st.integers(min_value=2, max_value=14))
def test_any_bars_have_the_adx_of_talib(bars: list[Candle], period: int) -> None:
    assert_adx_like_talib(bars, period)


def test_a_period_of_one_has_no_direction() -> None:
    with pytest.raises(ValueError, match="period must be above 1; got 1"):
        wilder_adx(closing_at(1, 2, 3), period=1)


def test_real_bars_have_the_bandwidth_of_talib() -> None:
    bars = list(real_bars("AAPL"))[-400:]
    upper, middle, lower = talib.BBANDS(column(bars, "close"), timeperiod=20, nbdevup=2, nbdevdn=2)
    theirs = (upper - lower) / middle * 100

    ours = bandwidths(bars)

    assert [value is None for value in ours] == np.isnan(theirs).tolist()
    assert [float(value) for value in ours if value is not None] == pytest.approx(theirs[19:], rel=1e-9)


def swinging(days: int, *, size: str = "1", storm_from: int = 10**6) -> list[Candle]:
    """Return bars that go up one day and down the next; three times as far from a day on."""
    bars = []
    for day in range(days):
        reach = D(size) * (3 if day >= storm_from else 1)
        close = 100 + reach * (1 if day % 2 else -1)
        bars.append(candle(day, 100, 100 + reach, 100 - reach, close))
    return bars


def climbing(days: int) -> list[Candle]:
    """Return bars that each gain as much, after a wide swing that keeps the bands from being the widest now."""
    first = [candle(day, 50, 80, 20, 80 if day % 2 else 20) for day in range(20)]
    return first + [candle(day, 100 + day, 102 + day, 99 + day, 101 + day) for day in range(20, days)]


@pytest.mark.parametrize(
    ("_case", "bars", "regime", "why"),
    [
        ("a steady climb", climbing(150), Regime.TRENDING, "is at or above 25"),
        ("up and down", swinging(150), Regime.RANGING, "is below 25"),
        ("a storm begins", swinging(150, storm_from=140), Regime.VOLATILE, "is the widest of 125 bars"),
    ],
)
def test_the_kind_of_market_is_told(_case: str, bars: list[Candle], regime: Regime, why: str) -> None:
    reading = read_regime(bars, at=end_of(bars), bar_seconds=DAY)
    assert (reading.regime, reading.why.endswith(why)) == (regime, True)


@pytest.mark.parametrize(
    ("_case", "trending_adx", "regime"),
    [("exactly at the threshold", D(0), Regime.TRENDING), ("just below", D("1e-30"), Regime.RANGING)],
)
def test_the_threshold_belongs_to_the_trend(_case: str, trending_adx: Decimal, regime: Regime) -> None:
    still = [candle(day, 100, 101, 99, 100) for day in range(144)]
    still[0] = candle(0, 100, 103, 98, 102)  # it only moved long ago
    adx = read_regime(still, at=end_of(still), bar_seconds=DAY).adx
    assert adx is not None
    reading = read_regime(still, at=end_of(still), bar_seconds=DAY, trending_adx=adx + trending_adx)
    assert reading.regime is regime


@pytest.mark.parametrize(
    ("_case", "bars", "reading"),
    [
        ("no bars", [], Reading(None, "no bars are known")),
        ("a bar too few", swinging(143), Reading(None, "only 143 finished bars are known and 144 are needed")),
    ],
)
def test_what_cannot_be_read_has_its_reason(_case: str, bars: list[Candle], reading: Reading) -> None:
    assert read_regime(bars, at=end_of(bars or swinging(1)), bar_seconds=DAY) == reading


def test_a_market_that_never_moved_ranges() -> None:
    bars = closing_at(*[7] * 150)
    reading = read_regime(bars, at=end_of(bars), bar_seconds=DAY)
    assert (reading.regime, reading.adx, reading.bandwidth) == (Regime.RANGING, D(0), D(0))


def test_real_markets_are_of_every_kind() -> None:
    bars = list(real_bars("AAPL"))
    ends = range(200, len(bars), 40)
    seen = {read_regime(bars[:end], at=end_of(bars[:end]), bar_seconds=DAY).regime for end in ends}
    assert seen == set(Regime)
