"""Plans that parse but cannot be carried by their entry: each problem at its path, and nothing compiled."""

from datetime import timedelta

import pytest

from exitmgr.rules.compile import Range, compile_plan
from exitmgr.rules.plan import InvalidPlan, parse_plan
from tests.exitmgr.rules.values import AT, LONG, SHORT, compiled, entry


def refused(plan, side=LONG, price=100, **fields):
    with pytest.raises(InvalidPlan) as caught:
        compile_plan(parse_plan(plan), entry=entry(side, price, **fields))
    return caught.value.problems


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
            "a stop at the entry is said once, not again for the ratio",
            {"stop_loss": {"price": "100"}, "take_profits": [{"rr": 2}]},
            LONG,
            {"stop_loss.price": "a long's stop must lie below the entry price 100; got 100"},
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
            {"take_profits.0.rr": "a short's target must lie above 0; got -50"},
        ),
        (
            "a step of a short's decay below zero",
            {"take_profits": [{"schedule": [{"after_seconds": 0, "pct": 120}, {"after_seconds": 60, "pct": 2}]}]},
            SHORT,
            {"take_profits.0.schedule.0.pct": "a short's target must lie above 0; got -20"},
        ),
        (
            "a short's activation at zero",
            {"trailing": [{"pct": 1}, {"distance": 2, "activation_pct": 100}]},
            SHORT,
            {"trailing.1.activation_pct": "a short's activation must lie above 0; got 0"},
        ),
        (
            "a trail that could never fire",
            {"trailing": {"pct": 100}},
            LONG,
            {"trailing.0.pct": "must leave a stop above 0 where the trail starts, at 100; got 0"},
        ),
        (
            "a trail longer than the price",
            {"trailing": {"distance": "100"}},
            LONG,
            {"trailing.0.distance": "must leave a stop above 0 where the trail starts, at 100; got 0"},
        ),
        (
            "a trail longer than the price that starts it",
            {"trailing": [{"distance": "111", "activation_pct": 10}]},
            LONG,
            {"trailing.0.distance": "must leave a stop above 0 where the trail starts, at 110; got -1"},
        ),
        (
            "a break-even stop as far as the rung that sets it",
            {"take_profits": [{"pct": 2}], "break_even": {"after_rung": 1, "offset_pct": 2}},
            LONG,
            {
                "break_even.offset_pct": "must lie below the profit at 102 that sets the stop, or it would fire at once; got 102"
            },
        ),
        (
            "a break-even stop beyond the last step of the rung that sets it",
            {
                "take_profits": [{"schedule": [{"after_seconds": 0, "pct": 5}, {"after_seconds": 60, "pct": 1}]}],
                "break_even": {"after_rung": 1, "offset_pct": 2},
            },
            SHORT,
            {
                "break_even.offset_pct": "must lie below the profit at 99 that sets the stop, or it would fire at once; got 98"
            },
        ),
        (
            "a rung on the wrong side is said once, not again for the break-even stop",
            {"take_profits": [{"price": 99}], "break_even": {"after_rung": 1}},
            LONG,
            {"take_profits.0.price": "a long's target must lie above the entry price 100; got 99"},
        ),
        (
            "a short's break-even start at zero",
            {"break_even": {"at_profit_pct": 100}},
            SHORT,
            {"break_even.at_profit_pct": "a short's start must lie above 0; got 0"},
        ),
        (
            "no close to leave before",
            {"session_close": {}},
            LONG,
            {"session_close": "the instrument trades around the clock and has no close; leave it out"},
        ),
        (
            "several at once",
            {"stop_loss": {"price": 101}, "take_profits": [{"price": 99}], "session_close": {}},
            LONG,
            {
                "stop_loss.price": "a long's stop must lie below the entry price 100; got 101",
                "take_profits.0.price": "a long's target must lie above the entry price 100; got 99",
                "session_close": "the instrument trades around the clock and has no close; leave it out",
            },
        ),
    ],
)
def test_refuses_what_its_entry_cannot_carry(_case, plan, side, problems):
    assert refused(plan, side) == problems


def test_a_trail_of_a_short_may_be_as_long_as_the_price():
    assert compiled({"trailing": [{"pct": 100}, {"distance": 150}]}, SHORT).triggers[1].offset == 150


def test_a_trail_on_a_range_as_wide_as_the_price_falls_back():
    made = compiled({"trailing": {"atr": {"multiple": "1"}}}, ranges={14: Range(entry().price)})
    assert made.triggers[0].offset == 2
    assert made.notes == (
        "trailing.0.atr: 2 % of the entry price is used instead, because 1 times the range of 100 reaches below 0",
    )


@pytest.mark.parametrize(
    ("_case", "held", "over"),
    [("a second is left", 59, False), ("just over", 60, True), ("long over", 3600, True)],
)
@pytest.mark.parametrize(
    ("path", "plan"),
    [
        ("time_limit_seconds", {"time_limit_seconds": 60}),
        ("stagnation.seconds", {"stagnation": {"seconds": 60, "move_pct": 1}}),
    ],
)
def test_a_time_that_is_over_is_refused_once_it_is_known_what_time_it_is(_case, held, over, path, plan):
    now = AT + timedelta(seconds=held)
    assert compiled(plan).triggers
    if over:
        said = f"is over already: the position is held for {held} s; must be above that"
        assert refused(plan, now=now) == {path: said}
    else:
        assert compiled(plan, now=now).triggers == compiled(plan).triggers


@pytest.mark.parametrize(
    ("_case", "plan", "side", "slots", "notes"),
    [
        ("a stop in profit", {"stop_loss": {"price": 101}}, LONG, ["stop_loss"], 0),
        ("a target below the entry", {"take_profits": [{"price": 99}]}, LONG, ["take_profit_1"], 0),
        ("a short's stop in profit", {"stop_loss": {"price": 99}}, SHORT, ["stop_loss"], 0),
        (
            "a rung before the break-even stop that it sets",
            {"take_profits": [{"price": "100.5"}], "break_even": {"after_rung": 1, "offset_pct": 1}},
            LONG,
            ["take_profit_1"],
            1,
        ),
        (
            "a rung on the other side of the break-even stop that it sets",
            {"take_profits": [{"price": 99}], "break_even": {"after_rung": 1}},
            LONG,
            ["take_profit_1"],
            1,
        ),
    ],
)
def test_what_a_person_moved_may_lie_on_either_side(_case, plan, side, slots, notes):
    made = compiled(plan, side, moved_by_hand=True)
    assert [trigger.slot for trigger in made.triggers] == slots
    assert [note.partition(":")[0] for note in made.notes] == ["break_even"] * notes


def test_a_person_cannot_move_a_level_below_zero():
    assert refused({"stop_loss": {"distance": 101}}, moved_by_hand=True) == {
        "stop_loss.distance": "a long's stop must lie above 0; got -1"
    }


def test_a_stagnation_may_be_measured_from_later_than_the_entry():
    plan = {"stagnation": {"seconds": 60, "move_pct": 1}}
    since, now = AT + timedelta(hours=1), AT + timedelta(hours=1, seconds=59)
    made = compiled(plan, now=now, stagnant_since=since)
    assert made.triggers[0].due_at == since + timedelta(seconds=60)
    assert list(refused(plan, now=now + timedelta(seconds=1), stagnant_since=since)) == ["stagnation.seconds"]
