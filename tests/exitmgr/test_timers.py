"""What time brings about in the live scan, and what a fired trigger starts: timers, decays, break-even, stagnation."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.models import Trigger
from exitmgr.scans import scan
from orders.models import Order
from positions.models import Quote
from positions.values import Side
from tests import factories as f
from tests.exitmgr.tape import Tape, exits_of
from tests.exitmgr.test_trails import statuses

D = Decimal
pytestmark = pytest.mark.django_db


def opened(tape: Tape, plan, *, side=Side.LONG, price="100"):
    """Take a holding that is opened at the time of the tape's clock."""
    return f.hold(side=side, price=price, plan=plan, now=tape.now)


# -- time limits


@pytest.mark.parametrize(
    ("_case", "waited", "left"), [("a second short", 59, False), ("exactly", 60, True), ("late", 75, True)]
)
def test_a_time_limit_leaves_at_whatever_price_there_is(_case, waited, left):
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"time_limit_seconds": 60})
    tape.at(waited)
    tape.look()
    assert exits_of(position) == ([("time_limit", D(10), D(100))] if left else [])


def test_a_time_limit_needs_no_fresh_price():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"time_limit_seconds": 600})
    tape.at(600)
    tape.look()
    order = Order.objects.get(position=position)
    assert (order.reason, order.expected_price, order.trigger_price) == ("time_limit", D(100), None)


def test_a_time_limit_needs_no_price_at_all():
    tape = Tape()
    position = opened(tape, {"time_limit_seconds": 60})
    assert not Quote.objects.exists()
    tape.at(60)
    assert scan(now=tape.now, everything=True).orders == 1
    assert Order.objects.get(position=position).expected_price is None


def test_of_a_stop_and_a_time_limit_due_together_the_stop_is_the_more_urgent():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"stop_loss": {"pct": "1"}, "time_limit_seconds": 60})
    tape.at(60)
    tape.quote("99")
    tape.look()
    assert [reason for reason, _, _ in exits_of(position)] == ["stop_loss"]


def test_of_a_target_and_a_time_limit_met_together_the_time_limit_is_the_more_urgent():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"take_profits": [{"pct": "1"}], "time_limit_seconds": 60})
    tape.at(60)
    tape.quote("101")
    tape.look()
    assert exits_of(position) == [("time_limit", D(10), D(101))]


def test_a_timer_that_finds_everything_claimed_waits_for_what_is_given_back():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"stop_loss": {"pct": "1"}, "time_limit_seconds": 60})
    tape.at(10)
    tape.quote("99")
    scan(now=tape.now, everything=True)
    tape.at(60)
    assert scan(now=tape.now, everything=True).orders == 0
    assert statuses(position) == {"stop_loss": "fired", "time_limit": "armed"}


def test_a_timer_that_cannot_be_judged_calls_a_person_and_holds_up_no_other(monkeypatch):
    tape = Tape()
    tape.trade("100")
    bad = opened(tape, {"time_limit_seconds": 60})
    good = opened(tape, {"time_limit_seconds": 60})
    stopped = opened(tape, {"stop_loss": {"pct": "1"}})
    broken = Trigger.objects.get(position=bad)
    real = Trigger.objects.get(position=good)

    from exitmgr import firing

    judge = firing.judge

    def judged(armed, *args, **options):
        if armed.trigger_id == broken.pk:
            raise ValueError("no such rule")
        return judge(armed, *args, **options)

    monkeypatch.setattr("exitmgr.firing.judge", judged)
    tape.at(60)
    tape.quote("99")
    tape.look()
    assert (exits_of(bad), len(exits_of(good)), len(exits_of(stopped))) == ([], 1, 1)
    assert f.read_again(real).status == "fired"
    alert = Alert.objects.get()
    assert (alert.kind, alert.requires_action) == ("timer_failed", True)


# -- decaying targets

DECAY = {
    "take_profits": [
        {"schedule": [{"after_seconds": 0, "pct": "5"}, {"after_seconds": 60, "pct": "2"}, {"after_seconds": 120, "pct": "1"}]}
    ]
}  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "waited", "price", "fires"),
    [
        ("the first step holds at once", 1, "105", True),
        ("the second not yet", 59, "104", False),
        ("the second exactly at its time", 60, "102", True),
        ("a tick short of the second", 60, "101.99", False),
        ("the third", 120, "101", True),
        ("a look that missed a step takes the one in force", 500, "101", True),
    ],
)
def test_a_target_decays_over_the_holding_time(_case, waited, price, fires):
    tape = Tape()
    tape.trade("100")
    position = opened(tape, DECAY)
    tape.at(waited)
    tape.quote(price)
    tape.look()
    assert exits_of(position) == ([("take_profit_1", D(10), D(price))] if fires else [])


def test_a_step_is_judged_on_the_price_now_not_on_what_came_before_it():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, DECAY)
    tape.at(55)
    tape.quote("103")
    tape.quote("100")
    tape.at(5)
    tape.look()
    assert exits_of(position) == []
    tape.trade("102")
    assert [reason for reason, _, _ in exits_of(position)] == ["take_profit_1"]


def test_a_target_whose_first_step_is_to_come_is_not_there_yet():
    tape = Tape()
    tape.trade("100")
    plan = {"take_profits": [{"schedule": [{"after_seconds": 30, "pct": "1"}]}]}
    position = opened(tape, plan)
    assert Trigger.objects.get(position=position).level is None
    tape.trade("200")
    assert exits_of(position) == []
    tape.at(30)
    tape.quote("101")
    tape.look()
    assert exits_of(position) == [("take_profit_1", D(10), D(101))]


# -- break-even


@pytest.mark.parametrize(
    ("_case", "side", "rule", "prices", "exits"),
    [
        ("not before its profit", Side.LONG, {"at_profit_pct": "1"}, ["100.99", "100"], []),
        ("at its profit, then at the entry", Side.LONG, {"at_profit_pct": "1"}, ["101", "100"], [("break_even", "100")]),
        ("a tick above the entry", Side.LONG, {"at_profit_pct": "1"}, ["101", "100.01"], []),
        ("a gap through both", Side.LONG, {"at_profit_pct": "1"}, ["101", "97"], [("break_even", "97")]),
        ("with an offset", Side.LONG, {"at_profit_pct": "1", "offset_pct": "0.5"}, ["101", "100.5"], [("break_even", "100.5")]),
        ("short", Side.SHORT, {"at_profit_pct": "1"}, ["99", "100"], [("break_even", "100")]),
    ],
)  # fmt: skip
def test_break_even_after_a_profit(_case, side, rule, prices, exits):
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"stop_loss": {"pct": "2"}, "break_even": rule}, side=side)
    tape.trade(*prices)
    assert [(reason, price) for reason, _, price in exits_of(position)] == [(why, D(price)) for why, price in exits]


def test_break_even_after_a_rung_protects_what_the_rung_left():
    tape = Tape()
    tape.trade("100")
    plan = {
        "stop_loss": {"pct": "2"},
        "take_profits": [{"pct": "1", "fraction_pct": "40"}, {"pct": "3"}],
        "break_even": {"after_rung": 1},
    }
    position = opened(tape, plan)
    assert statuses(position)["break_even"] == "waiting"
    tape.trade("101")
    assert statuses(position)["break_even"] == "armed"
    tape.trade("100")
    assert exits_of(position) == [("take_profit_1", D(4), D(101)), ("break_even", D(6), D(100))]


def test_a_jump_over_the_profit_and_back_between_two_looks_counts():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"break_even": {"at_profit_pct": "1"}})
    tape.trade("100.5")
    tape.at(1)
    tape.quote("102", "99.5")
    tape.look()
    assert exits_of(position) == [("break_even", D(10), D("99.5"))]


# -- stagnation

STUCK = {"stagnation": {"seconds": 60, "move_pct": "1"}}


@pytest.mark.parametrize(
    ("_case", "moves", "left_at"),
    [
        ("no move at all", [], 60),
        ("a move too small", [(30, "100.99")], 60),
        ("a move up starts it anew", [(30, "101")], 90),
        ("a move down starts it anew", [(30, "99")], 90),
        ("each move from where the last one ended", [(30, "101"), (50, "102.02")], 110),
        ("a move from the entry alone is none from the last one", [(30, "101"), (50, "100.5")], 90),
    ],
)
def test_a_position_that_does_not_move_is_left(_case, moves, left_at):
    tape = Tape()
    tape.trade("100")
    position = opened(tape, STUCK)
    started = Trigger.objects.get(position=position, slot="stagnation").due_at - timedelta(seconds=60)
    for after, price in moves:
        tape.now = started + timedelta(seconds=after)
        tape.quote(price)
        tape.look()
    tape.now = started + timedelta(seconds=left_at - 1)
    tape.look()
    assert exits_of(position) == []
    tape.now = started + timedelta(seconds=left_at + 1)
    tape.look()
    assert [reason for reason, _, _ in exits_of(position)] == ["stagnation"]


def test_a_stagnation_that_is_over_is_not_undone_by_the_move_that_comes_with_the_look():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, STUCK)
    tape.at(65)
    tape.quote("105")
    tape.look()
    assert [reason for reason, _, _ in exits_of(position)] == ["stagnation"]


# -- several at once


def test_a_gate_that_has_fired_is_no_stop_that_wants_what_became_free():
    tape = Tape()
    tape.trade("100")
    plan = {
        "take_profits": [{"pct": "2", "fraction_pct": "40"}, {"pct": "9"}],
        "trailing": {"pct": "3", "activation_pct": "1"},
        "break_even": {"at_profit_pct": "1"},
    }
    position = opened(tape, plan)
    tape.trade("101", "102", "101.9")
    assert exits_of(position) == [("take_profit_1", D(4), D(102))]
    assert statuses(position)["trailing_1"] == statuses(position)["break_even"] == "armed"


def test_the_most_urgent_goes_and_the_others_are_recorded():
    tape = Tape()
    tape.trade("100")
    position = opened(tape, {"stop_loss": {"pct": "1"}, "trailing": {"pct": "3"}, "take_profits": [{"pct": "1"}]})
    tape.trade("100.5")
    tape.at(1)
    tape.quote("101", "90")
    tape.look()
    orders = list(Order.objects.filter(position=position).order_by("pk"))
    assert [order.reason for order in orders] == ["stop_loss"]
    assert orders[0].priced_from["also"] == [
        {"reason": "trailing_stop", "trigger_price": "97.485"},
        {"reason": "take_profit_1", "trigger_price": "101"},
    ]
