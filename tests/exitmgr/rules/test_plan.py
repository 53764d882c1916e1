"""Plans as people write them: what is understood, and how each mistake is answered."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.plan import (
    Atr,
    BreakEven,
    DecayStep,
    InvalidPlan,
    Plan,
    SessionClose,
    Stagnation,
    StopLoss,
    TakeProfit,
    Trailing,
    parse_plan,
    plan_as_json,
)
from tests.exitmgr.rules.written import plans, problems_of

D = Decimal
PERCENT = "must be a number above 0 and at most 100; got "
AMOUNT = "must be a number above 0 and at most 1000000000; got "
PARTS = "stop_loss, take_profits, trailing, break_even, time_limit_seconds, stagnation, session_close, price_source"
STOP = "order_type, time_in_force, pct, price, distance, atr"
RUNG = "order_type, time_in_force, pct, price, rr, schedule, fraction_pct"
TRAIL = "pct, distance, atr, activation_pct"


@pytest.mark.parametrize(
    ("_case", "given", "plan"),
    [
        ("nothing", {}, Plan()),
        ("null", None, Plan()),
        ("no stop", {"stop_loss": None}, Plan()),
        ("an empty ladder", {"take_profits": []}, Plan()),
        ("null for a ladder", {"take_profits": None}, Plan()),
        ("null for trails", {"trailing": None}, Plan()),
        ("a single trail", {"trailing": {"pct": 1}}, Plan(trailing=(Trailing(pct=D(1)),))),
        (
            "trails that tighten in steps",
            {"trailing": [{"pct": 2}, {"atr": {"period": "7"}, "activation_pct": "3.5"}]},
            Plan(trailing=(Trailing(pct=D(2)), Trailing(atr=Atr(period=7, multiple=D(2)), activation_pct=D("3.5")))),
        ),
        ("a range by default", {"stop_loss": {"atr": {}}}, Plan(stop_loss=StopLoss(atr=Atr(period=14, multiple=D(2))))),
        (
            "a decaying target",
            {"take_profits": [{"schedule": [{"after_seconds": 0, "pct": 5}, {"after_seconds": "60", "pct": "2"}]}]},
            Plan(
                take_profits=(
                    TakeProfit(schedule=(DecayStep(after_seconds=0, pct=D(5)), DecayStep(after_seconds=60, pct=D(2)))),
                )
            ),
        ),
        (
            "break-even at a profit",
            {"break_even": {"at_profit_pct": 1}},
            Plan(break_even=BreakEven(at_profit_pct=D(1), offset_pct=D(0), include_fees=False)),
        ),
        (
            "an offset of zero",
            {"break_even": {"at_profit_pct": 1, "offset_pct": "-0"}},
            Plan(break_even=BreakEven(at_profit_pct=D(1))),
        ),
        (
            "break-even after a rung",
            {"take_profits": [{"pct": 1}], "break_even": {"after_rung": "1", "include_fees": True}},
            Plan(take_profits=(TakeProfit(pct=D(1)),), break_even=BreakEven(after_rung=1, include_fees=True)),
        ),
        (
            "timers",
            {"time_limit_seconds": "3600", "stagnation": {"seconds": 1.8e3, "move_pct": "0.5"}, "session_close": {}},
            Plan(
                time_limit_seconds=3600,
                stagnation=Stagnation(seconds=1800, move_pct=D("0.5")),
                session_close=SessionClose(minutes_before=10),
            ),
        ),
        (
            "just at the close",
            {"session_close": {"minutes_before": 0}},
            Plan(session_close=SessionClose(minutes_before=0)),
        ),
        ("the middle price", {"price_source": "mid"}, Plan(price_source="mid")),
        (
            "limit orders",
            {"stop_loss": {"pct": 1, "order_type": "limit", "time_in_force": "ioc"}},
            Plan(stop_loss=StopLoss(pct=D(1), order_type="limit", time_in_force="ioc")),
        ),
        ("a percent", {"stop_loss": {"pct": "1"}}, Plan(stop_loss=StopLoss(pct=D(1)))),
        ("all of it", {"stop_loss": {"pct": "100"}}, Plan(stop_loss=StopLoss(pct=D(100)))),
        ("a number", {"stop_loss": {"pct": 1}}, Plan(stop_loss=StopLoss(pct=D(1)))),
        ("a decimal", {"stop_loss": {"pct": D("0.1")}}, Plan(stop_loss=StopLoss(pct=D("0.1")))),
        ("a JSON float", {"stop_loss": {"pct": 0.1}}, Plan(stop_loss=StopLoss(pct=D("0.1")))),
        ("an exponent", {"stop_loss": {"price": "9.5e1"}}, Plan(stop_loss=StopLoss(price=D(95)))),
        ("blanks around", {"stop_loss": {"price": " 95 "}}, Plan(stop_loss=StopLoss(price=D(95)))),
        ("a price", {"stop_loss": {"price": "95"}}, Plan(stop_loss=StopLoss(price=D(95)))),
        ("a distance", {"stop_loss": {"distance": "2.5"}}, Plan(stop_loss=StopLoss(distance=D("2.5")))),
        ("others as null", {"stop_loss": {"pct": "1", "price": None}}, Plan(stop_loss=StopLoss(pct=D(1)))),
        (
            "a ladder",
            {
                "stop_loss": {"pct": "1"},
                "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"price": "103"}, {"rr": "1.5"}],
            },
            Plan(
                stop_loss=StopLoss(pct=D(1)),
                take_profits=(
                    TakeProfit(pct=D(2), fraction_pct=D(50)),
                    TakeProfit(price=D(103), fraction_pct=D(100)),
                    TakeProfit(rr=D("1.5"), fraction_pct=D(100)),
                ),
            ),
        ),
        (
            "a target above 100 percent",
            {"take_profits": [{"pct": 250}]},
            Plan(take_profits=(TakeProfit(pct=D(250)),)),
        ),
        ("the largest", {"stop_loss": {"price": "1e9"}}, Plan(stop_loss=StopLoss(price=D(1_000_000_000)))),
        ("the finest", {"stop_loss": {"price": "1e-18"}}, Plan(stop_loss=StopLoss(price=D("1e-18")))),
    ],
)
def test_understands(_case, given, plan):
    assert parse_plan(given) == plan


@pytest.mark.parametrize(
    ("_case", "given", "problems"),
    [
        (
            "too fine to be kept",
            {"stop_loss": {"price": "1e-19"}},
            {"stop_loss.price": "must have at most 18 decimals; got '1e-19'"},
        ),
        (
            "both pct and price",
            {"stop_loss": {"pct": "1", "price": "95"}},
            {"stop_loss": "must have exactly one of pct, price, distance, atr; got pct, price"},
        ),
        (
            "neither",
            {"stop_loss": {}},
            {"stop_loss": "must have exactly one of pct, price, distance, atr; got none"},
        ),
        (
            "a rung with all",
            {"take_profits": [{"pct": 1, "price": 2, "rr": 3}]},
            {"take_profits.0": "must have exactly one of pct, price, rr, schedule; got pct, price, rr"},
        ),
        (
            "a rung with a fraction only",
            {"take_profits": [{"fraction_pct": 50}]},
            {"take_profits.0": "must have exactly one of pct, price, rr, schedule; got none"},
        ),
        (
            "a fraction that is null",
            {"take_profits": [{"pct": 1, "fraction_pct": None}]},
            {"take_profits.0.fraction_pct": PERCENT + "null"},
        ),
        (
            "an unknown part",
            {"stoploss": {}},
            {"stoploss": f"is unknown; known here: {PARTS}"},
        ),
        (
            "an unknown key",
            {"stop_loss": {"pct": 1, "percent": 1}},
            {"stop_loss.percent": f"is unknown; known here: {STOP}"},
        ),
        (
            "an unknown key in a rung",
            {"take_profits": [{"pct": 1}, {"pct": 1, "qty": 5}]},
            {"take_profits.1.qty": f"is unknown; known here: {RUNG}"},
        ),
        (
            "a list for a plan",
            [1],
            {"plan": f"must be an object with any of {PARTS}; got a list"},
        ),
        (
            "a word for a plan",
            "x",
            {"plan": f"must be an object with any of {PARTS}; got 'x'"},
        ),
        (
            "a list for an object",
            {"stop_loss": [1]},
            {"stop_loss": f"must be an object with any of {STOP}; got a list"},
        ),
        (
            "a flag for an object",
            {"stop_loss": True},
            {"stop_loss": f"must be an object with any of {STOP}; got true"},
        ),
        (
            "an object for a list",
            {"take_profits": {}},
            {"take_profits": "must be a list of objects; got an object"},
        ),
        ("a word for a list", {"take_profits": "1"}, {"take_profits": "must be a list of objects; got '1'"}),
        (
            "a number for a rung",
            {"take_profits": [{"pct": 1}, 2]},
            {"take_profits.1": f"must be an object with any of {RUNG}; got 2"},
        ),
        (
            "a rung that is missing",
            {"take_profits": [{"pct": 1}], "break_even": {"after_rung": 2}},
            {"break_even.after_rung": "must be from 1 to 1; got 2"},
        ),
        (
            "a rung where there are none",
            {"break_even": {"after_rung": 1}},
            {"break_even.after_rung": "needs take_profits to come after; got 1"},
        ),
        (
            "break-even at a profit and after a rung",
            {"take_profits": [{"pct": 1}], "break_even": {"at_profit_pct": 1, "after_rung": 1}},
            {"break_even": "must have exactly one of at_profit_pct, after_rung; got at_profit_pct, after_rung"},
        ),
        (
            "a break-even stop where it is set",
            {"break_even": {"at_profit_pct": 1, "offset_pct": 1}},
            {"break_even.offset_pct": "must be below at_profit_pct (1), or it would fire at once; got 1"},
        ),
        (
            "fees by halves",
            {"break_even": {"at_profit_pct": 1, "include_fees": "half"}},
            {"break_even.include_fees": "must be true or false; got 'half'"},
        ),
        (
            "a schedule without steps",
            {"take_profits": [{"schedule": []}]},
            {"take_profits.0.schedule": "must not be empty"},
        ),
        (
            "a schedule of other things",
            {"take_profits": [{"schedule": [5]}]},
            {"take_profits.0.schedule.0": "must be an object with any of after_seconds, pct; got 5"},
        ),
        (
            "a schedule that is one step",
            {"take_profits": [{"schedule": {"after_seconds": 0, "pct": 1}}]},
            {"take_profits.0.schedule": "must be a list of objects; got an object"},
        ),
        (
            "a schedule that goes back in time, and stands still",
            {
                "take_profits": [
                    {"pct": 9},
                    {"schedule": [{"after_seconds": at, "pct": 1} for at in (60, 30, 30)]},
                ]
            },
            {
                "take_profits.1.schedule.1.after_seconds": "must be above the 60 of the step before it; got 30",
                "take_profits.1.schedule.2.after_seconds": "must be above the 30 of the step before it; got 30",
            },
        ),
        (
            "half a step",
            {"take_profits": [{"schedule": [{"after_seconds": 0}]}]},
            {"take_profits.0.schedule.0.pct": "is required"},
        ),
        ("half a stagnation", {"stagnation": {"seconds": 60}}, {"stagnation.move_pct": "is required"}),
        (
            "a trail of two kinds, written alone",
            {"trailing": {"pct": 1, "distance": 1}},
            {"trailing": "must have exactly one of pct, distance, atr; got pct, distance"},
        ),
        (
            "a trail of no kind, in a list",
            {"trailing": [{"pct": 1}, {"activation_pct": 1}]},
            {"trailing.1": "must have exactly one of pct, distance, atr; got none"},
        ),
        (
            "an unknown key in a trail written alone",
            {"trailing": {"atr": {"periods": 14}}},
            {"trailing.atr.periods": "is unknown; known here: period, multiple"},
        ),
        (
            "an unknown key in a list of trails",
            {"trailing": [{"atr": {"periods": 14}}]},
            {"trailing.0.atr.periods": "is unknown; known here: period, multiple"},
        ),
        ("a number for a trail", {"trailing": 1}, {"trailing": "must be an object or a list of objects; got 1"}),
        (
            "a list of lists of trails",
            {"trailing": [[{"pct": 1}]]},
            {"trailing.0": f"must be an object with any of {TRAIL}; got a list"},
        ),
        (
            "another kind of order",
            {"stop_loss": {"pct": 1, "order_type": "stop"}},
            {"stop_loss.order_type": "must be 'market' or 'limit'; got 'stop'"},
        ),
        (
            "another time in force",
            {"take_profits": [{"pct": 1, "time_in_force": "GTC"}]},
            {
                "take_profits.0.time_in_force": "must be 'day', 'gtc', 'ioc', 'fok', 'opg' or 'cls'; got 'GTC'",
            },
        ),
        (
            "another price",
            {"price_source": "bid"},
            {"price_source": "must be 'tradable', 'last' or 'mid'; got 'bid'"},
        ),
        (
            "a key in two lines",
            {"stop\nloss": 1},
            {"'stop\\nloss'": f"is unknown; known here: {PARTS}"},
        ),
        ("a key as long as a book", {9 * 10**4 * "x": 1}, {40 * "x" + "...": f"is unknown; known here: {PARTS}"}),
        ("a key that is no text", {"stop_loss": {1: 2}}, {"stop_loss.1": "is no key; keys are text"}),
        (
            "half a character",
            {"price_source": "\ud800"},
            {"price_source": "must be text that can be written in UTF-8; got '\\ud800'"},
        ),
        (
            "a ratio without a stop",
            {"take_profits": [{"pct": 1}, {"rr": 2}, {"rr": 3}]},
            {
                "take_profits.1.rr": "needs a stop_loss to measure the risk from",
                "take_profits.2.rr": "needs a stop_loss to measure the risk from",
            },
        ),
        (
            "every mistake at once",
            {"x": 1, "stop_loss": {"pct": 0, "y": 1}, "take_profits": [{"price": "?"}]},
            {
                "stop_loss.pct": PERCENT + "0",
                "stop_loss.y": f"is unknown; known here: {STOP}",
                "take_profits.0.price": AMOUNT + "'?'",
                "x": f"is unknown; known here: {PARTS}",
            },
        ),
    ],
)
def test_refuses(_case, given, problems):
    with pytest.raises(InvalidPlan) as refused:
        parse_plan(given)
    assert refused.value.problems == problems
    assert str(refused.value) == "; ".join(f"{path}: {text}" for path, text in problems.items())


def test_a_plan_is_taken_as_it_is_and_cannot_be_changed():
    plan = parse_plan({"stop_loss": {"pct": 1}})
    assert parse_plan(plan) is plan
    with pytest.raises(ValueError, match="frozen"):
        plan.stop_loss.pct = D(2)


def test_as_json_leaves_out_what_was_not_written_and_writes_plain_decimals():
    plan = parse_plan(
        {"stop_loss": {"price": "1.5e-9"}, "take_profits": [{"pct": "2.50", "price": None}], "trailing": {"atr": {}}}
    )
    assert plan_as_json(plan) == {
        "stop_loss": {"price": "0.0000000015"},
        "take_profits": [{"pct": "2.50"}],
        "trailing": [{"atr": {}}],
    }


@given(plans)
def test_a_plan_survives_being_written_down(written):
    plan = parse_plan(written)
    assert parse_plan(json.loads(json.dumps(plan_as_json(plan)))) == plan


KEYS = sorted(
    {
        key
        for part in (Plan, StopLoss, TakeProfit, Trailing, Atr, DecayStep, BreakEven, Stagnation, SessionClose)
        for key in part.model_fields
    }
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.decimals() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_understood_or_refused_in_one_line_a_field(value):
    problems = problems_of(value)
    assert problems is None or len(problems) > 0
    assert all(path and text and "\n" not in path + text for path, text in (problems or {}).items())


@given(plans, st.data())
def test_a_plan_with_one_value_replaced_is_understood_or_refused_too(written, data):
    spoilt, at = json.loads(json.dumps(written, default=str)), None
    for _ in range(data.draw(st.integers(1, 4))):
        inside = spoilt if at is None else at[0][at[1]]
        if not isinstance(inside, dict | list) or not inside:
            break
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        at = (inside, data.draw(st.sampled_from(keys)))
    if at is not None:
        at[0][at[1]] = data.draw(json_values)
    problems = problems_of(spoilt)
    assert problems is None or all(path and text for path, text in problems.items())
