"""Stops at rest with the broker: placed whole, moved, swapped for a target and back, and stood in for when they fail."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from alerts.events import Happening, write_events
from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.brackets import open_bracket
from exitmgr.entries import register_position
from exitmgr.exits import request_exit
from exitmgr.plan_edits import change_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.scans import scan
from exitmgr.sweep import beat, sweep
from orders.brokers.protocol import ReportedState
from orders.errors import RefusalKind, Refused
from orders.models import Order
from orders.submit import claim, settle_failure
from orders.updates import apply_reports
from positions.values import Side
from tests import factories as f
from tests.exitmgr.tape import Tape

D = Decimal
pytestmark = pytest.mark.django_db
RESTING = {"trade_exit": {"bracket_orders": {"mode": "resting"}}}
NATIVE = {"trade_exit": {"bracket_orders": {"mode": "native"}}}
PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}
RUNGS = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "40"}, {"pct": "4"}]}
LIMITED = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit", "fraction_pct": "40"}]}


def hold(tape, *, plan=PLAN, side=Side.LONG, quantity="10", settings=RESTING):
    position, _ = register_position(
        account=f.make_account(),
        symbol=tape.symbol,
        side=side,
        quantity=D(quantity),
        entry_price=D(100),
        opened_at=tape.now,
        now=tape.now,
        actor="test",
        plan=plan,
        settings=settings,
    )
    return position


def market(price="100"):
    tape = Tape()
    tape.quote(price)
    scan(now=tape.now, everything=True)
    return tape


def say(tape, order, state=ReportedState.WORKING, *, filled="", price="99"):
    """Tell what the broker says of an order, and follow it up."""
    executions = [f.fill_of(filled, price)] if filled else []
    apply_reports(account_id=order.account_id, reports=[f.report_of(order, state, executions=executions)], now=tape.now)
    advance(now=tape.now)


def at_rest(tape, **how):
    """Return a position whose stop the broker has acknowledged."""
    position = hold(tape, **how)
    stop = Order.objects.get(position=position)
    say(tape, stop)
    return position, f.read_again(stop)


def look(tape, price, *, after=1):
    tape.at(after)
    tape.quote(price)
    made = scan(now=tape.now, everything=True).orders
    beat(name="scan", now=tape.now)
    sweep(now=tape.now)
    return made


def orders_of(position):
    rows = Order.objects.filter(position=position).order_by("pk")
    return [(row.reason, row.order_type, row.state, row.quantity, row.stop_price) for row in rows]


def refuse(order, error):
    """Have the one claim of an order answered with a refusal."""
    (claimed,) = claim(order_ids=[order.pk], worker="test")
    settle_failure(order_id=order.pk, epoch=claimed.epoch, error=error, now=f.utc_now())
    advance(now=f.utc_now())


@pytest.mark.parametrize(
    ("_case", "side", "order_side", "stop"),
    [("a long sells below", Side.LONG, "sell", D(99)), ("a short buys back above", Side.SHORT, "buy", D(101))],
)
def test_arming_leaves_a_stop_for_everything_with_the_broker(_case, side, order_side, stop):
    tape = market()
    position = hold(tape, side=side)
    order = Order.objects.get(position=position)
    assert (order.side, order.order_type, order.time_in_force, order.quantity) == (order_side, "stop", "gtc", D(10))
    assert (order.stop_price, order.resting, order.reserved, order.leg) == (stop, True, D(10), "stop")
    assert (f.read_again(position).status, f.read_again(position).reserved) == ("open", D(10))
    assert open_bracket(position).mode == "resting"
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "armed"}


def test_the_request_carries_the_stop_price():
    position = hold(market())
    (claimed,) = claim(order_ids=[Order.objects.get(position=position).pk], worker="test")
    assert (claimed.request.order_type, claimed.request.stop_price, claimed.request.limit_price) == (
        "stop",
        D(99),
        None,
    )


@pytest.mark.parametrize(
    ("_case", "settings", "broker", "mode", "note"),
    [
        ("watched here unless asked", {}, "paper", "synthetic", ""),
        ("a group where the broker keeps one", NATIVE, "paper", "native", ""),
        ("no such broker", RESTING, "nobody", "synthetic", "the account's broker is not known"),
    ],
)
def test_the_mode_falls_back_to_what_is_possible(_case, settings, broker, mode, note):
    tape = market()
    position, bracket = register_position(
        account=f.make_account(broker=broker),
        symbol=tape.symbol,
        side=Side.LONG,
        quantity=D(10),
        entry_price=D(100),
        opened_at=tape.now,
        now=tape.now,
        actor="test",
        plan=PLAN,
        settings=settings,
    )
    bracket = f.read_again(bracket)
    assert bracket.mode == mode
    assert note in " ".join(bracket.notes)
    assert Order.objects.filter(position=position).count() == (mode != "synthetic")


def test_an_account_has_only_so_many_resting_orders():
    tape = market()
    few = {"trade_exit": {"bracket_orders": {"mode": "resting", "max_bracket_orders": 1}}}
    first = hold(tape, settings=few)
    second, bracket = register_position(
        account=first.account, symbol=tape.symbol, side=Side.LONG, quantity=D(1), entry_price=D(100),
        opened_at=tape.now, now=tape.now, actor="test", plan=PLAN, settings=few,
    )  # fmt: skip
    assert f.read_again(bracket).mode == "synthetic"
    assert "limit of 1 resting orders" in f.read_again(bracket).notes[0]
    assert not Order.objects.filter(position=second).exists()


def test_parts_of_a_share_rest_for_a_day_and_again_the_next():
    tape = market()
    position, stop = at_rest(tape, quantity="1.5")
    assert stop.time_in_force == "day"
    say(tape, stop, ReportedState.EXPIRED)
    assert orders_of(position) == [
        ("stop_loss", "stop", "expired", D("1.5"), D(99)),
        ("stop_loss", "stop", "pending", D("1.5"), D(99)),
    ]


def test_a_price_through_the_stop_sells_at_once_instead():
    tape = market("98")
    position = hold(tape)
    assert not Order.objects.filter(position=position).exists()
    assert look(tape, "98") == 1
    assert orders_of(position) == [("stop_loss", "market", "pending", D(10), None)]


def test_a_resting_stop_that_fills_closes_the_position():
    tape = market()
    position, stop = at_rest(tape)
    say(tape, stop, ReportedState.FILLED, filled="10")
    assert f.read_again(position).status == "closed"
    assert (open_bracket(position), f.bracket_of(position).status) == (None, "completed")
    assert len(orders_of(position)) == 1


def test_a_stop_that_fills_in_part_and_is_ended_by_the_broker_rests_again_for_the_remainder():
    tape = market()
    position, stop = at_rest(tape)
    say(tape, stop, ReportedState.CANCELLED, filled="4")
    assert orders_of(position) == [
        ("stop_loss", "stop", "cancelled", D(10), D(99)),
        ("stop_loss", "stop", "pending", D(6), D(99)),
    ]
    assert f.read_again(position).reserved == D(6)


def test_a_stop_the_broker_keeps_ending_is_an_error_and_the_watch_stays():
    tape = market()
    position, stop = at_rest(tape)
    for _ in range(3):
        stop = Order.objects.filter(position=position).latest("pk")
        say(tape, stop, ReportedState.CANCELLED)
    assert [state for _, _, state, _, _ in orders_of(position)] == ["cancelled"] * 3
    assert f.bracket_of(position).status == "error"
    assert f.triggers_of(position)["stop_loss"] == "armed"


def test_a_refused_stop_puts_the_bracket_into_error_and_the_watch_sells():
    tape = market()
    position = hold(tape)
    refuse(Order.objects.get(position=position), Refused("no stops here", kind=RefusalKind.NOT_ALLOWED, permanent=True))
    bracket = f.bracket_of(position)
    assert (bracket.status, bracket.error) == ("error", "no stop rests at the broker: no stops here")
    assert Alert.objects.get(kind="bracket_error").requires_action
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "armed"}
    tape.at(10)
    assert look(tape, "100") == 0
    assert len(orders_of(position)) == 1
    assert look(tape, "98.5") == 1
    assert orders_of(position)[-1] == ("stop_loss", "market", "pending", D(10), None)


def test_a_plan_given_again_after_an_error_lets_a_stop_rest_again():
    tape = market()
    position = hold(tape)
    refuse(Order.objects.get(position=position), Refused("no", kind=RefusalKind.OTHER, permanent=True))
    change_plan(position_id=position.pk, plan=parse_plan({"stop_loss": {"pct": "2"}}), now=tape.now, actor="me")
    look(tape, "100", after=5)
    assert orders_of(position)[-1] == ("stop_loss", "stop", "pending", D(10), D(98))


# -- swaps


def test_a_target_swaps_with_the_stop_which_leaves_first():
    tape = market()
    position, stop = at_rest(tape)
    assert look(tape, "102") == 0
    assert open_bracket(position).swap == "stop_leaving"
    assert orders_of(position) == [("stop_loss", "stop", "cancel_requested", D(10), D(99))]
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("take_profit_1", "market", "pending", D(10), None)]
    assert open_bracket(position).swap == "target_working"
    say(tape, Order.objects.get(position=position, reason="take_profit_1"), ReportedState.FILLED, filled="10")
    assert f.read_again(position).status == "closed"


def test_a_rung_takes_its_part_and_the_stop_rests_for_the_remainder():
    tape = market()
    position, stop = at_rest(tape, plan=RUNGS)
    look(tape, "102")
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [
        ("take_profit_1", "market", "pending", D(4), None),
        ("stop_loss", "stop", "pending", D(6), D(99)),
    ]
    assert f.read_again(position).reserved == D(10)
    target, rest = Order.objects.filter(position=position).order_by("pk")[1:]
    say(tape, rest)
    say(tape, target, ReportedState.FILLED, filled="4", price="102")
    held = f.read_again(position)
    assert (open_bracket(position).swap, held.status, held.remaining, held.reserved) == ("", "partial_exit", D(6), D(6))
    look(tape, "102", after=5)
    assert len(orders_of(position)) == 3


def test_a_price_that_came_back_sells_nothing_and_the_stop_rests_again():
    tape = market()
    position, stop = at_rest(tape)
    look(tape, "102")
    tape.at(1)
    tape.quote("101")
    scan(now=tape.now, everything=True)
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("stop_loss", "stop", "pending", D(10), D(99))]
    assert open_bracket(position).swap == ""
    assert f.triggers_of(position)["take_profit_1"] == "armed"


def test_a_stop_that_fills_while_it_is_called_off_wins():
    tape = market()
    position, stop = at_rest(tape)
    look(tape, "102")
    say(tape, stop, ReportedState.FILLED, filled="10")
    assert f.read_again(position).status == "closed"
    assert len(orders_of(position)) == 1
    sweep(now=tape.at(5))
    assert len(orders_of(position)) == 1


def test_a_price_that_fell_while_the_stop_left_sells_by_the_stop():
    tape = market()
    position, stop = at_rest(tape)
    look(tape, "102")
    tape.at(1)
    tape.quote("98")
    scan(now=tape.now, everything=True)
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("stop_loss", "market", "pending", D(10), None)]


def test_a_target_that_does_not_fill_gives_the_room_back_and_waits_again():
    tape = market()
    plan = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit"}]}
    quick = {"trade_exit": {"bracket_orders": {"mode": "resting", "swap_timeout_seconds": 4}}}
    position, stop = at_rest(tape, plan=plan, settings=quick)
    look(tape, "102")
    say(tape, stop, ReportedState.CANCELLED)
    target = Order.objects.get(position=position, reason="take_profit_1")
    say(tape, target)
    look(tape, "101", after=5)
    sweep(now=tape.now)
    assert f.read_again(target).state == "cancel_requested"
    say(tape, target, ReportedState.CANCELLED)
    assert orders_of(position)[2:] == [("stop_loss", "stop", "pending", D(10), D(99))]
    assert open_bracket(position).swap == ""
    assert position.triggers.filter(reason="take_profit_1", status="armed").count() == 1


def test_a_crash_after_the_swap_began_is_taken_up_by_the_sweep():
    tape = market()
    position, stop = at_rest(tape)
    tape.at(1)
    tape.quote("102")
    scan(now=tape.now, everything=True)
    assert (open_bracket(position).swap, f.read_again(stop).state) == ("stop_leaving", "submitted")
    sweep(now=tape.now)
    assert f.read_again(stop).state == "cancel_requested"
    apply_reports(account_id=stop.account_id, reports=[f.report_of(stop, ReportedState.CANCELLED)], now=tape.now)
    Order.objects.filter(pk=stop.pk).update(news=False)  # as if the follow-up had been lost as well
    sweep(now=tape.now)
    assert orders_of(position)[1:] == [("take_profit_1", "market", "pending", D(10), None)]


def test_a_time_that_has_come_makes_the_stop_leave_too():
    tape = market()
    position, stop = at_rest(tape, plan={"stop_loss": {"pct": "1"}, "time_limit_seconds": 60})
    look(tape, "100", after=61)
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("time_limit", "market", "pending", D(10), None)]


@pytest.mark.parametrize("reason", ["manual", "emergency"])
def test_a_person_who_leaves_is_given_what_the_stop_holds(reason):
    tape = market()
    position, stop = at_rest(tape)
    request_exit(position_id=position.pk, now=tape.now, actor="me", reason=reason)
    advance(now=tape.now)
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, ReportedState.CANCELLED)
    sweep(now=tape.at(10))
    live = Order.objects.filter(position=position).exclude(state="cancelled")
    assert [(row.reason, row.waits, row.reserved) for row in live] == [(reason, False, D(10))]


# -- moves


def test_a_trail_takes_the_resting_stop_along_at_most_every_few_seconds():
    tape = market()
    position, stop = at_rest(tape, plan={"trailing": {"pct": "2"}})
    assert stop.stop_price == D(98)
    look(tape, "105")
    assert f.read_again(stop).replacing == {}
    look(tape, "110", after=5)
    assert D(f.read_again(stop).replacing["stop_price"]) == D("107.8")
    report = replace(f.report_of(stop, ReportedState.REPLACED), replaced_by="its-successor")
    apply_reports(account_id=stop.account_id, reports=[report], now=tape.now)
    look(tape, "110")
    successor = Order.objects.get(position=position, state="submitted")
    assert (successor.stop_price, successor.quantity, successor.reserved) == (D("107.8"), D(10), D(10))
    assert (successor.resting, f.read_again(position).reserved, open_bracket(position).swap) == (True, D(10), "")


def test_a_stop_the_broker_does_not_replace_leaves_and_comes_back():
    tape = market()
    position, stop = at_rest(tape)
    refusal = [Happening(kind="order_not_replaced", order_ref=stop.pk, position_ref=position.pk)]
    write_events(refusal, now=tape.now)
    change_plan(position_id=position.pk, plan=parse_plan({"stop_loss": {"price": "97"}}), now=tape.now, actor="me")
    look(tape, "100", after=5)
    sweep(now=tape.now)
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("stop_loss", "stop", "pending", D(10), D(97))]


def test_a_plan_without_a_stop_takes_the_resting_one_away():
    tape = market()
    position, stop = at_rest(tape)
    plan = parse_plan({"take_profits": [{"pct": "3"}]})
    change_plan(position_id=position.pk, plan=plan, now=tape.now, actor="me")
    look(tape, "100", after=5)
    sweep(now=tape.now)
    say(tape, stop, ReportedState.CANCELLED)
    sweep(now=tape.at(10))
    assert orders_of(position) == [("stop_loss", "stop", "cancelled", D(10), D(99))]


def test_a_stop_of_a_position_that_is_closed_is_called_off():
    tape = market()
    position, stop = at_rest(tape)
    position.brackets.update(status="completed", ended_at=tape.now)
    sweep(now=tape.at(5))
    assert f.read_again(stop).state == "cancel_requested"


def test_a_stop_that_somebody_called_off_comes_back_after_a_while():
    tape = market()
    position, stop = at_rest(tape)
    Order.objects.filter(pk=stop.pk).update(cancel_asked_at=tape.now)
    say(tape, stop, ReportedState.CANCELLED)
    sweep(now=tape.at(1))
    assert len(orders_of(position)) == 1
    sweep(now=tape.at(3))
    assert orders_of(position)[1:] == [("stop_loss", "stop", "pending", D(10), D(99))]


# -- the backstop


def test_the_watch_waits_for_the_resting_stop_and_then_sells_itself():
    tape = market()
    position, stop = at_rest(tape)
    assert look(tape, "98.9") == 0
    assert f.triggers_of(position)["stop_loss"] == "breached"
    assert f.read_again(stop).state == "submitted"
    look(tape, "98.9", after=6)
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, ReportedState.CANCELLED)
    assert orders_of(position)[1:] == [("stop_loss", "market", "pending", D(10), None)]
    assert Alert.objects.filter(kind="backstop").count() == 1


def test_a_price_far_beyond_is_not_waited_for():
    tape = market()
    position, stop = at_rest(tape)
    look(tape, "98")
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, ReportedState.CANCELLED, filled="3")
    assert orders_of(position)[1:] == [("stop_loss", "market", "pending", D(7), None)]


@pytest.mark.parametrize(
    ("_case", "plan", "through", "best"),
    [
        ("a level", PLAN, "98.9", None),
        ("a trail keeps its best price", {"trailing": {"pct": "1"}}, "98.9", D(100)),
    ],
)
def test_a_price_that_comes_back_arms_the_watch_again(_case, plan, through, best):
    tape = market()
    position, stop = at_rest(tape, plan=plan)
    look(tape, through)
    look(tape, "99.5", after=6)
    assert f.read_again(stop).state == "submitted"
    trigger = position.triggers.filter(urgency=10).latest("pk")
    assert trigger.status == "armed"
    if best is not None:
        assert trigger.trail.cohort.best == best
    look(tape, "98.9", after=1)
    assert f.read_again(trigger).status == "breached"


# -- what nobody acknowledges


def test_a_stop_that_nobody_acknowledges_expires_and_is_watched_here():
    tape = market()
    soon = {"trade_exit": {"bracket_orders": {"mode": "resting", "bracket_timeout_seconds": 60}}}
    position = hold(tape, settings=soon)
    first = f.bracket_of(position)
    look(tape, "100", after=61)
    heir = open_bracket(position)
    assert (f.read_again(first).status, heir.status, heir.mode, heir.plan) == (
        "expired", "active", "synthetic", first.plan,
    )  # fmt: skip
    assert Alert.objects.get(kind="bracket_expired").position_ref == position.pk
    look(tape, "100")
    assert orders_of(position) == [("stop_loss", "stop", "cancelled", D(10), D(99))]
    assert look(tape, "98") == 1
    assert orders_of(position)[1:] == [("stop_loss", "market", "pending", D(10), None)]
