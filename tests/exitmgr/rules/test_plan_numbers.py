"""Numbers in a plan: what is none is refused at its path, in words that say what would be right."""

from decimal import Decimal

import pytest

from exitmgr.rules.plan import InvalidPlan, parse_plan
from tests.exitmgr.rules.written import problems_of

D = Decimal
PERCENT = "must be a number above 0 and at most 100; got "
WHOLE = "must be a whole number from {} to {}; got "


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


def written_at(path, value):
    """Return a plan with a value at a path like take_profits.0.schedule.1.pct, and what that needs around it."""
    plan = {
        "take_profits.0.schedule.1.pct": {
            "take_profits": [{"schedule": [{"after_seconds": 0, "pct": 5}, {"after_seconds": 60, "pct": value}]}]
        },
        "take_profits.0.schedule.0.after_seconds": {
            "take_profits": [{"schedule": [{"after_seconds": value, "pct": 5}]}]
        },
        "stagnation.move_pct": {"stagnation": {"seconds": 60, "move_pct": value}},
        "stagnation.seconds": {"stagnation": {"seconds": value, "move_pct": 1}},
        "trailing.activation_pct": {"trailing": {"pct": 1, "activation_pct": value}},
        "break_even.offset_pct": {"break_even": {"at_profit_pct": 1, "offset_pct": value}},
    }.get(path)
    if plan is not None:
        return plan
    for key in reversed(path.split(".")):
        value = [value] if key == "0" else {key: value}
    return value


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("stop_loss.pct", 100),
        ("stop_loss.price", 1_000_000_000),
        ("stop_loss.distance", 1_000_000_000),
        ("stop_loss.atr.multiple", 1_000_000_000),
        ("take_profits.0.pct", 1_000_000_000),
        ("take_profits.0.price", 1_000_000_000),
        ("take_profits.0.rr", 1_000_000_000),
        ("take_profits.0.schedule.1.pct", 1_000_000_000),
        ("trailing.pct", 100),
        ("trailing.0.pct", 100),
        ("trailing.distance", 1_000_000_000),
        ("trailing.0.atr.multiple", 1_000_000_000),
        ("trailing.activation_pct", 1_000_000_000),
        ("break_even.at_profit_pct", 1_000_000_000),
        ("stagnation.move_pct", 100),
    ],
)
def test_refuses_what_is_no_amount_at_its_path(path, most):
    for value, shown in (
        ("0", "'0'"),
        (-5, "-5"),
        ("NaN", "'NaN'"),
        (D("-Infinity"), "-Infinity"),
        (True, "true"),
        ([], "a list"),
        (f"{most}.01", f"'{most}.01'"),
        (D("1e999999999"), "1E+999999999"),
    ):
        assert problems_of(written_at(path, value)) == {
            path: f"must be a number above 0 and at most {most}; got {shown}"
        }
    assert problems_of(written_at(path, D("1e-999999999"))) == {path: "must have at most 18 decimals; got 1E-999999999"}


@pytest.mark.parametrize(
    ("path", "least", "most"),
    [
        ("stop_loss.atr.period", 1, 1_000),
        ("trailing.atr.period", 1, 1_000),
        ("take_profits.0.schedule.0.after_seconds", 0, 315_360_000),
        ("break_even.after_rung", 1, 1_000),
        ("time_limit_seconds", 1, 315_360_000),
        ("stagnation.seconds", 1, 315_360_000),
        ("session_close.minutes_before", 0, 1_440),
    ],
)
def test_refuses_what_is_no_whole_number_at_its_path(path, least, most):
    for value, shown in (
        (least - 1, str(least - 1)),
        (most + 1, str(most + 1)),
        ("1.5", "'1.5'"),
        (1.5, "1.5"),
        (D("1.000000000000000001"), "1.000000000000000001"),
        (True, "true"),
        ("NaN", "'NaN'"),
        (float("inf"), "inf"),
        ("ten", "'ten'"),
        ("1e9999", "'1e9999'"),
        (D("1e999999999"), "1E+999999999"),
        ({}, "an object"),
    ):
        assert problems_of(written_at(path, value)) == {path: WHOLE.format(least, most) + shown}


@pytest.mark.parametrize(
    ("value", "shown"), [("-0.1", "'-0.1'"), ("100.01", "'100.01'"), ("NaN", "'NaN'"), (None, "null"), (False, "false")]
)
def test_refuses_what_is_no_offset(value, shown):
    said = f"must be a number from 0 to 100; got {shown}"
    assert problems_of(written_at("break_even.offset_pct", value)) == {"break_even.offset_pct": said}


def test_a_zero_whose_digits_would_fill_the_memory_is_a_zero():
    plan = parse_plan(written_at("break_even.offset_pct", D("0e-999999999")))
    assert str(plan.break_even.offset_pct) == "0"


def test_an_integer_too_long_to_be_printed_is_refused_like_any_other():
    with pytest.raises(InvalidPlan) as refused:
        parse_plan({"stop_loss": {"pct": 10**5000}})
    assert refused.value.problems == {"stop_loss.pct": PERCENT + "1" + 39 * "0" + "..."}
