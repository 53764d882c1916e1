"""Plan to triggers: where each level lies, for both sides, what waits for what, and what calls for a note."""

from dataclasses import replace
from datetime import timedelta

import pytest

from exitmgr.rules.compile import Range
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.types import Act, Direction, LevelTrigger, OrderTerms, Step, TimerTrigger, TrailTrigger
from positions.values import Basis
from tests.exitmgr.rules.values import AT, LONG, SHORT, D, after, by_slot, compiled

FALL, RISE = Direction.FALL, Direction.RISE
ATR = {14: Range(D("1.5")), 7: Range(D("0.8"))}
CLOSE = AT + timedelta(hours=6)


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
        ("twice the range of 14 bars", {"atr": {}}, LONG, "100", "97"),
        ("twice the range of 14 bars, short", {"atr": {}}, SHORT, "100", "103"),
        ("another multiple", {"atr": {"multiple": "0.5"}}, LONG, "100", "99.25"),
        ("another period", {"atr": {"period": 7, "multiple": "1"}}, LONG, "100", "99.2"),
    ],
)
def test_where_the_stop_lies(_case, stop, side, entry, level):
    made = compiled({"stop_loss": stop}, side, entry, ranges=ATR)
    assert (made.stop_price, made.notes) == (D(level), ())
    assert made.triggers == (
        LevelTrigger(
            slot="stop_loss",
            reason="stop_loss",
            basis=Basis.BID if side is LONG else Basis.ASK,
            direction=FALL if side is LONG else RISE,
            level=D(level),
        ),
    )


@pytest.mark.parametrize(
    ("_case", "atr", "ranges", "side", "level", "why"),
    [
        ("nobody measured", {}, {}, LONG, "98", "no bars are known"),
        ("nobody measured, short", {}, {}, SHORT, "102", "no bars are known"),
        ("another period was", {}, {7: Range(D(1))}, LONG, "98", "no bars are known"),
        ("too few bars", {}, {14: Range(None, "9 of 15 bars")}, LONG, "98", "9 of 15 bars"),
        ("flat bars", {}, {14: Range(D(0))}, LONG, "98", "the bars do not move"),
        (
            "so wide that a long's stop would lie at zero",
            {"multiple": "2"},
            {14: Range(D(50))},
            LONG,
            "98",
            "2 times the range of 50 reaches below 0",
        ),
    ],
)
def test_without_a_usable_range_two_percent_stand_in_and_a_note_says_so(_case, atr, ranges, side, level, why):
    made = compiled({"stop_loss": {"atr": atr}}, side, ranges=ranges)
    assert made.stop_price == D(level)
    assert made.notes == (f"stop_loss.atr: 2 % of the entry price is used instead, because {why}",)


def test_the_fallback_is_the_whole_distance_whatever_the_multiple_and_can_be_set():
    made = compiled({"stop_loss": {"atr": {"multiple": "3"}}}, fallback_pct=D("1.5"))
    assert made.stop_price == D("98.5")
    assert made.notes == ("stop_loss.atr: 1.5 % of the entry price is used instead, because no bars are known",)
    assert made.atr is None


def test_a_range_as_wide_as_the_price_still_makes_a_stop_for_a_short():
    assert compiled({"stop_loss": {"atr": {}}}, SHORT, ranges={14: Range(D(60))}).stop_price == D(220)


def test_a_range_that_leaves_a_long_a_hair_is_used():
    made = compiled({"stop_loss": {"atr": {"multiple": "1"}}}, ranges={14: Range(D("99.99"))})
    assert (made.stop_price, made.atr, made.notes) == (D("0.01"), D("99.99"), ())


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
        ("a ratio of a distance", {"stop_loss": {"distance": "4"}, "take_profits": [{"rr": "2"}]}, SHORT, ["92"]),
        ("a ratio of a range", {"stop_loss": {"atr": {}}, "take_profits": [{"rr": "1.5"}]}, LONG, ["104.5"]),
        (
            "a ladder in the plan's order",
            {"take_profits": [{"pct": "4"}, {"pct": "2"}, {"price": "101"}]},
            LONG,
            ["104", "102", "101"],
        ),
        ("more than double", {"take_profits": [{"pct": "250"}]}, LONG, ["350"]),
        (
            "a decaying one, where it lies first",
            {"take_profits": [{"schedule": [{"after_seconds": 60, "pct": 5}, {"after_seconds": 90, "pct": 2}]}]},
            LONG,
            ["105"],
        ),
        ("no targets", {"stop_loss": {"pct": "2"}}, LONG, []),
    ],
)
def test_where_the_targets_lie(_case, plan, side, levels):
    assert compiled(plan, side, ranges=ATR).target_prices == tuple(D(level) for level in levels)


def test_a_ratio_is_measured_from_the_stop_that_stands_in_for_the_range():
    made = compiled({"stop_loss": {"atr": {}}, "take_profits": [{"rr": "1.5"}]})
    assert (made.stop_price, made.target_prices, made.ratio) == (D(98), (D(103),), D("1.5"))


LADDER = {
    "stop_loss": {"pct": "1"},
    "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"pct": "4"}],
}


@pytest.mark.parametrize(
    ("side", "basis", "against", "with_us", "levels"),
    [
        (LONG, Basis.BID, FALL, RISE, ("99", "102", "104")),
        (SHORT, Basis.ASK, RISE, FALL, ("101", "98", "96")),
    ],
)
def test_a_ladder_on_the_tradable_price_the_stop_first(side, basis, against, with_us, levels):
    stop, first, second = (D(level) for level in levels)
    made = compiled(LADDER, side)
    assert made.triggers == (
        LevelTrigger(slot="stop_loss", reason="stop_loss", basis=basis, direction=against, level=stop),
        LevelTrigger(
            slot="take_profit_1", reason="take_profit_1", basis=basis, direction=with_us, level=first,
            fraction_pct=D(50), rung=1,
        ),
        LevelTrigger(
            slot="take_profit_2", reason="take_profit_2", basis=basis, direction=with_us, level=second, rung=2
        ),
    )  # fmt: skip
    assert (made.ratio, made.notes) == (D(2), ())


@pytest.mark.parametrize(("side", "levels"), [(LONG, ("105", "102")), (SHORT, ("95", "98"))])
def test_a_decaying_target_waits_for_its_first_step(side, levels):
    schedule = [{"after_seconds": 0, "pct": "5"}, {"after_seconds": 1200, "pct": "2"}]
    target = by_slot({"take_profits": [{"schedule": schedule, "fraction_pct": "30"}]}, side)["take_profit_1"]
    assert (target.level, target.rung, target.fraction_pct) == (None, 1, D(30))
    assert target.steps == tuple(
        Step(due_at=after(seconds), level=D(level)) for seconds, level in zip((0, 1200), levels, strict=True)
    )


@pytest.mark.parametrize(
    ("_case", "trail", "offset_pct", "offset"),
    [
        ("percent", {"pct": "1"}, D(1), None),
        ("distance", {"distance": "2"}, None, D(2)),
        ("range", {"atr": {"multiple": "3"}}, None, D("4.5")),
    ],
)
@pytest.mark.parametrize(("side", "basis", "against"), [(LONG, Basis.BID, FALL), (SHORT, Basis.ASK, RISE)])
def test_a_trail_is_measured_from_the_entry_price(_case, trail, offset_pct, offset, side, basis, against):
    assert compiled({"trailing": trail}, side, ranges=ATR).triggers == (
        TrailTrigger(
            slot="trailing_1", reason="trailing_stop", basis=basis, direction=against, best=D(100),
            offset_pct=offset_pct, offset=offset,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "against", "with_us", "starts"), [(LONG, FALL, RISE, ("101", "103")), (SHORT, RISE, FALL, ("99", "97"))]
)
def test_trails_with_an_activation_wait_each_for_its_own(side, against, with_us, starts):
    trails = [{"pct": "2"}, {"pct": "1", "activation_pct": "1"}, {"distance": "0.5", "activation_pct": "3"}]
    slots = by_slot({"trailing": trails}, side)
    assert list(slots) == ["trailing_1", "trailing_2:start", "trailing_2", "trailing_3:start", "trailing_3"]
    assert (slots["trailing_1"].after, slots["trailing_1"].best) == ("", D(100))
    for number, level in zip((2, 3), starts, strict=True):
        gate, trail = slots[f"trailing_{number}:start"], slots[f"trailing_{number}"]
        assert (gate.act, gate.direction, gate.level, gate.after) == (Act.START, with_us, D(level), "")
        assert (trail.after, trail.best, trail.direction) == (gate.slot, None, against)


def test_a_trail_falls_back_as_a_stop_does():
    made = compiled({"trailing": [{"pct": 1}, {"atr": {}}]})
    assert made.triggers[1].offset == D(2)
    assert made.notes == ("trailing.1.atr: 2 % of the entry price is used instead, because no bars are known",)


@pytest.mark.parametrize(
    ("_case", "rule", "side", "starts_at", "level"),
    [
        ("at a profit", {"at_profit_pct": "1"}, LONG, "101", "100"),
        ("at a profit, short", {"at_profit_pct": "1"}, SHORT, "99", "100"),
        ("a bit beyond the entry", {"at_profit_pct": "1", "offset_pct": "0.2"}, LONG, "101", "100.2"),
        ("a bit beyond the entry, short", {"at_profit_pct": "1", "offset_pct": "0.2"}, SHORT, "99", "99.8"),
        ("a hair below its start", {"at_profit_pct": "1", "offset_pct": "0.9999"}, LONG, "101", "100.9999"),
        ("fees both ways", {"at_profit_pct": "1", "include_fees": True}, LONG, "101", "100.1"),
        ("fees both ways, short", {"at_profit_pct": "1", "include_fees": True}, SHORT, "99", "99.9"),
        (
            "fees and an offset",
            {"at_profit_pct": "1", "offset_pct": "0.2", "include_fees": True},
            LONG,
            "101",
            "100.3",
        ),
    ],
)
def test_a_break_even_stop_waits_for_its_profit(_case, rule, side, starts_at, level):
    slots = by_slot({"break_even": rule}, side, fee_per_unit=D("0.05"))
    assert list(slots) == ["break_even:start", "break_even"]
    gate, stop = slots.values()
    with_us, against = (RISE, FALL) if side is LONG else (FALL, RISE)
    assert (gate.act, gate.direction, gate.level) == (Act.START, with_us, D(starts_at))
    assert (stop.act, stop.direction, stop.level, stop.after) == (Act.EXIT, against, D(level), "break_even:start")
    assert (stop.reason, stop.fraction_pct) == ("break_even", D(100))


def test_a_break_even_stop_waits_for_its_rung():
    plan = {"take_profits": [{"pct": 1, "fraction_pct": 50}, {"pct": 2}], "break_even": {"after_rung": 2}}
    slots = by_slot(plan)
    assert list(slots) == ["take_profit_1", "take_profit_2", "break_even"]
    assert (slots["break_even"].after, slots["break_even"].level) == ("take_profit_2", D(100))


@pytest.mark.parametrize(
    ("_case", "rule", "side", "stop", "starts_at"),
    [
        ("at a profit", {"at_profit_pct": "1"}, LONG, "101", "101"),
        ("at a profit, short", {"at_profit_pct": "1"}, SHORT, "99", "99"),
        ("after a rung", {"after_rung": 1}, LONG, "101", "101"),
        ("with an offset", {"after_rung": 1, "offset_pct": "0.5"}, LONG, "101.5", "101"),
    ],
)
def test_fees_that_eat_the_profit_leave_break_even_out_and_the_other_stops_in(_case, rule, side, stop, starts_at):
    plan = {"stop_loss": {"pct": "0.5"}, "take_profits": [{"pct": 1}], "break_even": {**rule, "include_fees": True}}
    made = compiled(plan, side, fee_per_unit=D("0.5"))
    assert [trigger.slot for trigger in made.triggers] == ["stop_loss", "take_profit_1"]
    assert made.notes == (
        f"break_even: it is left out, because with fees its stop would lie at {stop}"
        f" and the profit that sets it at {starts_at}",
    )


@pytest.mark.parametrize(("side", "against"), [(LONG, FALL), (SHORT, RISE)])
def test_timers_are_counted_from_the_entry_and_the_close(side, against):
    plan = {"time_limit_seconds": 3600, "session_close": {}}
    basis = Basis.BID if side is LONG else Basis.ASK
    assert compiled(plan, side, closes_at=CLOSE).triggers == (
        TimerTrigger(slot="time_limit", reason="time_limit", basis=basis, direction=against, due_at=after(3600)),
        TimerTrigger(
            slot="session_close", reason="session_close", basis=basis, direction=against,
            due_at=CLOSE - timedelta(minutes=10),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "minutes", "opened_before", "notes"),
    [
        ("long before", 10, timedelta(hours=1), 0),
        ("a second before it is due", 10, timedelta(minutes=10, seconds=1), 0),
        ("just when it is due", 10, timedelta(minutes=10), 1),
        ("in the last minutes", 10, timedelta(minutes=1), 1),
        ("at the close itself", 0, timedelta(minutes=1), 0),
    ],
)
def test_a_position_opened_in_the_last_minutes_leaves_at_once_and_a_note_says_so(_case, minutes, opened_before, notes):
    made = compiled({"session_close": {"minutes_before": minutes}}, closes_at=AT + opened_before)
    assert made.triggers[0].due_at == AT + opened_before - timedelta(minutes=minutes)
    said = "session_close: it is due already when the position is opened, and fires at once"
    assert made.notes == (said,) * notes


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_stagnation_is_a_timer_with_a_gate_on_either_side(side):
    slots = by_slot({"stagnation": {"seconds": 1800, "move_pct": "0.5"}}, side)
    assert list(slots) == ["stagnation", "stagnation:fall", "stagnation:rise"]
    timer, fall, rise = slots.values()
    assert (timer.due_at, timer.span_seconds, timer.move_pct) == (after(1800), 1800, D("0.5"))
    assert (fall.act, fall.direction, fall.level) == (Act.RESTART, FALL, D("99.5"))
    assert (rise.act, rise.direction, rise.level) == (Act.RESTART, RISE, D("100.5"))


def test_a_price_that_cannot_fall_so_far_has_one_gate():
    slots = by_slot({"stagnation": {"seconds": 60, "move_pct": 100}})
    assert list(slots) == ["stagnation", "stagnation:rise"]
    assert slots["stagnation:rise"].level == D(200)


EVERYTHING = {
    "stop_loss": {"pct": 1},
    "take_profits": [{"pct": 2}],
    "trailing": {"pct": 1, "activation_pct": 1},
    "break_even": {"at_profit_pct": 1},
    "time_limit_seconds": 60,
    "stagnation": {"seconds": 60, "move_pct": 1},
    "session_close": {},
}


@pytest.mark.parametrize(
    ("source", "side", "basis"),
    [
        ("tradable", LONG, Basis.BID),
        ("tradable", SHORT, Basis.ASK),
        ("last", LONG, Basis.LAST),
        ("last", SHORT, Basis.LAST),
        ("mid", LONG, Basis.MID),
        ("mid", SHORT, Basis.MID),
    ],
)
def test_the_price_source_holds_for_every_trigger(source, side, basis):
    made = compiled(EVERYTHING | {"price_source": source}, side, closes_at=CLOSE)
    assert len(made.triggers) == 11
    assert {trigger.basis for trigger in made.triggers} == {basis}


def test_every_trigger_of_a_plan_has_a_slot_of_its_own_and_waits_for_one_that_exists():
    slots = by_slot(EVERYTHING, closes_at=CLOSE)
    assert {trigger.after for trigger in slots.values()} - {""} <= slots.keys()


@pytest.mark.parametrize(
    ("_case", "written", "order"),
    [
        ("nothing said", {}, OrderTerms()),
        ("a limit", {"order_type": "limit"}, OrderTerms(limit=True)),
        ("a market order for the day", {"time_in_force": "day"}, OrderTerms(time_in_force="day")),
        (
            "a limit or nothing",
            {"order_type": "limit", "time_in_force": "ioc"},
            OrderTerms(limit=True, time_in_force="ioc"),
        ),
    ],
)
def test_stops_and_targets_say_how_their_orders_go_out(_case, written, order):
    slots = by_slot({"stop_loss": {"pct": 1, **written}, "take_profits": [{"pct": 2}, {"pct": 3, **written}]})
    assert slots["stop_loss"].order == order
    assert slots["take_profit_1"].order == OrderTerms()
    assert slots["take_profit_2"].order == order


def test_an_empty_plan_has_no_triggers():
    made = compiled({})
    assert (made.triggers, made.stop_price, made.target_prices, made.ratio, made.notes) == ((), None, (), None, ())


@pytest.mark.parametrize(
    ("_case", "target", "ratio", "noted"),
    [("nearer", "0.5", "0.5", True), ("as far", "1", "1", True), ("a hair further", "1.0001", "1.0001", False)],
)
def test_a_target_no_further_than_the_stop_is_noted(_case, target, ratio, noted):
    made = compiled({"stop_loss": {"pct": 1}, "take_profits": [{"pct": target}]})
    assert made.ratio == D(ratio)
    said = f"the first target is {target} away and the stop 1: it risks at least as much as it can win"
    assert made.notes == (said,) * noted


def test_a_plan_says_which_ranges_it_needs():
    plan = parse_plan(
        {"stop_loss": {"atr": {"period": 20}}, "trailing": [{"atr": {}}, {"pct": 1}, {"atr": {"period": 20}}]}
    )
    assert plan.atr_periods == {14, 20}
    assert parse_plan({}).atr_periods == frozenset()


def test_the_first_range_measured_is_remembered():
    plan = {"stop_loss": {"atr": {"period": 7}}, "trailing": {"atr": {}}}
    assert compiled(plan, ranges=ATR).atr == D("0.8")
    assert compiled(plan, ranges={14: ATR[14]}).atr == D("1.5")


def test_an_entry_can_be_compiled_again_on_another_price():
    first = by_slot(LADDER)
    assert replace(first["stop_loss"], level=D("49.5")) == by_slot(LADDER, price=50)["stop_loss"]
