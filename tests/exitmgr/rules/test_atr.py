"""The Average True Range: by hand, against TA-Lib, and every reason for which there is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.atr import MOST_BARS, measure_range, true_range, wilder_atr
from exitmgr.rules.compile import Range
from positions.values import Candle
from tests.exitmgr.rules.candles import DAY, D, candle, candles, closing_at, column, end_of, real_bars

#: True ranges from the second bar on: 3, 4 (a gap up), 5 (a gap down), 1.
BY_HAND = [
    candle(0, 10, 11, 9, 10),
    candle(1, 10, 12, 9, 11),
    candle(2, 14, 15, 13, 14),
    candle(3, 10, 11, 9, 10),
    candle(4, 10, "10.5", "9.5", 10),
]


@pytest.mark.parametrize(
    ("_case", "bar", "previous_close", "expected"),
    [
        ("within the bar", candle(0, 10, 12, 9, 11), "10", "3"),
        ("from a close below", candle(0, 14, 15, 13, 14), "11", "4"),
        ("from a close above", candle(0, 10, 11, 9, 10), "14", "5"),
        ("no move at all", candle(0, 10, 10, 10, 10), "10", "0"),
    ],
)
def test_the_true_range_takes_the_gap_in(_case: str, bar: Candle, previous_close: str, expected: str) -> None:
    assert true_range(bar, previous_close=D(previous_close)) == D(expected)


@pytest.mark.parametrize(
    ("_case", "period", "expected"),
    [
        ("one bar is the true range itself", 1, [None, "3", "4", "5", "1"]),
        ("the mean of two, then half and half", 2, [None, None, "3.5", "4.25", "2.625"]),
        ("the mean of four, and no more bars", 4, [None, None, None, None, "3.25"]),
        ("a period as long as the bars", 5, [None] * 5),
        ("a longer period", 14, [None] * 5),
    ],
)
def test_the_series_by_hand(_case: str, period: int, expected: list[str | None]) -> None:
    assert wilder_atr(BY_HAND, period=period) == [None if value is None else D(value) for value in expected]


def test_a_period_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="period must be above 0; got 0"):
        wilder_atr(BY_HAND, period=0)


def assert_like_talib(bars: list[Candle], period: int) -> None:
    theirs = talib.ATR(column(bars, "high"), column(bars, "low"), column(bars, "close"), timeperiod=period)
    ours = wilder_atr(bars, period=period)
    assert [value is None for value in ours] == np.isnan(theirs).tolist()
    values = [(float(our), their) for our, their in zip(ours, theirs, strict=True) if our is not None]
    assert all(our == pytest.approx(their, rel=1e-9, abs=1e-12) for our, their in values)


@pytest.mark.parametrize(("symbol", "period"), [("AAPL", 14), ("MSFT", 20), ("IBM", 2), ("GOOG", 1)])
def test_real_bars_agree_with_talib(symbol: str, period: int) -> None:
    assert_like_talib(list(real_bars(symbol)), period)


@given(candles(fewest=2), st.integers(min_value=1, max_value=30))
def test_any_bars_agree_with_talib(bars: list[Candle], period: int) -> None:
    assert_like_talib(bars, period)


@given(candles(fewest=5, most=30), st.sampled_from([D("0.01"), D(2), D(1000)]))
def test_prices_in_another_unit_scale_the_range(bars: list[Candle], factor: Decimal) -> None:
    scaled = [
        replace(bar, open=bar.open * factor, high=bar.high * factor, low=bar.low * factor, close=bar.close * factor)
        for bar in bars
    ]
    before, after = wilder_atr(bars, period=3)[-1], wilder_atr(scaled, period=3)[-1]
    assert before is not None
    assert after is not None
    assert abs(after - before * factor) <= abs(after) * D("1e-24")


@given(candles(fewest=4, most=30))
def test_the_range_lies_between_the_smallest_and_the_largest_true_range(bars: list[Candle]) -> None:
    ranges = [true_range(bar, previous_close=before.close) for before, bar in pairwise(bars)]
    value = wilder_atr(bars, period=3)[-1]
    assert value is not None
    tolerance = max(ranges) * D("1e-26")
    assert min(ranges) - tolerance <= value <= max(ranges) + tolerance


def test_only_finished_bars_count() -> None:
    end = end_of(BY_HAND)
    at_the_end = measure_range(BY_HAND, period=2, at=end, bar_seconds=DAY)
    just_before = measure_range(BY_HAND, period=2, at=end - timedelta(microseconds=1), bar_seconds=DAY)

    assert at_the_end == Range(D("2.625"))
    assert just_before == Range(D("4.25"))


MINUTES = [replace(bar, start=BY_HAND[0].start + number * timedelta(minutes=1)) for number, bar in enumerate(BY_HAND)]
MINUTES_END = MINUTES[-1].start + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("_case", "bars", "period", "at", "why"),
    [
        ("no bars", [], 2, end_of(BY_HAND), "no bars are known"),
        ("none is finished", BY_HAND, 2, BY_HAND[0].start, "no bars are known"),
        (
            "a bar too few",
            BY_HAND,
            5,
            end_of(BY_HAND),
            "only 5 finished bars are known and 6 are needed",
        ),
        (
            "five days and a moment old",
            BY_HAND,
            2,
            end_of(BY_HAND) + timedelta(days=5, microseconds=1),
            "the newest bar is too old, it ended 2026-03-07 00:00 UTC",
        ),
        ("no move", closing_at(7, 7, 7), 2, end_of(closing_at(7, 7, 7)), "the last 3 bars do not move"),
        (
            "not a number",
            [*BY_HAND[:4], candle(4, 10, "nan", 9, 10)],
            2,
            end_of(BY_HAND),
            "the bar of 2026-03-06 00:00 holds a number that is none",
        ),
        (
            "without end",
            [*BY_HAND[:4], candle(4, 10, "inf", 9, 10)],
            2,
            end_of(BY_HAND),
            "the bar of 2026-03-06 00:00 holds a number that is none",
        ),
        (
            "a price of nothing",
            [candle(0, 10, 11, 0, 10), *BY_HAND[1:]],
            2,
            end_of(BY_HAND),
            "the bar of 2026-03-02 00:00 has a low of 0",
        ),
        (
            "high below low",
            [candle(0, 10, 9, 11, 10), *BY_HAND[1:]],
            2,
            end_of(BY_HAND),
            "the bar of 2026-03-02 00:00 has an open or a close outside its low and high",
        ),
        (
            "a close above the high",
            [candle(0, 10, 11, 9, 12), *BY_HAND[1:]],
            2,
            end_of(BY_HAND),
            "the bar of 2026-03-02 00:00 has an open or a close outside its low and high",
        ),
        (
            "the same bar twice",
            [BY_HAND[0], *BY_HAND],
            2,
            end_of(BY_HAND),
            "the bars are not in the order of their times",
        ),
    ],
)
def test_what_cannot_be_measured_has_its_reason(
    _case: str, bars: list[Candle], period: int, at: datetime, why: str
) -> None:
    assert measure_range(bars, period=period, at=at, bar_seconds=DAY) == Range(None, why)


@pytest.mark.parametrize(
    ("_case", "bars", "seconds", "closed_for", "age", "measured"),
    [
        ("daily bars over Easter", BY_HAND, DAY, timedelta(days=5), timedelta(days=5), True),
        ("daily bars of a venue that never closes", BY_HAND, DAY, timedelta(0), timedelta(days=5), True),
        ("minutes over a weekend", MINUTES, 60, timedelta(days=5), timedelta(days=3), True),
        ("minutes of a venue that never closes", MINUTES, 60, timedelta(0), timedelta(minutes=5), True),
        ("the same, a second later", MINUTES, 60, timedelta(0), timedelta(minutes=5, seconds=1), False),
    ],
)
def test_how_old_the_newest_bar_may_be(
    _case: str, bars: list[Candle], seconds: int, closed_for: timedelta, age: timedelta, measured: bool
) -> None:
    at = bars[-1].start + timedelta(seconds=seconds) + age
    found = measure_range(bars, period=2, at=at, bar_seconds=seconds, closed_for=closed_for)
    assert (found.value is not None) is measured


def test_more_history_than_the_cap_changes_nothing() -> None:
    bars = list(real_bars("AAPL"))
    assert len(bars) > MOST_BARS
    capped = measure_range(bars[-MOST_BARS:], period=200, at=end_of(bars), bar_seconds=DAY)

    assert measure_range(bars, period=200, at=end_of(bars), bar_seconds=DAY) == capped
    assert capped.value is not None


def test_the_cap_costs_no_digit_at_the_usual_period() -> None:
    bars = list(real_bars("AAPL"))
    whole, capped = wilder_atr(bars, period=14)[-1], wilder_atr(bars[-MOST_BARS:], period=14)[-1]
    assert whole is not None
    assert capped is not None
    assert abs(whole - capped) <= whole * D("1e-26")
