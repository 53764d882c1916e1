"""What an entry has to pass, check by check; each table has a case at the limit and one beyond it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from exitmgr.rules.risk_checks import CHECKS, EntryAsk, RiskLimits, Standing, strictest, violations
from positions.values import Side, TradingState

D = Decimal
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ACTIVE, REDUCE, HALTED = TradingState.ACTIVE, TradingState.REDUCE_ONLY, TradingState.HALTED


def ask(**fields):
    usual = {"account": "paper", "symbol": "AAPL", "side": Side.LONG, "quantity": D(10), "price": D(100)}
    return EntryAsk(**usual | fields)


def found(asked, limits=None, standing=None):
    return violations(ask(**asked), limits=RiskLimits(**limits or {}), standing=Standing(**standing or {}), now=NOON)


def before(seconds):
    return NOON - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("_case", "asked", "limits", "standing", "problem"),
    [
        ("nothing speaks against it", {}, {}, {}, None),
        ("a reducing account", {}, {}, {"account_state": REDUCE}, ("account", "paper is reduce_only: it takes no")),
        ("a halted account", {}, {}, {"account_state": HALTED}, ("account", "paper is halted: it takes no entries")),
        ("all reduce", {}, {}, {"overall_state": REDUCE}, ("account", "all accounts are reduce_only: none takes")),
        ("all halted", {}, {}, {"overall_state": HALTED}, ("account", "all accounts are halted: none takes")),
        ("not tradable", {}, {}, {"tradable": False}, ("symbol", "AAPL is not tradable at present")),
        ("a short of what cannot be", {"side": Side.SHORT}, {}, {"shortable": False}, ("side", "cannot be sold short")),
        ("a long of what cannot be sold short", {}, {}, {"shortable": False}, None),
        ("an allowed symbol", {}, {"allowed_symbols": ("IBM", "AAPL")}, {}, None),
        ("another symbol", {}, {"allowed_symbols": ("IBM",)}, {}, ("symbol", "may not trade AAPL; it may trade IBM")),
        ("no symbol at all", {}, {"allowed_symbols": ()}, {}, ("symbol", "it may trade none")),
        ("the largest quantity", {}, {"max_order_quantity": D(10)}, {}, None),
        ("beyond it", {}, {"max_order_quantity": D("9.99")}, {}, ("quantity", "10 exceeds the largest order of 9.99")),
        ("the largest notional", {}, {"max_order_notional": D(1000)}, {}, None),
        ("beyond it", {}, {"max_order_notional": D("999.99")}, {}, ("quantity", "1000 exceeds the account's largest")),
        ("one position left", {}, {"max_open_positions": 3}, {"open_positions": 2}, None),
        ("none left", {}, {"max_open_positions": 2}, {"open_positions": 2}, ("account", "its limit of 2 positions")),
        ("one bracket left", {}, {"max_active_brackets": 3}, {"brackets": 2}, None),
        ("none left", {}, {"max_active_brackets": 2}, {"brackets": 2}, ("account", "its limit of 2 brackets")),
    ],
)  # fmt: skip
def test_what_speaks_against_an_entry(_case, asked, limits, standing, problem):
    told = found(asked, limits, standing)
    if problem is None:
        assert told == {}
        return
    field, text = problem
    assert list(told) == [field]
    assert text in told[field]


@pytest.mark.parametrize(
    ("_case", "side", "limit", "refused"),
    [
        ("a buy at the collar", Side.LONG, "110.11", False),
        ("a buy beyond it", Side.LONG, "110.12", True),
        ("a buy far below: it only rests", Side.LONG, "1", False),
        ("a sale at the collar", Side.SHORT, "89.91", False),
        ("a sale beyond it", Side.SHORT, "89.90", True),
        ("a sale far above: it only rests", Side.SHORT, "500", False),
    ],
)
def test_a_limit_pays_no_more_than_the_collar_beyond_the_market(_case, side, limit, refused):
    told = found(
        {"side": side, "price": D(limit), "limit_price": D(limit)},
        {"price_collar_pct": D(10)},
        {"bid": D("99.90"), "ask": D("100.10")},
    )
    assert list(told) == (["limit_price"] if refused else [])


def test_without_a_fresh_price_or_a_limit_there_is_nothing_to_compare():
    assert found({"limit_price": D(900), "price": D(900)}, {"price_collar_pct": D(10)}) == {}
    assert found({}, {"price_collar_pct": D(10)}, {"bid": D(1), "ask": D(2)}) == {}


@pytest.mark.parametrize(
    ("_case", "standing", "text"),
    [
        ("never left", {}, None),
        ("being left", {"leaving": "order 7 (stop_loss)"}, "is being left by order 7 (stop_loss)"),
        ("left a moment ago", {"last_exit_at": before(1)}, "entries are taken again in 299 s"),
        ("just before the end", {"last_exit_at": before(299.4)}, "entries are taken again in 1 s"),
        ("at its end", {"last_exit_at": before(300)}, None),
    ],
)
def test_after_an_exit_no_entry_for_the_cooldown(_case, standing, text):
    told = found({}, {"exit_cooldown_seconds": 300}, standing)
    assert list(told) == (["symbol"] if text else [])
    assert text is None or text in told["symbol"]


def test_without_a_cooldown_only_a_live_exit_counts():
    assert found({}, {}, {"last_exit_at": NOON}) == {}
    assert list(found({}, {}, {"leaving": "order 7 (manual)"})) == ["symbol"]


@pytest.mark.parametrize(
    ("_case", "asked", "like_this_at", "refused"),
    [
        ("the first", {}, None, False),
        ("at once again", {}, NOON, True),
        ("by a clock that was set back", {}, before(-1), True),
        ("within the span", {}, before(1.9), True),
        ("after it", {}, before(2), False),
        ("meant", {"allow_duplicate": True}, NOON, False),
    ],
)
def test_the_same_entry_twice_is_refused_unless_it_is_meant(_case, asked, like_this_at, refused):
    told = found(asked, {"duplicate_seconds": 2}, {"like_this_at": like_this_at})
    assert list(told) == (["request_id"] if refused else [])


@pytest.mark.parametrize(
    ("_case", "automatic", "entries", "refused"),
    [
        ("a person may", False, 50, False),
        ("the last one allowed", True, 4, False),
        ("one too many", True, 5, True),
    ],
)
def test_a_strategy_enters_a_symbol_only_so_often(_case, automatic, entries, refused):
    told = found({"automatic": automatic}, {"max_automatic_entries_per_minute": 5}, {"automatic_entries": entries})
    assert list(told) == (["strategy"] if refused else [])


def test_everything_that_speaks_against_it_is_told_at_once():
    told = found(
        {"limit_price": D(200), "price": D(200)},
        {"max_order_quantity": D(1), "max_order_notional": D(1), "price_collar_pct": D(10), "max_open_positions": 0},
        {"account_state": HALTED, "ask": D(100), "bid": D(100), "tradable": False},
    )
    assert list(told) == ["account", "symbol", "quantity", "limit_price"]
    assert "halted" in told["account"]
    assert "largest order of 1" in told["quantity"]


def test_no_check_is_left_out():
    assert len(CHECKS) == len(set(CHECKS)) == 12


@pytest.mark.parametrize(
    ("states", "strict"),
    [((ACTIVE, ACTIVE), ACTIVE), ((ACTIVE, REDUCE), REDUCE), ((HALTED, REDUCE), HALTED), ((REDUCE, ACTIVE), REDUCE)],
)
def test_the_stricter_of_two_states_counts(states, strict):
    assert strictest(*states) is strict
