"""Plan to triggers: where the levels lie, for both sides, and which plans no entry price can carry."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.compile import compile_plan, stop_level, target_levels
from exitmgr.rules.plan import InvalidPlan, StopLoss, parse_plan
from exitmgr.rules.types import Direction, LevelTrigger
from positions.values import Basis, Side

LONG, SHORT = Side.LONG, Side.SHORT
D = Decimal


@pytest.mark.parametrize(
    ("_case", "stop", "side", "entry", "level"),
    [
        ("one percent", {"pct": "1"}, LONG, "100", "99"),
        ("one percent, short", {"pct": "1"}, SHORT, "100", "101"),
        ("a price", {"price": "95"}, LONG, "100", "95"),
        ("a price, short", {"price": "105"}, SHORT, "100", "105"),
        ("a distance", {"distance": "2.5"}, LONG, "100", "97.5"),
        ("a distance, short", {"distance": "2.5"}, SHORT, "100", "102.5"),
        ("a hair below the entry", {"price": "99.99"}, LONG, "100", "99.99"),
        ("a hair above it, short", {"price": "100.01"}, SHORT, "100", "100.01"),
        ("a hair above zero", {"pct": "99.99"}, LONG, "100", "0.01"),
        ("double the entry, short", {"pct": "100"}, SHORT, "100", "200"),
        ("a satoshi coin", {"pct": "10"}, LONG, "0.00001234", "0.000011106"),
    ],
)
def test_where_the_stop_lies(_case, stop, side, entry, level):
    assert stop_level(StopLoss(**stop), side=side, entry_price=D(entry)) == D(level)


@pytest.mark.parametrize(
    ("_case", "plan", "side", "levels"),
    [
        ("a percent", {"take_profits": [{"pct": "2"}]}, LONG, ["102"]),
        ("a percent, short", {"take_profits": [{"pct": "2"}]}, SHORT, ["98"]),
        ("a price", {"take_profits": [{"price": "103"}]}, LONG, ["103"]),
        ("a price, short", {"take_profits": [{"price": "97"}]}, SHORT, ["97"]),
        ("a ratio", {"stop_loss": {"pct": "2"}, "take_profits": [{"rr": "1.5"}]}, LONG, ["103"]),
        ("a ratio, short", {"stop_loss": {"pct": "2"}, "take_profits": [{"rr": "1.5"}]}, SHORT, ["97"]),
        ("a ratio of a price", {"stop_loss": {"price": "96"}, "take_profits": [{"rr": "2"}]}, LONG, ["108"]),
        (
            "a ladder in the plan's order",
            {"take_profits": [{"pct": "4"}, {"pct": "2"}, {"price": "101"}]},
            LONG,
            ["104", "102", "101"],
        ),
        ("more than double", {"take_profits": [{"pct": "250"}]}, LONG, ["350"]),
        ("no targets", {"stop_loss": {"pct": "2"}}, LONG, []),
    ],
)
def test_where_the_targets_lie(_case, plan, side, levels):
    assert target_levels(parse_plan(plan), side=side, entry_price=D(100)) == [D(level) for level in levels]


@pytest.mark.parametrize(
    ("_case", "plan", "side", "problems"),
    [
        (
            "a long's stop above",
            {"stop_loss": {"price": "101"}},
            LONG,
            {"stop_loss.price": "a long's stop must lie below the entry price 100; got 101"},
        ),
        (
            "a long's stop at the entry",
            {"stop_loss": {"price": "100"}},
            LONG,
            {"stop_loss.price": "a long's stop must lie below the entry price 100; got 100"},
        ),
        (
            "a short's stop below",
            {"stop_loss": {"price": "99"}},
            SHORT,
            {"stop_loss.price": "a short's stop must lie above the entry price 100; got 99"},
        ),
        (
            "a long's stop at zero",
            {"stop_loss": {"pct": "100"}},
            LONG,
            {"stop_loss.pct": "a long's stop must lie above 0; got 0"},
        ),
        (
            "a long's stop below zero",
            {"stop_loss": {"distance": "100.5"}},
            LONG,
            {"stop_loss.distance": "a long's stop must lie above 0; got -0.5"},
        ),
        (
            "targets on the wrong side, each named",
            {"take_profits": [{"price": "100"}, {"pct": 1}, {"price": "99"}]},
            LONG,
            {
                "take_profits.0.price": "a long's target must lie above the entry price 100; got 100",
                "take_profits.2.price": "a long's target must lie above the entry price 100; got 99",
            },
        ),
        (
            "a short's target above",
            {"take_profits": [{"price": "101"}]},
            SHORT,
            {"take_profits.0.price": "a short's target must lie below the entry price 100; got 101"},
        ),
        (
            "a short's target at zero",
            {"take_profits": [{"pct": "100"}]},
            SHORT,
            {"take_profits.0.pct": "a short's target must lie above 0; got 0"},
        ),
        (
            "a short's ratio below zero",
            {"stop_loss": {"pct": "50"}, "take_profits": [{"rr": "3"}]},
            SHORT,
            {"take_profits.0.rr": "a short's target must lie above 0; got -50.0"},
        ),
    ],
)
def test_refuses_levels_that_cannot_be(_case, plan, side, problems):
    with pytest.raises(InvalidPlan) as refused:
        compile_plan(parse_plan(plan), side=side, entry_price=D(100))
    assert refused.value.problems == problems


LADDER = {
    "stop_loss": {"pct": "1"},
    "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"pct": "4"}],
}


@pytest.mark.parametrize(
    ("side", "basis", "against", "with_us", "levels"),
    [
        (LONG, Basis.BID, Direction.FALL, Direction.RISE, ("99", "102", "104")),
        (SHORT, Basis.ASK, Direction.RISE, Direction.FALL, ("101", "98", "96")),
    ],
)
def test_a_plan_becomes_triggers_on_the_tradable_price_the_stop_first(side, basis, against, with_us, levels):
    stop, first, second = (D(level) for level in levels)
    assert compile_plan(parse_plan(LADDER), side=side, entry_price=D(100)) == (
        LevelTrigger(reason="stop_loss", basis=basis, direction=against, level=stop),
        LevelTrigger(reason="take_profit_1", basis=basis, direction=with_us, level=first, fraction_pct=D(50), rung=1),
        LevelTrigger(reason="take_profit_2", basis=basis, direction=with_us, level=second, fraction_pct=D(100), rung=2),
    )


def test_an_empty_plan_has_no_triggers():
    assert compile_plan(parse_plan({}), side=LONG, entry_price=D(100)) == ()


entries = st.decimals("0.0001", "1000000", places=6)
percentages = st.decimals("0.01", "99.99", places=2)


@given(entries, percentages, percentages)
def test_a_short_mirrors_a_long_about_the_entry_price(entry, stop, target):
    plan = parse_plan({"stop_loss": {"pct": stop}, "take_profits": [{"pct": target}, {"rr": "0.5"}]})
    longs = compile_plan(plan, side=LONG, entry_price=entry)
    shorts = compile_plan(plan, side=SHORT, entry_price=entry)
    for long, short in zip(longs, shorts, strict=True):
        assert long.level - entry == entry - short.level
        assert (long.reason, long.fraction_pct, long.rung) == (short.reason, short.fraction_pct, short.rung)


@given(entries, percentages, percentages, st.sampled_from(Side))
def test_every_level_lies_on_its_side_of_the_entry_price(entry, stop, target, side):
    plan = parse_plan({"stop_loss": {"pct": stop}, "take_profits": [{"pct": target}]})
    lost, won = compile_plan(plan, side=side, entry_price=entry)
    assert side * lost.level < side * entry < side * won.level
    assert min(lost.level, won.level) > 0
