"""Estimators of volatility: against pandas and arch, by their names, and their reasons."""

from __future__ import annotations

import math
import sys
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from exitmgr.rules.atr import measure_range
from exitmgr.rules.compile import Range
from exitmgr.rules.volatility import (
    ESTIMATORS,
    Relative,
    estimator_named,
    log_returns,
    measure_ewma,
    measure_garch,
    measure_relative,
)
from positions.values import Candle
from tests.exitmgr.rules.candles import DAY, D, candle, closing_at, column, end_of, real_bars

AAPL = list(real_bars("AAPL"))[-600:]
WHEN = {"at": end_of(AAPL), "bar_seconds": DAY}


def test_ewma_agrees_with_pandas() -> None:
    squares = np.diff(np.log(column(AAPL, "close"))) ** 2
    seeded = pd.Series([squares[:20].mean(), *squares[20:]])
    deviation = math.sqrt(seeded.ewm(alpha=0.06, adjust=False).mean().iloc[-1])

    found = measure_ewma(AAPL, period=20, **WHEN)

    assert found.value is not None
    assert float(found.value) == pytest.approx(deviation * float(AAPL[-1].close), rel=1e-9)


def test_ewma_by_hand() -> None:
    bars = closing_at(100, 110, 99, 99)
    up, down = (D("1.1").ln() ** 2, D("0.9").ln() ** 2)

    found = measure_ewma(bars, period=2, at=end_of(bars), bar_seconds=DAY)

    assert found.value is not None
    assert abs(found.value - (D("0.94") * (up + down) / 2).sqrt() * 99) < D("1e-22")


def test_garch_agrees_with_arch_and_is_of_the_right_size() -> None:
    from arch import arch_model

    returns = np.array([float(value * 100) for value in log_returns(AAPL)])
    fit = arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")
    variance = fit.params["omega"] + fit.params["alpha[1]"] * returns[-1] ** 2
    variance += fit.params["beta[1]"] * fit.conditional_volatility[-1] ** 2

    found, ewma = measure_garch(AAPL, period=14, **WHEN), measure_ewma(AAPL, period=14, **WHEN)

    assert found.value is not None
    assert ewma.value is not None
    assert float(found.value) == pytest.approx(math.sqrt(variance) / 100 * float(AAPL[-1].close), rel=1e-6)
    assert D("0.5") < found.value / ewma.value < 2


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch", None)
    found = measure_garch(AAPL, period=14, **WHEN)
    assert found == Range(None, "the package arch for GARCH forecasts is not installed")


@pytest.mark.parametrize(
    ("_case", "name", "bars", "why"),
    [
        ("ewma of no bars", "ewma", [], "no bars are known"),
        ("ewma of too few", "ewma", AAPL[-14:], "only 14 finished bars are known and 15 are needed"),
        ("ewma of no move", "ewma", closing_at(*[7] * 15), "the last 15 closes do not move"),
        ("garch of too few", "garch", AAPL[-100:], "only 100 finished bars are known and 101 are needed"),
        ("garch of no move", "garch", closing_at(*[7] * 101), "the last 101 closes do not move"),
    ],
)
def test_what_cannot_be_estimated_has_its_reason(_case: str, name: str, bars: list[Candle], why: str) -> None:
    at = end_of(bars or AAPL)
    assert ESTIMATORS[name](bars, period=14, at=at, bar_seconds=DAY) == Range(None, why)


@pytest.mark.parametrize("name", ["atr", "ewma", "garch"])
def test_every_estimator_knows_when_its_bars_are_too_old(name: str) -> None:
    found = ESTIMATORS[name](AAPL, period=14, at=end_of(AAPL) + timedelta(days=6), bar_seconds=DAY)
    assert found.value is None
    assert found.why.startswith("the newest bar is too old")


def test_estimators_go_by_their_names() -> None:
    assert estimator_named("atr") is measure_range
    with pytest.raises(ValueError, match="estimator 'atrr' is unknown; use one of atr, ewma, garch"):
        estimator_named("atrr")


def test_relative_volatility_compares_shares_of_the_price() -> None:
    calm = [candle(day, 100, 101, 99, 100) for day in range(20)]
    stormy = [*calm, *(candle(day, 100, 102, 98, 100) for day in range(20, 24))]

    still = measure_relative(calm, period=1, typical_bars=19, at=end_of(calm), bar_seconds=DAY)
    moved = measure_relative(stormy, period=1, typical_bars=23, at=end_of(stormy), bar_seconds=DAY)

    assert still == Relative(D(1))
    assert moved == Relative(D(2))


@pytest.mark.parametrize(
    ("_case", "bars", "why"),
    [
        ("too few", AAPL[-113:], "only 113 finished bars are known and 114 are needed"),
        ("no move", closing_at(*[7] * 120), "the last 100 bars do not move"),
    ],
)
def test_relative_volatility_has_its_reasons(_case: str, bars: list[Candle], why: str) -> None:
    assert measure_relative(bars, period=14, at=end_of(bars), bar_seconds=DAY) == Relative(None, why)
