"""Plans as people write them: what is understood, and how each mistake is answered."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.plan import InvalidPlan, Plan, StopLoss, TakeProfit, parse_plan, plan_as_json

D = Decimal
PERCENT = "must be a number above 0 and at most 100; got "
AMOUNT = "must be a number above 0 and at most 1000000000; got "


@pytest.mark.parametrize(
    ("_case", "given", "plan"),
    [
        ("nothing", {}, Plan()),
        ("null", None, Plan()),
        ("no stop", {"stop_loss": None}, Plan()),
        ("an empty ladder", {"take_profits": []}, Plan()),
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
    ("_case", "value", "shown"),
    [
        ("negative", "-1", "'-1'"),
        ("zero", 0, "0"),
        ("zero in words", "0.000", "'0.000'"),
        ("a hair above 100", "100.000000000000000001", "'100.000000000000000001'"),
        ("NaN", "NaN", "'NaN'"),
        ("a real NaN", D("NaN"), "NaN"),
        ("a signalling NaN", D("sNaN"), "sNaN"),
        ("a float NaN", float("nan"), "nan"),
        ("Infinity", "Infinity", "'Infinity'"),
        ("a real infinity", D("Infinity"), "Infinity"),
        ("a float infinity", float("-inf"), "-inf"),
        ("true", True, "true"),
        ("false", False, "false"),
        ("words", "abc", "'abc'"),
        ("empty", "", "''"),
        ("a percent sign", "1%", "'1%'"),
        ("a comma", "1,5", "'1,5'"),
        ("an underscore", "1_0", "'1_0'"),
        ("digits of another script", "\u0661", "'\u0661'"),
        ("hexadecimal", "0x1", "'0x1'"),
        ("two numbers", "1 2", "'1 2'"),
        ("a list", [1], "a list"),
        ("an object", {"value": 1}, "an object"),
        ("huge", "1e999", "'1e999'"),
        ("an exponent beyond all bounds", "1e99999999999999999999", "'1e99999999999999999999'"),
        ("a huge text", "9" * 100_000, "'" + 40 * "9" + "...'"),
    ],
)
def test_refuses_what_is_no_percentage(_case, value, shown):
    with pytest.raises(InvalidPlan) as stop:
        parse_plan({"stop_loss": {"pct": value}})
    assert stop.value.problems == {"stop_loss.pct": PERCENT + shown}
    with pytest.raises(InvalidPlan) as rung:
        parse_plan({"take_profits": [{"pct": 1}, {"pct": 2, "fraction_pct": value}]})
    assert rung.value.problems == {"take_profits.1.fraction_pct": PERCENT + shown}


@pytest.mark.parametrize("path", ["stop_loss.price", "stop_loss.distance", "take_profits.0.price", "take_profits.0.rr"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "'0'"), (-5, "-5"), ("NaN", "'NaN'"), (True, "true"), ("1000000000.01", "'1000000000.01'")],
)
def test_refuses_what_is_no_price(path, value, shown):
    key = path.rpartition(".")[2]
    part = {key: value}
    with pytest.raises(InvalidPlan) as refused:
        parse_plan({"stop_loss": part} if path.startswith("stop") else {"take_profits": [part]})
    assert refused.value.problems == {path: AMOUNT + shown}


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
            {"stop_loss": "must have exactly one of pct, price, distance; got pct, price"},
        ),
        (
            "neither",
            {"stop_loss": {}},
            {"stop_loss": "must have exactly one of pct, price, distance; got none"},
        ),
        (
            "a rung with all",
            {"take_profits": [{"pct": 1, "price": 2, "rr": 3}]},
            {"take_profits.0": "must have exactly one of pct, price, rr; got pct, price, rr"},
        ),
        (
            "a rung with a fraction only",
            {"take_profits": [{"fraction_pct": 50}]},
            {"take_profits.0": "must have exactly one of pct, price, rr; got none"},
        ),
        (
            "a fraction that is null",
            {"take_profits": [{"pct": 1, "fraction_pct": None}]},
            {"take_profits.0.fraction_pct": PERCENT + "null"},
        ),
        (
            "an unknown part",
            {"stoploss": {}},
            {"stoploss": "is unknown; known here: stop_loss, take_profits"},
        ),
        (
            "an unknown key",
            {"stop_loss": {"pct": 1, "percent": 1}},
            {"stop_loss.percent": "is unknown; known here: pct, price, distance"},
        ),
        (
            "an unknown key in a rung",
            {"take_profits": [{"pct": 1}, {"pct": 1, "qty": 5}]},
            {"take_profits.1.qty": "is unknown; known here: pct, price, rr, fraction_pct"},
        ),
        (
            "a list for a plan",
            [1],
            {"plan": "must be an object with any of stop_loss, take_profits; got a list"},
        ),
        (
            "a word for a plan",
            "x",
            {"plan": "must be an object with any of stop_loss, take_profits; got 'x'"},
        ),
        (
            "a list for an object",
            {"stop_loss": [1]},
            {"stop_loss": "must be an object with any of pct, price, distance; got a list"},
        ),
        (
            "a flag for an object",
            {"stop_loss": True},
            {"stop_loss": "must be an object with any of pct, price, distance; got true"},
        ),
        (
            "an object for a list",
            {"take_profits": {}},
            {"take_profits": "must be a list of objects; got an object"},
        ),
        ("a word for a list", {"take_profits": "1"}, {"take_profits": "must be a list of objects; got '1'"}),
        ("null for a list", {"take_profits": None}, {"take_profits": "must be a list of objects; got null"}),
        (
            "a number for a rung",
            {"take_profits": [{"pct": 1}, 2]},
            {"take_profits.1": "must be an object with any of pct, price, rr, fraction_pct; got 2"},
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
                "stop_loss.y": "is unknown; known here: pct, price, distance",
                "take_profits.0.price": AMOUNT + "'?'",
                "x": "is unknown; known here: stop_loss, take_profits",
            },
        ),
    ],
)
def test_refuses(_case, given, problems):
    with pytest.raises(InvalidPlan) as refused:
        parse_plan(given)
    assert refused.value.problems == problems
    assert str(refused.value) == "; ".join(f"{path}: {text}" for path, text in problems.items())


def test_an_integer_too_long_to_be_printed_is_refused_like_any_other():
    with pytest.raises(InvalidPlan) as refused:
        parse_plan({"stop_loss": {"pct": 10**5000}})
    assert refused.value.problems == {"stop_loss.pct": PERCENT + "1" + 39 * "0" + "..."}


def test_a_plan_is_taken_as_it_is_and_cannot_be_changed():
    plan = parse_plan({"stop_loss": {"pct": 1}})
    assert parse_plan(plan) is plan
    with pytest.raises(ValueError, match="frozen"):
        plan.stop_loss.pct = D(2)


def test_as_json_leaves_out_what_is_not_set_and_writes_plain_decimals():
    plan = parse_plan({"stop_loss": {"price": "1e2"}, "take_profits": [{"pct": "2.50"}]})
    assert plan_as_json(plan) == {
        "stop_loss": {"price": "100"},
        "take_profits": [{"pct": "2.50", "fraction_pct": "100"}],
    }


amounts = st.decimals("0.000000001", "1000000000", places=9)
percentages = st.decimals("0.0001", "100", places=4)
stops = st.one_of(
    st.fixed_dictionaries({"pct": percentages}),
    st.fixed_dictionaries({"price": amounts}),
    st.fixed_dictionaries({"distance": amounts}),
)
rungs = st.one_of(
    *(st.fixed_dictionaries({key: amounts}, optional={"fraction_pct": percentages}) for key in ("pct", "price", "rr"))
)


@given(st.fixed_dictionaries({"stop_loss": stops, "take_profits": st.lists(rungs, max_size=4)}))
def test_a_plan_survives_being_written_down(written):
    plan = parse_plan(written)
    assert parse_plan(json.loads(json.dumps(plan_as_json(plan)))) == plan


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["stop_loss", "take_profits", "pct", "price", "rr", "distance", "fraction_pct", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_understood_or_refused_in_one_line_a_field(value):
    problems = problems_of(value)
    assert problems is None or len(problems) > 0
    assert all(text and "\n" not in text for text in (problems or {}).values())


def problems_of(value):
    try:
        parse_plan(value)
    except InvalidPlan as refused:
        return refused.problems
    return None
