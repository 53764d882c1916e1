"""What a fired trigger changes about its neighbours, and which step of a decay holds."""

import pytest

from exitmgr.rules.consequences import next_step, restart, restart_gate, start, step_in_force
from exitmgr.rules.fire import fire_level, fire_trail, trail_level
from tests.exitmgr.rules.values import LONG, SHORT, D, after, by_slot, seen


@pytest.mark.parametrize(
    ("_case", "side", "price", "level"),
    [
        ("at the level that starts it", LONG, "102", "100.98"),
        ("at the open of a gap", LONG, "110", "108.9"),
        ("short", SHORT, "98", "98.98"),
        ("short, at the open of a gap", SHORT, "90", "90.9"),
    ],
)
def test_a_trail_is_measured_from_the_price_that_started_it(_case, side, price, level):
    waiting = by_slot({"trailing": {"pct": 1, "activation_pct": 2}}, side)["trailing_1"]
    assert fire_trail(waiting, seen("1"), armed_seq=1) is None
    started = start(waiting, price=D(price))
    assert (started.after, started.best, trail_level(started)) == ("", D(price), D(level))


def test_a_break_even_stop_keeps_its_level_whatever_price_started_it():
    waiting = by_slot({"break_even": {"at_profit_pct": 1}})["break_even"]
    started = start(waiting, price=D(150))
    assert (started.after, started.level) == ("", D(100))
    assert fire_level(started, seen("100"), armed_seq=1).reason == "break_even"


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_a_stagnation_is_measured_anew_from_the_price_and_the_moment_of_the_move(side):
    slots = by_slot({"stagnation": {"seconds": 1800, "move_pct": "0.5"}}, side)
    timer = restart(slots["stagnation"], at=after(600))
    gates = [
        restart_gate(slots[f"stagnation:{way}"], price=D(200), move_pct=timer.move_pct) for way in ("fall", "rise")
    ]
    assert timer.due_at == after(2400)
    assert [gate.level for gate in gates] == [D(199), D(201)]
    assert restart(timer, at=after(700)).due_at == after(2500)


@pytest.mark.parametrize(
    ("_case", "seconds", "in_force", "upcoming"),
    [
        ("before the first", 59, None, 60),
        ("just at the first", 60, "105", 600),
        ("between", 599, "105", 600),
        ("just at the second", 600, "102", 1200),
        ("after the last", 9999, "101", None),
    ],
)
def test_which_step_of_a_decay_holds_and_which_comes_next(_case, seconds, in_force, upcoming):
    schedule = [{"after_seconds": at, "pct": pct} for at, pct in ((60, 5), (600, 2), (1200, 1))]
    steps = by_slot({"take_profits": [{"schedule": schedule}]})["take_profit_1"].steps
    now, later = step_in_force(steps, at=after(seconds)), next_step(steps, at=after(seconds))
    assert (now and now.level) == (in_force and D(in_force))
    assert (later and later.due_at) == (upcoming and after(upcoming))


def test_a_target_that_does_not_decay_has_no_steps():
    assert (step_in_force((), at=after(0)), next_step((), at=after(0))) == (None, None)
