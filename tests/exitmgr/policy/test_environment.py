"""Variables set keys by their path; a name or a value that is wrong is refused by the name of its variable."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.policy.environment import read_environment
from exitmgr.policy.schema import InvalidPolicy

D = Decimal

P = "EXITMGR_TRADING__"


@pytest.mark.parametrize(
    ("_case", "name", "value", "document"),
    [
        ("a number", "EXIT_MANAGER__STOP_LOSS__THRESHOLD_PCT", "1.5",
         {"exit_manager": {"stop_loss": {"threshold_pct": D("1.5")}}}),
        ("a truth value", "EXIT_MANAGER__STOP_LOSS__ENABLED", "false",
         {"exit_manager": {"stop_loss": {"enabled": False}}}),
        ("nothing", "EXIT_MANAGER__PRICES__MAX_SPREAD_PCT", "", {"exit_manager": {"prices": {"max_spread_pct": None}}}),
        ("an object", "TRADE_EXIT__TRAILING", "[{pct: 1}]", {"trade_exit": {"trailing": [{"pct": 1}]}}),
        ("a ratio by symbol", "RISK_REWARD__SYMBOL_SPECIFIC_RATIOS__GME", "2",
         {"risk_reward": {"symbol_specific_ratios": {"GME": 2}}}),
    ],
)  # fmt: skip
def test_reads(_case: str, name: str, value: str, document: object) -> None:
    assert read_environment({P + name: value, "PATH": "/bin", "EXITMGR_VAR": "x"}) == document


@pytest.mark.parametrize(
    ("_case", "name", "value", "text"),
    [
        ("a section nobody knows", "EXITS__X", "1", "is unknown; known here: exit_manager, trade_exit, risk_reward"),
        ("a slip", "EXIT_MANAGER__RETRY_ATTEMPT", "1", "is unknown; did you mean retry_attempts? known here: "),
        ("a section", "EXIT_MANAGER__PRICES", "{}", "names a section, not a key; keys here: max_age_seconds, "),
        ("beyond a key", "TRADE_EXIT__TRAILING__PCT", "1", "goes beyond the key trailing; give the whole value, as in "),
        ("an account", "ACCOUNTS__PAPER", "1", "is unknown; known here: exit_manager, trade_exit, risk_reward"),
        ("a value out of bounds", "EXIT_MANAGER__RETRY_ATTEMPTS", "0", "must be a whole number from 1 to 20; got 0"),
        ("a value inside an object", "TRADE_EXIT__TRAILING", "{pct: 0}", "must be a number above 0 and at most 100; got 0"),
        ("no YAML", "TRADE_EXIT__TRAILING", "{pct: ", "line 1, column 7: "),
    ],
)  # fmt: skip
def test_refuses(_case: str, name: str, value: str, text: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        read_environment({P + name: value})
    assert list(caught.value.problems) == [P + name]
    assert caught.value.problems[P + name].startswith(text)
