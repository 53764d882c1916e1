"""The ratio of gain to risk: every strategy, its limits, and the sentence that explains it."""

from __future__ import annotations

from typing import Any

import pytest

from exitmgr.rules.regime import Reading, Regime
from exitmgr.rules.risk_reward import Ratio, RatioTerms, Strategy, choose_ratio
from exitmgr.rules.volatility import Relative
from tests.exitmgr.rules.candles import D

OWN = {"AAPL": D("1.8"), "TSLA": D("2.0"), "SPY": D("1.2"), "WILD": D(9)}
CONDITION, VOLATILITY = Strategy.MARKET_CONDITION, Strategy.VOLATILITY_ADJUSTED


def ratio(strategy: Strategy, symbol: str = "AAPL", /, **given: Any) -> Ratio:
    """Return the ratio with the usual limits."""
    seen = {name: given.pop(name) for name in ("reading", "relative") if name in given}
    return choose_ratio(RatioTerms(strategy=strategy, symbol_ratios=OWN, **given), symbol=symbol, **seen)


@pytest.mark.parametrize(
    ("_case", "found", "value", "why"),
    [
        ("fixed", ratio(Strategy.FIXED_RATIO), "1.5", "the base ratio of 1.5"),
        ("fixed, another base", ratio(Strategy.FIXED_RATIO, base_ratio=D(2)), "2", "the base ratio of 2"),
        (
            "fixed, below the least",
            ratio(Strategy.FIXED_RATIO, base_ratio=D("0.5")),
            "1.0",
            "the base ratio of 0.5, raised to 1.0",
        ),
        (
            "fixed, above the most",
            ratio(Strategy.FIXED_RATIO, base_ratio=D(4)),
            "3.0",
            "the base ratio of 4, lowered to 3.0",
        ),
        (
            "exactly the most",
            ratio(Strategy.FIXED_RATIO, base_ratio=D(3)),
            "3",
            "the base ratio of 3",
        ),
        ("of the symbol", ratio(Strategy.SYMBOL_SPECIFIC, "TSLA"), "2.0", "TSLA has a ratio of its own: 2.0"),
        (
            "of another symbol",
            ratio(Strategy.SYMBOL_SPECIFIC, "MSFT"),
            "1.5",
            "the base ratio, as MSFT has none: 1.5",
        ),
        (
            "of a symbol, above the most",
            ratio(Strategy.SYMBOL_SPECIFIC, "WILD"),
            "3.0",
            "WILD has a ratio of its own: 9, lowered to 3.0",
        ),
        (
            "trending",
            ratio(CONDITION, reading=Reading(Regime.TRENDING, "the ADX of 31.2 is at or above 25")),
            "1.80",
            "1.2 x 1.5 in a trending market: the ADX of 31.2 is at or above 25",
        ),
        (
            "ranging",
            ratio(CONDITION, reading=Reading(Regime.RANGING, "the ADX of 12 is below 25")),
            "1.50",
            "1.0 x 1.5 in a ranging market: the ADX of 12 is below 25",
        ),
        (
            "volatile",
            ratio(CONDITION, reading=Reading(Regime.VOLATILE, "wide")),
            "1.20",
            "0.8 x 1.5 in a volatile market: wide",
        ),
        (
            "volatile, below the least",
            ratio(CONDITION, base_ratio=D("1.1"), reading=Reading(Regime.VOLATILE, "wide")),
            "1.0",
            "0.8 x 1.1 in a volatile market: wide, raised to 1.0",
        ),
        (
            "a condition without a factor",
            ratio(CONDITION, condition_factors={}, reading=Reading(Regime.TRENDING, "up")),
            "1.5",
            "1 x 1.5 in a trending market: up",
        ),
        (
            "an unknown condition",
            ratio(CONDITION, reading=Reading(None, "no bars are known")),
            "1.5",
            "the base ratio of 1.5, as the market condition is not known: no bars are known",
        ),
        (
            "a condition nobody read",
            ratio(CONDITION),
            "1.5",
            "the base ratio of 1.5, as the market condition is not known: it was not read",
        ),
        (
            "typical volatility",
            ratio(VOLATILITY, relative=Relative(D(1))),
            "1.5",
            "1.000 x 1.5 at 1.000 of the typical volatility",
        ),
        (
            "a fifth above",
            ratio(VOLATILITY, relative=Relative(D("1.2"))),
            "1.35",
            "0.900 x 1.5 at 1.200 of the typical volatility",
        ),
        (
            "half of it",
            ratio(VOLATILITY, relative=Relative(D("0.5"))),
            "1.875",
            "1.250 x 1.5 at 0.500 of the typical volatility",
        ),
        (
            "a factor turned round",
            ratio(VOLATILITY, volatility_factor=D(-1), relative=Relative(D("1.2"))),
            "1.80",
            "1.200 x 1.5 at 1.200 of the typical volatility",
        ),
        (
            "five times as much",
            ratio(VOLATILITY, relative=Relative(D(5))),
            "1.0",
            "-1.000 x 1.5 at 5.000 of the typical volatility, raised to 1.0",
        ),
        (
            "unknown volatility",
            ratio(VOLATILITY, relative=Relative(None, "no bars are known")),
            "1.5",
            "the base ratio of 1.5, as the volatility is not known: no bars are known",
        ),
    ],
)
def test_the_ratio_and_how_it_came_about(_case: str, found: Ratio, value: str, why: str) -> None:
    assert (found.value, found.why) == (D(value), why)
