"""Every mistake in a document is refused with its path and what would be right."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.policy.layers import Layer, Sources, effective
from exitmgr.policy.schema import InvalidPolicy, Policy, warnings_of
from exitmgr.policy.validation import conflicts_in, override_problems, problems_of, require_valid

D = Decimal

TOP = "exit_manager, trade_exit, risk_reward, accounts, symbols"
PRICES = "max_age_seconds, max_spread_pct, collar_pct, confirm_seconds"


def at(path: str, value: Any) -> dict[str, Any]:
    """Return a document that sets one key."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("_case", "document"),
    [
        ("nothing", None),
        ("an empty object", {}),
        ("headings with nothing below", {"exit_manager": None, "accounts": None, "symbols": {"AAPL": None}}),
        ("numbers as text", at("exit_manager.stop_loss.threshold_pct", "1.5")),
        ("a trail without a list", at("trade_exit.trailing", {"pct": 1})),
        ("trails in a list", at("trade_exit.trailing", [{"pct": 1}, {"distance": 2, "activation_pct": 1}])),
        ("a symbol with a dot and one with a slash", {"symbols": {"BRK.B": {}, "BTC/USD": {}}}),
        ("a negative factor", at("risk_reward.volatility_factor", -2)),
        ("a ratio taken out", at("risk_reward.symbol_specific_ratios", {"TSLA": None})),
    ],
)
def test_accepts(_case: str, document: Any) -> None:
    assert problems_of(document) == {}
    assert conflicts_in(Sources(file=document or {})) == {}


@pytest.mark.parametrize(
    ("_case", "document", "path", "text"),
    [
        ("no object", [1], "document", f"must be an object with any of {TOP}; got a list"),
        ("an unknown section", {"exit_managers": {}}, "exit_managers",
         f"is unknown; did you mean exit_manager? known here: {TOP}"),
        ("an unknown section, nothing near", {"zzz": 1}, "zzz", f"is unknown; known here: {TOP}"),
        ("an unknown key", at("exit_manager.prices.max_age", 5), "exit_manager.prices.max_age",
         f"is unknown; did you mean max_age_seconds? known here: {PRICES}"),
        ("a section that is a number", at("exit_manager.prices", 5), "exit_manager.prices",
         f"must be an object with any of {PRICES}; got 5"),
        ("zero", at("exit_manager.stop_loss.threshold_pct", 0), "exit_manager.stop_loss.threshold_pct",
         "must be a number above 0 and at most 99; got 0"),
        ("negative", at("exit_manager.profit_taking.threshold_pct", D("-0.1")),
         "exit_manager.profit_taking.threshold_pct", "must be a number above 0 and at most 1000000000; got -0.1"),
        ("NaN", at("trade_exit.atr.multiplier", D("NaN")), "trade_exit.atr.multiplier",
         "must be a number above 0 and at most 100; got NaN"),
        ("NaN as YAML writes it", at("trade_exit.atr.multiplier", ".nan"), "trade_exit.atr.multiplier",
         "must be a number above 0 and at most 100; got '.nan'"),
        ("infinity", at("risk_reward.volatility_factor", D("Infinity")), "risk_reward.volatility_factor",
         "must be a number from -10 to 10; got Infinity"),
        ("a truth value for a number", at("exit_manager.retry_attempts", True), "exit_manager.retry_attempts",
         "must be a whole number from 1 to 20; got true"),
        ("half a try", at("exit_manager.retry_attempts", D("2.5")), "exit_manager.retry_attempts",
         "must be a whole number from 1 to 20; got 2.5"),
        ("null where there is no nothing", at("exit_manager.retry_attempts", None), "exit_manager.retry_attempts",
         "must be a whole number from 1 to 20; got null"),
        ("yes", at("exit_manager.stop_loss.enabled", "yes"), "exit_manager.stop_loss.enabled",
         "must be true or false; got 'yes'"),
        ("one for true", at("exit_manager.stop_loss.enabled", 1), "exit_manager.stop_loss.enabled",
         "must be true or false; got 1"),
        ("an unknown word", at("exit_manager.price_source", "bid"), "exit_manager.price_source",
         "must be tradable, last or mid; got 'bid'"),
        ("an order type nobody exits with", at("exit_manager.stop_loss.order_type", "stop"),
         "exit_manager.stop_loss.order_type", "must be market or limit; got 'stop'"),
        ("two ways to trail", at("trade_exit.trailing", {"pct": 1, "distance": 1}), "trade_exit.trailing",
         "must have exactly one of pct, distance, atr; got pct, distance"),
        ("the second trail", at("trade_exit.trailing", [{"pct": 1}, {"pct": 0}]), "trade_exit.trailing.1.pct",
         "must be a number above 0 and at most 100; got 0"),
        ("a trail that is a number", at("trade_exit.trailing", 1), "trade_exit.trailing",
         "must be an object or a list of objects; got 1"),
        ("a ratio that is none", at("risk_reward.symbol_specific_ratios", {"GME": 0}),
         "risk_reward.symbol_specific_ratios.GME", "must be a number above 0 and at most 100; got 0"),
        ("accounts in a list", {"accounts": ["paper"]}, "accounts", "must be an object of accounts; got a list"),
        ("a name that no account has", {"accounts": {"my account": {}}}, "accounts.my account",
         "must be the name of an account: letters, digits, - and _; got 'my account'"),
        ("a symbol in small letters", {"symbols": {"aapl": {}}}, "symbols.aapl",
         "must be a symbol: capital letters, digits and any of . / _ -; got 'aapl'"),
        ("a mistake for one account", {"accounts": {"paper": at("exit_manager.retry_attempts", 0)}},
         "accounts.paper.exit_manager.retry_attempts", "must be a whole number from 1 to 20; got 0"),
        ("accounts below an account", {"accounts": {"paper": {"symbols": {}}}}, "accounts.paper.symbols",
         "is unknown; known here: exit_manager, trade_exit, risk_reward"),
        ("an account that is a number", {"accounts": {"paper": 1}}, "accounts.paper",
         "must be an object with any of exit_manager, trade_exit, risk_reward; got 1"),
        ("a mistake for one symbol", {"symbols": {"AAPL": at("trade_exit.mode", "range")}},
         "symbols.AAPL.trade_exit.mode", "must be percent or atr; got 'range'"),
    ],
)  # fmt: skip
def test_refuses_a_value(_case: str, document: Any, path: str, text: str) -> None:
    assert problems_of(document) == {path: text}


def test_names_every_mistake_at_once() -> None:
    document = {
        "exit_manager": {"retry_attempts": 0, "adopt": "maybe"},
        "accounts": {"paper": {"trade_exit": {"modes": 1}}},
        "nothing": 1,
    }
    assert set(problems_of(document)) == {
        "nothing", "exit_manager.retry_attempts", "exit_manager.adopt", "accounts.paper.trade_exit.modes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "document", "path", "text"),
    [
        ("least above most", at("trade_exit.risk_reward", {"min_ratio": 2, "max_ratio": D("1.5")}),
         "trade_exit.risk_reward.min_ratio", "must not be above max_ratio (1.5); got 2"),
        ("least above the default of most", at("trade_exit.risk_reward.min_ratio", 4),
         "trade_exit.risk_reward.min_ratio", "must not be above max_ratio (3); got 4"),
        ("a retry tighter than the first try", at("exit_manager.retry_slippage_bps", 100),
         "exit_manager.retry_slippage_bps", "must not be below max_slippage_bps (150); got 100"),
        ("a break-even that fires at once", at("trade_exit.break_even", {"at_profit_pct": 1, "offset_pct": 1}),
         "trade_exit.break_even.offset_pct", "must be below at_profit_pct (1), or it would fire at once; got 1"),
        ("a break-even after a second target", at("trade_exit.break_even.after_rung", 2),
         "trade_exit.break_even.after_rung", "must be 1, as there is one target; got 2"),
        ("a price confirmed when it is stale", at("exit_manager.prices.confirm_seconds", 61),
         "exit_manager.prices.confirm_seconds",
         "must not be above max_age_seconds (60), or it would be stale by then; got 61"),
        ("for one symbol", {"symbols": {"AAPL": at("trade_exit.risk_reward.max_ratio", D("0.5"))}},
         "symbols.AAPL.trade_exit.risk_reward.min_ratio", "must not be above max_ratio (0.5); got 1"),
        ("between an account and a symbol",
         {"accounts": {"paper": at("trade_exit.risk_reward.min_ratio", 2)},
          "symbols": {"AAPL": at("trade_exit.risk_reward.max_ratio", D("1.5"))}},
         "symbols.AAPL.trade_exit.risk_reward.min_ratio", "must not be above max_ratio (1.5); got 2 (with account paper)"),
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit_together(_case: str, document: Any, path: str, text: str) -> None:
    assert problems_of(document) == {}
    with pytest.raises(InvalidPolicy) as caught:
        require_valid(document, file={}, environment={})
    assert caught.value.problems == {path: text}


def test_a_target_switched_off_for_a_symbol_contradicts_what_an_account_does_after_it() -> None:
    document = {
        "accounts": {"paper": at("trade_exit.break_even.after_rung", 1)},
        "symbols": {"AAPL": at("exit_manager.profit_taking.enabled", False)},
    }
    assert conflicts_in(Sources(file=document)) == {
        "symbols.AAPL.trade_exit.break_even.after_rung": "needs exit_manager.profit_taking to be enabled, "
        "as it comes after the target (with account paper)"
    }


def test_many_overrides_are_checked_in_no_time() -> None:
    stop = at("exit_manager.stop_loss.threshold_pct", 2)
    document = {
        "accounts": {f"a{number}": stop for number in range(200)},
        "symbols": {f"S{number}": stop for number in range(2_000)},
    }
    began = time.perf_counter()
    assert problems_of(document) == {}
    assert conflicts_in(Sources(file=document)) == {}
    assert time.perf_counter() - began < 5


def test_a_document_has_to_fit_the_file_below_it() -> None:
    document = at("trade_exit.risk_reward.max_ratio", 2)
    require_valid(document, file={}, environment={})
    with pytest.raises(InvalidPolicy, match=r"must not be above max_ratio \(2\); got 2.5"):
        require_valid(document, file=at("trade_exit.risk_reward.min_ratio", D("2.5")), environment={})


@pytest.mark.parametrize(
    ("_case", "document", "warnings"),
    [
        ("the defaults", {}, []),
        ("as much to win as to lose", at("exit_manager.profit_taking.threshold_pct", 1),
         ["exit_manager.profit_taking.threshold_pct (1) is not above stop_loss.threshold_pct (1): "
          "it risks as much as it can win"]),
        ("no stop", at("exit_manager.stop_loss.enabled", False),
         ["exit_manager.stop_loss.enabled is false: positions without a plan of their own have no stop"]),
        ("a base that is never used", at("trade_exit.risk_reward.base_ratio", 5),
         ["trade_exit.risk_reward.base_ratio (5) lies outside min_ratio and max_ratio (1 to 3)"]),
    ],
)  # fmt: skip
def test_warns_of(_case: str, document: Any, warnings: list[str]) -> None:
    assert warnings_of(effective([Layer("file", document)])) == warnings


def test_the_settings_of_a_position_are_checked_like_any_other() -> None:
    assert override_problems({"trade_exit": {"mode": "atr"}}) == {}
    assert override_problems({"accounts": {}}) == {
        "accounts": "is unknown; known here: exit_manager, trade_exit, risk_reward"
    }
    assert override_problems(7) == {
        "overrides": "must be an object with any of exit_manager, trade_exit, risk_reward; got 7"
    }


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.decimals()
keys = st.sampled_from(
    ["exit_manager", "trade_exit", "risk_reward", "accounts", "symbols", "stop_loss", "trailing", "AAPL", "break_even",
     "symbol_specific_ratios", "threshold_pct", "atr", "prices", "x"]
)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@given(anything)
def test_whatever_it_is_there_are_problems_or_a_configuration(document: Any) -> None:
    if not problems_of(document) and not conflicts_in(Sources(file=document or {})):
        assert isinstance(effective(Sources(file=document or {}).layers()), Policy)
