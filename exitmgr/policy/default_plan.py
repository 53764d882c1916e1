"""The plan a position gets when nobody gave it one: what the configuration comes to for its symbol. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from exitmgr.policy.schema import Policy, Threshold
from exitmgr.rules.plan import Plan, parse_plan
from exitmgr.rules.regime import Reading, Regime
from exitmgr.rules.risk_reward import RatioTerms, Strategy, choose_ratio
from exitmgr.rules.volatility import Relative


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioFacts:
    """What was measured of the symbol; `closes` is false where trade never ends."""

    reading: Reading = Reading(None, "it was not read")  # noqa: RUF009 - frozen
    relative: Relative = Relative(None, "it was not measured")  # noqa: RUF009 - frozen
    closes: bool = True


UNMEASURED: Final = RatioFacts()


def plan_from_policy(policy: Policy, *, symbol: str, facts: RatioFacts = UNMEASURED) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan the configuration gives a position in this symbol, and how its target came about where asked for.

    Every valid configuration gives a valid plan; a part that cannot apply is left out, with a note.
    """
    notes: list[str] = []
    given: dict[str, Any] = {}
    stop, profit = policy.exit_manager.stop_loss, policy.exit_manager.profit_taking
    by_range = policy.trade_exit.mode == "atr"
    if stop.enabled:
        atr = policy.trade_exit.atr
        where = {"atr": {"period": atr.period, "multiple": atr.multiplier}} if by_range else {"pct": stop.threshold_pct}
        given["stop_loss"] = where | _terms(stop)
    if profit.enabled:
        target: dict[str, Any] = {"pct": profit.threshold_pct}
        if by_range and stop.enabled:
            ratio = choose_ratio(ratio_terms(policy), symbol=symbol, reading=facts.reading, relative=facts.relative)
            target = {"rr": ratio.value}
            notes.append(f"take_profits.0.rr: {ratio.why}")
        elif by_range:
            notes.append("take_profits.0: there is no stop to measure a ratio from, so threshold_pct is used")
        given["take_profits"] = [target | _terms(profit)]
    given |= _extras(policy, facts, notes)
    if policy.exit_manager.price_source != "tradable":
        given["price_source"] = policy.exit_manager.price_source
    return parse_plan(given), tuple(notes)


def ratio_terms(policy: Policy) -> RatioTerms:
    """Return what the configuration says about ratios, as the rules take it."""
    ratio, strategies = policy.trade_exit.risk_reward, policy.risk_reward
    factors = strategies.market_condition_factors
    return RatioTerms(
        strategy=Strategy(ratio.strategy),
        base_ratio=ratio.base_ratio,
        min_ratio=ratio.min_ratio,
        max_ratio=ratio.max_ratio,
        symbol_ratios=strategies.symbol_specific_ratios,
        condition_factors={
            Regime.TRENDING: factors.trending,
            Regime.RANGING: factors.ranging,
            Regime.VOLATILE: factors.volatile,
        },
        volatility_factor=strategies.volatility_factor,
    )


def _extras(policy: Policy, facts: RatioFacts, notes: list[str]) -> dict[str, Any]:
    rules = policy.trade_exit
    given: dict[str, Any] = {}
    if rules.trailing:
        given["trailing"] = [trail.model_dump(exclude_none=True) for trail in rules.trailing]
    if rules.break_even is not None:
        if rules.break_even.after_rung is not None and not policy.exit_manager.profit_taking.enabled:
            notes.append("break_even: left out, as there is no target to come after")
        else:
            given["break_even"] = rules.break_even.model_dump(exclude_none=True)
    if rules.time_limit_seconds is not None:
        given["time_limit_seconds"] = rules.time_limit_seconds
    if rules.stagnation is not None:
        given["stagnation"] = rules.stagnation.model_dump()
    if rules.session_close is not None:
        if facts.closes:
            given["session_close"] = rules.session_close.model_dump()
        else:
            notes.append("session_close: left out, as the instrument trades around the clock")
    return given


def _terms(side: Threshold) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    if side.order_type != "market":
        terms["order_type"] = side.order_type
    if side.time_in_force is not None:
        terms["time_in_force"] = side.time_in_force
    return terms
