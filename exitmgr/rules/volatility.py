"""Ways to estimate how far a price usually moves, each under its name in `ESTIMATORS`. Pure.

Each returns a distance in price units over one bar, or why it has none; which one is used is configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from types import MappingProxyType
from typing import Final, Protocol

from exitmgr.rules.atr import LONGEST_CLOSE, NotMeasurable, measure_range, usable_bars, wilder_atr
from exitmgr.rules.compile import Range
from positions.values import Candle

#: The decay RiskMetrics found best for daily returns.
LAMBDA: Final = Decimal("0.94")
#: A maximum likelihood fit on fewer returns is a fit to noise.
FEWEST_RETURNS: Final = 100
#: Bars whose median says what is typical: about five months of daily ones.
TYPICAL_BARS: Final = 100
_DIGITS: Final = 12


class Estimator(Protocol):
    """A way to estimate the distance a price moves in one bar."""

    def __call__(
        self, bars: Sequence[Candle], /, *, period: int, at: datetime, bar_seconds: int, closed_for: timedelta = ...
    ) -> Range: ...


@dataclass(frozen=True, slots=True)
class Relative:
    """Volatility now over what is typical of the symbol, or None and why it could not be measured."""

    value: Decimal | None
    why: str = ""


def measure_ewma(
    bars: Sequence[Candle], *, period: int, at: datetime, bar_seconds: int, closed_for: timedelta = LONGEST_CLOSE
) -> Range:
    """Return one standard deviation of the next bar's return, exponentially weighted, times the last close.

    The variance starts as the mean of the first `period` squared log returns of the closes; each next one is
    0.94 x variance + 0.06 x return squared, with a mean return of zero.

    Source: J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th edition, 1996, section 5.2.
    """
    try:
        usable = usable_bars(bars, needed=period + 1, at=at, bar_seconds=bar_seconds, closed_for=closed_for)
    except NotMeasurable as error:
        return Range(None, str(error))
    squares = [value * value for value in log_returns(usable)]
    variance = sum(squares[:period], Decimal(0)) / period
    for square in squares[period:]:
        variance = LAMBDA * variance + (1 - LAMBDA) * square
    if not variance:
        return Range(None, f"the last {len(usable)} closes do not move")
    return Range(variance.sqrt() * usable[-1].close)


def measure_garch(
    bars: Sequence[Candle], *, period: int, at: datetime, bar_seconds: int, closed_for: timedelta = LONGEST_CLOSE
) -> Range:
    """Return the standard deviation a GARCH(1,1) fitted to the closes forecasts for the next bar, times the last close.

    The log returns have a mean of zero and normal innovations; the fit is by maximum likelihood over all usable bars.
    `period` only says how many bars must be known at least. Needs the optional package `arch`.

    Source: T. Bollerslev, Generalized Autoregressive Conditional Heteroskedasticity, J. of Econometrics 31, 1986.
    """
    needed = max(period, FEWEST_RETURNS) + 1
    try:
        usable = usable_bars(bars, needed=needed, at=at, bar_seconds=bar_seconds, closed_for=closed_for)
        deviation = _forecast(log_returns(usable))
    except NotMeasurable as error:
        return Range(None, str(error))
    return Range(deviation * usable[-1].close)


def _forecast(returns: Sequence[Decimal]) -> Decimal:
    if not any(returns):
        raise NotMeasurable(f"the last {len(returns) + 1} closes do not move")
    try:
        import numpy as np
        from arch import arch_model
    except ImportError:
        raise NotMeasurable("the package arch for GARCH forecasts is not installed") from None
    # the optimiser wants numbers around 1, so returns are in percent, as a statistic and not as money
    percent = np.array([float(value * 100) for value in returns])
    try:
        model = arch_model(percent, mean="Zero", vol="GARCH", p=1, q=1, dist="normal", rescale=False)
        fit = model.fit(disp="off", show_warning=False)
        variance = float(fit.forecast(horizon=1, reindex=False).variance.to_numpy()[-1, 0])
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise NotMeasurable(f"the GARCH fit failed: {error}") from None
    if fit.convergence_flag != 0:
        raise NotMeasurable("the GARCH fit did not converge")
    if not (math.isfinite(variance) and variance > 0):
        raise NotMeasurable(f"the GARCH forecast is no variance: {variance}")
    return Decimal(f"{math.sqrt(variance) / 100:.{_DIGITS}g}")


def log_returns(bars: Sequence[Candle]) -> list[Decimal]:
    """Return the logarithm of each close over the one before it."""
    return [(bar.close / before.close).ln() for before, bar in pairwise(bars)]


#: By the name it has in the configuration.
ESTIMATORS: Final[Mapping[str, Estimator]] = MappingProxyType(
    {"atr": measure_range, "ewma": measure_ewma, "garch": measure_garch}
)


def estimator_named(name: str) -> Estimator:
    """Return the estimator with this name.

    :raises ValueError: there is none; says which there are.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is unknown; use one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]


def measure_relative(
    bars: Sequence[Candle],
    *,
    period: int,
    at: datetime,
    bar_seconds: int,
    typical_bars: int = TYPICAL_BARS,
    closed_for: timedelta = LONGEST_CLOSE,
) -> Relative:
    """Return the Average True Range now over the median one of the last `typical_bars`, each as a part of its close."""
    try:
        usable = usable_bars(bars, needed=period + typical_bars, at=at, bar_seconds=bar_seconds, closed_for=closed_for)
    except NotMeasurable as error:
        return Relative(None, str(error))
    averages = wilder_atr(usable, period=period)[-typical_bars:]
    shares = [average / bar.close for average, bar in zip(averages, usable[-typical_bars:], strict=True) if average]
    if not shares or not averages[-1]:
        return Relative(None, f"the last {typical_bars} bars do not move")
    return Relative(shares[-1] / median(shares))
