"""The plan a position gets when nobody gave it one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.policy.default_plan import UNMEASURED, RatioFacts, plan_from_policy
from exitmgr.policy.layers import Layer, effective
from exitmgr.policy.schema import InvalidPolicy, Policy
from exitmgr.rules.plan import Plan, plan_as_json
from exitmgr.rules.regime import Reading, Regime
from exitmgr.rules.volatility import Relative

D = Decimal

ATR = {"atr": {"period": 14, "multiple": "2"}}


def test_without_configuration_it_is_one_percent_against_and_two_in_favour() -> None:
    plan, notes = plan_from_policy(Policy(), symbol="AAPL")
    assert plan_as_json(plan) == {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}
    assert notes == ()


@pytest.mark.parametrize(
    ("_case", "document", "plan", "notes"),
    [
        ("thresholds", {"exit_manager": {"stop_loss": {"threshold_pct": "1.5"}, "profit_taking": {"threshold_pct": 4}}},
         {"stop_loss": {"pct": "1.5"}, "take_profits": [{"pct": "4"}]}, ()),
        ("no stop", {"exit_manager": {"stop_loss": {"enabled": False}}}, {"take_profits": [{"pct": "2"}]}, ()),
        ("no target", {"exit_manager": {"profit_taking": {"enabled": False}}}, {"stop_loss": {"pct": "1"}}, ()),
        ("neither", {"exit_manager": {"profit_taking": {"enabled": False}, "stop_loss": {"enabled": False}}}, {}, ()),
        ("limit orders", {"exit_manager": {"profit_taking": {"order_type": "limit", "time_in_force": "gtc"}}},
         {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit", "time_in_force": "gtc"}]}, ()),
        ("another price", {"exit_manager": {"price_source": "mid"}},
         {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}], "price_source": "mid"}, ()),
        ("by range", {"trade_exit": {"mode": "atr"}}, {"stop_loss": ATR, "take_profits": [{"rr": "1.5"}]},
         ("take_profits.0.rr: the base ratio of 1.5",)),
        ("by range, its own terms", {"trade_exit": {"mode": "atr", "atr": {"period": 20, "multiplier": "2.5"}}},
         {"stop_loss": {"atr": {"period": 20, "multiple": "2.5"}}, "take_profits": [{"rr": "1.5"}]},
         ("take_profits.0.rr: the base ratio of 1.5",)),
        ("by range without a stop", {"trade_exit": {"mode": "atr"}, "exit_manager": {"stop_loss": {"enabled": False}}},
         {"take_profits": [{"pct": "2"}]},
         ("take_profits.0: there is no stop to measure a ratio from, so threshold_pct is used",)),
        ("a ratio by symbol", {"trade_exit": {"mode": "atr", "risk_reward": {"strategy": "symbol_specific"}}},
         {"stop_loss": ATR, "take_profits": [{"rr": "1.8"}]}, ("take_profits.0.rr: AAPL has a ratio of its own: 1.8",)),
        ("a ratio by the market", {"trade_exit": {"mode": "atr", "risk_reward": {"strategy": "market_condition"}}},
         {"stop_loss": ATR, "take_profits": [{"rr": "1.80"}]},
         ("take_profits.0.rr: 1.2 x 1.5 in a trending market: the ADX says so",)),
        ("a ratio by volatility", {"trade_exit": {"mode": "atr", "risk_reward": {"strategy": "volatility_adjusted"}}},
         {"stop_loss": ATR, "take_profits": [{"rr": "1.125"}]},
         ("take_profits.0.rr: 0.750 x 1.5 at 1.500 of the typical volatility",)),
        ("everything else",
         {"trade_exit": {"trailing": {"pct": 1, "activation_pct": 2}, "break_even": {"after_rung": 1},
                         "time_limit_seconds": 3600, "stagnation": {"seconds": 60, "move_pct": "0.5"},
                         "session_close": {"minutes_before": 5}}},
         {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}],
          "trailing": [{"pct": "1", "activation_pct": "2"}],
          "break_even": {"after_rung": 1, "offset_pct": "0", "include_fees": False}, "time_limit_seconds": 3600,
          "stagnation": {"seconds": 60, "move_pct": "0.5"}, "session_close": {"minutes_before": 5}}, ()),
    ],
)  # fmt: skip
def test_the_plan_of(_case: str, document: Any, plan: Any, notes: tuple[str, ...]) -> None:
    facts = RatioFacts(reading=Reading(Regime.TRENDING, "the ADX says so"), relative=Relative(D("1.5")))
    found, told = plan_from_policy(effective([Layer("file", document)]), symbol="AAPL", facts=facts)
    assert plan_as_json(found) == plan
    assert told == notes


def test_a_ratio_that_cannot_be_measured_is_the_base_and_says_why() -> None:
    policy = effective(
        [Layer("file", {"trade_exit": {"mode": "atr", "risk_reward": {"strategy": "market_condition"}}})]
    )
    plan, notes = plan_from_policy(policy, symbol="AAPL", facts=UNMEASURED)
    assert plan.take_profits[0].rr == D("1.5")
    assert notes == ("take_profits.0.rr: the base ratio of 1.5, as the market condition is not known: it was not read",)


def test_what_cannot_apply_is_left_out_with_a_note() -> None:
    document = {"trade_exit": {"session_close": {}, "break_even": {"after_rung": 1}}}
    own = {"exit_manager": {"profit_taking": {"enabled": False}}}
    policy = effective([Layer("file", document), Layer("position", own)], lenient=True)
    plan, notes = plan_from_policy(policy, symbol="BTC/USD", facts=RatioFacts(closes=False))
    assert plan_as_json(plan) == {"stop_loss": {"pct": "1"}}
    assert notes == (
        "break_even: left out, as there is no target to come after",
        "session_close: left out, as the instrument trades around the clock",
    )


flags = st.booleans()
numbers = st.decimals(min_value="0.01", max_value="99", places=2)


@given(
    stop=flags, profit=flags, pct=numbers, multiplier=numbers, low=numbers, high=numbers, closes=flags, trail=flags,
    mode=st.sampled_from(["percent", "atr"]), even=flags,
    strategy=st.sampled_from(["fixed_ratio", "symbol_specific", "market_condition", "volatility_adjusted"]),
)  # fmt: skip
def test_every_valid_configuration_gives_a_valid_plan(
    stop: bool, profit: bool, pct: D, multiplier: D, low: D, high: D, closes: bool, trail: bool, mode: str, even: bool,
    strategy: str,
) -> None:  # fmt: skip
    document = {
        "exit_manager": {"stop_loss": {"enabled": stop, "threshold_pct": pct}, "profit_taking": {"enabled": profit}},
        "trade_exit": {
            "mode": mode, "atr": {"multiplier": multiplier},
            "risk_reward": {"strategy": strategy, "min_ratio": low, "max_ratio": high},
            "trailing": [{"pct": pct}] if trail else [], "session_close": {},
            "break_even": {"after_rung": 1} if even else None,
        },
    }  # fmt: skip
    try:
        policy = effective([Layer("file", document)])
    except InvalidPolicy:
        assert low > high or (even and not profit)
        return
    plan, _ = plan_from_policy(policy, symbol="AAPL", facts=RatioFacts(closes=closes))
    assert isinstance(plan, Plan)
    for target in plan.take_profits:
        assert target.rr is None or low <= target.rr <= high
