"""Stops that vanished, outlived their position or had the wrong size elsewhere; here what remains is covered, always."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.exits import request_exit
from exitmgr.flatten import keep_flattening, request_flatten
from exitmgr.models import Protection
from exitmgr.protection import watch_protection
from exitmgr.reconcile.differences import Difference, Kind
from exitmgr.reconcile.outside_trades import follow_reduction
from exitmgr.sweep import beat, sweep
from orders.brokers.protocol import BrokerPosition, ReportedState
from orders.errors import RefusalKind, Refused
from orders.models import Order
from orders.states import LIVE
from orders.sync import poll_quiet_orders
from orders.updates import apply_reports
from tests import factories as f
from tests.exitmgr.test_native import group
from tests.exitmgr.test_resting import NATIVE, PLAN, RESTING, RUNGS, at_rest, hold, look, market, orders_of, refuse, say
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def covered(tape, position):
    """Return whether a position is protected now, and how much of it."""
    beat(name="scan", now=tape.now)
    watch_protection(now=tape.now)
    kept = Protection.objects.get(position=position)
    return kept.protected, kept.covered


def sell_by_hand(tape, position):
    request_exit(position_id=position.pk, now=tape.now, actor="me")
    advance(now=tape.now)


def sell_at_the_target(tape, _position):
    look(tape, "102")


def sell_by_time(tape, _position):
    look(tape, "100", after=61)


@pytest.mark.parametrize(
    ("_case", "leave", "reason"),
    [
        ("a person", sell_by_hand, "manual"),
        ("a target", sell_at_the_target, "take_profit_1"),
        ("a time limit", sell_by_time, "time_limit"),
    ],
)
def test_no_stop_outlives_its_position(_case, leave, reason):
    tape = market()
    position, stop = at_rest(tape, plan={**PLAN, "time_limit_seconds": 60})
    leave(tape, position)
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, S.CANCELLED)
    (order,) = Order.objects.filter(position=position, state__in=LIVE)
    assert (order.reason, order.quantity) == (reason, D(10))
    say(tape, order)
    say(tape, order, S.FILLED, filled="10", price="100")
    sweep(now=tape.at(10))
    assert f.read_again(position).status == "closed"
    assert not Order.objects.filter(position=position, state__in=LIVE).exists()
    assert len(orders_of(position)) == 2


@pytest.mark.parametrize(("_case", "made"), [("the move was made", True), ("it was not", False)])
def test_a_stop_that_was_being_moved_as_the_position_was_left_does_not_come_back(_case, made):
    tape = market()
    position, stop = at_rest(tape, plan={"trailing": {"pct": "2"}})
    look(tape, "110", after=5)
    assert D(f.read_again(stop).replacing["stop_price"]) == D("107.8")
    request_exit(position_id=position.pk, now=tape.now, actor="me")
    advance(now=tape.now)
    assert f.read_again(stop).state == "cancel_requested"
    if made:
        report = replace(f.report_of(stop, S.REPLACED), replaced_by="its-successor")
        apply_reports(account_id=stop.account_id, reports=[report], now=tape.now)
        advance(now=tape.now)
        stop = Order.objects.get(replaces=stop)
        assert (stop.state, f.read_again(position).reserved) == ("cancel_requested", D(10))
    say(tape, stop, S.CANCELLED)
    sweep(now=tape.at(10))
    (order,) = Order.objects.filter(position=position, state__in=LIVE)
    assert (order.reason, order.quantity, order.resting) == ("manual", D(10), False)
    say(tape, order)
    say(tape, order, S.FILLED, filled="10", price="110")
    sweep(now=tape.at(10))
    assert f.read_again(position).status == "closed"
    assert not Order.objects.filter(position=position, state__in=LIVE).exists()


@pytest.mark.parametrize(
    ("_case", "error"),
    [
        ("quantity held by the very order", Refused("insufficient qty", kind=RefusalKind.HELD_QUANTITY)),
        ("no such thing there", Refused("not replaceable", kind=RefusalKind.NOT_ALLOWED)),
    ],
)
def test_a_move_the_broker_refuses_is_made_by_leaving_and_coming_back(_case, error):
    tape = market()
    position, stop = at_rest(tape, plan={"trailing": {"pct": "2"}})
    look(tape, "110", after=5)
    broker = ScriptedBroker(replaces=[error], finds=[f.report_of(stop)])
    poll_quiet_orders(connect=to(broker), now=tape.now)
    kept = f.read_again(stop)
    assert (len(broker.replaced), kept.replacing, kept.state) == (1, {}, "submitted")
    look(tape, "110", after=5)
    sweep(now=tape.now)
    assert f.read_again(stop).state == "cancel_requested"
    say(tape, stop, S.CANCELLED)
    assert orders_of(position)[1:] == [("trailing_stop", "stop", "pending", D(10), D("107.8"))]


@pytest.mark.parametrize(
    ("_case", "fills", "rest"),
    [("a third", ["3"], "7"), ("in two parts", ["3", "4"], "3"), ("all but a hundredth", ["9.99"], "0.01")],
)
def test_a_stop_that_fills_in_part_goes_on_covering_the_rest(_case, fills, rest):
    tape = market()
    position, stop = at_rest(tape)
    for quantity in fills:
        executions = [f.fill_of(quantity)]
        total = f.read_again(stop).filled_quantity + D(quantity)
        report = f.report_of(stop, executions=executions, filled=str(total))
        apply_reports(account_id=stop.account_id, reports=[report], now=tape.now)
        advance(now=tape.now)
    held = f.read_again(position)
    assert (held.remaining, held.reserved) == (D(rest), D(rest))
    assert covered(tape, position) == (True, D(rest))
    assert len(orders_of(position)) == 1


def test_after_each_rung_the_stop_is_as_large_as_what_remains():
    tape = market()
    position, stop = at_rest(tape, plan=RUNGS)
    look(tape, "102")
    say(tape, stop, S.CANCELLED)
    target, rest = Order.objects.filter(position=position).order_by("pk")[1:]
    say(tape, rest)
    say(tape, target, S.FILLED, filled="4", price="102")
    assert [(row.quantity, row.stop_price) for row in Order.objects.filter(resting=True, state__in=LIVE)] == [
        (D(6), D(99))
    ]
    assert covered(tape, position) == (True, D(6))


@pytest.mark.parametrize(
    ("_case", "kind"),
    [
        ("the price is through it", RefusalKind.PRICE),
        ("too close or too far for the venue", RefusalKind.INVALID),
        ("the venue has no such order", RefusalKind.NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("settings", [None, NATIVE])
def test_a_stop_that_is_refused_sells_nothing_by_surprise_and_leaves_nobody_naked(_case, kind, settings):
    tape = market()
    position = hold(tape, **({} if settings is None else {"settings": settings}))
    refuse(Order.objects.get(position=position), Refused("no", kind=kind, permanent=True))
    assert f.bracket_of(position).status == "error"
    assert Alert.objects.get(kind="bracket_error").requires_action
    assert covered(tape, position) == (True, D(10))
    assert look(tape, "100", after=10) == 0
    assert look(tape, "98.9") == 1
    assert orders_of(position)[-1][:4] == ("stop_loss", "market", "pending", D(10))


def test_a_stop_whose_end_nobody_confirms_is_not_doubled():
    tape = market()
    position, stop = at_rest(tape)
    look(tape, "102")
    for _ in range(3):
        sweep(now=tape.at(10))
    assert [state for _, _, state, _, _ in orders_of(position)] == ["cancel_requested"]
    assert covered(tape, position)[0] is False
    sweep(now=tape.at(30))
    assert Alert.objects.filter(kind="leg_not_ended", order_ref=stop.pk).count() == 1


@pytest.mark.parametrize(("_case", "price"), [("a gap", "63"), ("a second gap, filled where the market was", "23")])
def test_a_gap_sells_where_the_market_is_and_the_books_say_so(_case, price):
    tape = market()
    position, stop = at_rest(tape)
    say(tape, stop, S.FILLED, filled="10", price=price)
    left = f.read_again(position)
    assert (left.status, left.realized_pnl) == ("closed", (D(price) - 100) * 10)
    assert f.read_again(stop).expected_price == D(99)


def flattened(tape, position):
    """Have the account of a position left on a person's word, and look once as the schedule would."""
    account = position.account
    request_flatten(account_id=account.pk, confirm=account.name, note="a test", now=tape.now, actor="me")
    keep_flattening(now=tape.now)
    advance(now=tape.now)


def left_by_hand(tape, position):
    request_exit(position_id=position.pk, now=tape.now, actor="me", reason="emergency")
    advance(now=tape.now)


@pytest.mark.parametrize("legs", ["resting", "native"])
@pytest.mark.parametrize(
    ("_case", "leave"), [("everything is to be left", flattened), ("a person in haste", left_by_hand)]
)
def test_in_haste_what_rests_at_the_broker_makes_room_first(_case, leave, legs):
    tape = market()
    if legs == "native":
        position, *resting = group(tape)
    else:
        position, *resting = at_rest(tape)
    leave(tape, position)
    assert not Order.objects.filter(position=position, order_type="market", waits=False).exists()
    assert "cancel_requested" in {f.read_again(leg).state for leg in resting}
    for leg in resting:
        say(tape, leg, S.CANCELLED)
    tape.at(1)
    keep_flattening(now=tape.now)
    sweep(now=tape.now)
    live = Order.objects.filter(position=position, state__in=LIVE)
    assert [(row.reason, row.quantity, row.waits) for row in live] == [("emergency", D(10), False)]
    assert f.read_again(position).reserved == D(10)


@pytest.mark.parametrize("legs", ["resting", "native"])
def test_what_rests_is_made_smaller_when_somebody_else_has_sold_a_part(legs):
    tape = market()
    if legs == "native":
        position, *resting = group(tape)
    else:
        position, *resting = at_rest(tape)
    sold = Difference(
        kind=Kind.REDUCED_OUTSIDE,
        key="holding:AAPL",
        symbol="AAPL",
        figures={"here": "10", "there": "6"},
        position_ids=(position.pk,),
        holding=BrokerPosition(symbol="AAPL", quantity=D(6), available=D(0), average_entry=D(100)),
    )
    assert follow_reduction(sold, account_id=position.account_id, now=tape.now, actor="test")
    assert "cancel_requested" in {f.read_again(leg).state for leg in resting}
    for leg in resting:
        say(tape, leg, S.CANCELLED)
    for _ in range(3):
        look(tape, "100", after=3)
    (order,) = Order.objects.filter(position=position, state__in=LIVE)
    assert (order.resting, order.quantity, f.read_again(position).reserved) == (True, D(6), D(6))


def test_a_half_filled_entry_is_watched_here_and_a_person_knows_that_no_stop_rests_yet():
    tape = market()
    entry = f.entry_order(settings=RESTING)
    report = f.report_of(entry, executions=[f.fill_of("4", "100")])
    apply_reports(account_id=entry.account_id, reports=[report], now=tape.now)
    advance(now=tape.now)
    position = f.read_again(entry).position
    for _ in range(12):
        look(tape, "100", after=3)
    assert not Order.objects.filter(position=position, resting=True).exists()
    assert covered(tape, position) == (False, D(0))
    assert Alert.objects.get(kind="unprotected").position_ref == position.pk
    assert look(tape, "98.9") == 1
    assert (Order.objects.get(position=position, intent="exit").quantity, f.read_again(entry).state) == (
        D(4),
        "cancel_requested",
    )
