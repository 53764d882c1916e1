"""How far a target lies for what is risked: the ratio of gain to risk, and a sentence on how it came about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from exitmgr.rules.regime import Reading, Regime
from exitmgr.rules.volatility import Relative

CONDITION_FACTORS: Final[Mapping[Regime, Decimal]] = MappingProxyType(
    {Regime.TRENDING: Decimal("1.2"), Regime.RANGING: Decimal("1.0"), Regime.VOLATILE: Decimal("0.8")}
)
_NOT_READ: Final = Reading(None, "it was not read")
_NOT_MEASURED: Final = Relative(None, "it was not measured")


class Strategy(StrEnum):
    """The ways to choose a ratio."""

    FIXED_RATIO = "fixed_ratio"
    SYMBOL_SPECIFIC = "symbol_specific"
    MARKET_CONDITION = "market_condition"
    VOLATILITY_ADJUSTED = "volatility_adjusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioTerms:
    """What the configuration says about ratios.

    `volatility_factor` is how much of the base ratio is taken off for each 100 percent of volatility above the
    typical one, and added for each below; a negative one turns that round.
    """

    strategy: Strategy = Strategy.FIXED_RATIO
    base_ratio: Decimal = Decimal("1.5")
    min_ratio: Decimal = Decimal("1.0")
    max_ratio: Decimal = Decimal("3.0")
    symbol_ratios: Mapping[str, Decimal] = field(default_factory=dict)
    condition_factors: Mapping[Regime, Decimal] = field(default_factory=lambda: CONDITION_FACTORS)
    volatility_factor: Decimal = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Gain over risk, and how it came about."""

    value: Decimal
    why: str


def choose_ratio(
    terms: RatioTerms, *, symbol: str, reading: Reading = _NOT_READ, relative: Relative = _NOT_MEASURED
) -> Ratio:
    """Return the ratio the strategy comes to, never outside the limits.

    Only `market_condition` looks at `reading`, and only `volatility_adjusted` at `relative`; where there is none the
    base ratio stands, and the sentence says why.
    """
    base = terms.base_ratio
    match terms.strategy:
        case Strategy.FIXED_RATIO:
            wanted, why = base, f"the base ratio of {base:f}"
        case Strategy.SYMBOL_SPECIFIC:
            own = terms.symbol_ratios.get(symbol)
            wanted = base if own is None else own
            why = f"{symbol} has a ratio of its own" if own is not None else f"the base ratio, as {symbol} has none"
            why = f"{why}: {wanted:f}"
        case Strategy.MARKET_CONDITION:
            wanted, why = _by_condition(terms, reading)
        case Strategy.VOLATILITY_ADJUSTED:
            wanted, why = _by_volatility(terms, relative)
    return _clamped(terms, wanted, why)


def _by_condition(terms: RatioTerms, reading: Reading) -> tuple[Decimal, str]:
    base = terms.base_ratio
    if reading.regime is None:
        return base, f"the base ratio of {base:f}, as the market condition is not known: {reading.why}"
    factor = terms.condition_factors.get(reading.regime, Decimal(1))
    return base * factor, f"{factor:f} x {base:f} in a {reading.regime} market: {reading.why}"


def _by_volatility(terms: RatioTerms, relative: Relative) -> tuple[Decimal, str]:
    base = terms.base_ratio
    if relative.value is None:
        return base, f"the base ratio of {base:f}, as the volatility is not known: {relative.why}"
    factor = 1 - terms.volatility_factor * (relative.value - 1)
    return base * factor, f"{factor:.3f} x {base:f} at {relative.value:.3f} of the typical volatility"


def _clamped(terms: RatioTerms, wanted: Decimal, why: str) -> Ratio:
    allowed = min(max(wanted, terms.min_ratio), terms.max_ratio)
    if allowed == wanted:
        return Ratio(wanted, why)
    word = "raised" if allowed > wanted else "lowered"
    return Ratio(allowed, f"{why}, {word} to {allowed:f}")
