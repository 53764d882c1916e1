"""Exits that do not fill: called off after their time of trading, and what follows; a stop is never silently over."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.exits import request_exit
from exitmgr.failed_stops import MOST_ATTEMPTS, send_failed_stops_again
from exitmgr.models import Bracket
from exitmgr.scans import scan
from exitmgr.unfilled import call_off_overdue
from orders.brokers.protocol import ReportedState
from orders.cancel import request_cancel
from orders.errors import Refused
from orders.models import Order
from orders.outcomes import settle_failure
from orders.submit import claim
from orders.updates import apply_reports
from positions.models import Position, Session
from tests import factories as f
from tests.exitmgr.tape import Tape

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def tell(order, state=S.WORKING, *fills, now=None):
    """Let the broker say something of an order, and follow it up; fills are (quantity, price)."""
    now = now or f.utc_now()
    executions = [f.fill_of(quantity, price) for quantity, price in fills]
    told = sum((execution.quantity for execution in executions), D(0)) + f.read_again(order).filled_quantity
    report = f.report_of(order, state, executions=executions, filled=str(told))
    apply_reports(account_id=order.account_id, reports=[report], now=now)
    advance(now=now)
    return f.read_again(order)


def later(seconds):
    """Return a moment from now."""
    return f.utc_now() + timedelta(seconds=seconds)


def exits_of(position):
    """Return reason, type, quantity and state of each exit in the order they were made."""
    rows = Order.objects.filter(position=position, intent="exit").order_by("pk")
    return list(rows.values_list("reason", "order_type", "quantity", "state"))


def configured(position, **settings):
    """Give a position settings of its own."""
    Bracket.objects.filter(position=position).update(overrides={"exit_manager": settings})


# -- at the market


def test_an_exit_that_is_partly_filled_for_too_long_is_called_off_and_its_rest_sent_anew():
    position = f.hold()
    first = f.exit_order(position)
    tell(first, S.WORKING, ("4", "99"))
    assert [call_off_overdue(now=later(seconds)) for seconds in (25, 31, 32)] == [0, 1, 0]
    kept = f.read_again(first)
    assert (kept.state, kept.cancel_for, kept.reserved) == ("cancel_requested", "overdue", D(6))
    assert exits_of(position) == [("stop_loss", "market", D(10), "cancel_requested")]
    tell(first, S.CANCELLED, ("1", "99"))  # a fill that crossed the cancel
    second = Order.objects.latest("pk")
    assert (second.attempt, second.retry_of_id, second.quantity, second.next_attempt_at) == (2, first.pk, D(5), None)
    assert f.read_again(position).reserved == 5


def test_an_exit_that_does_not_fill_in_all_its_attempts_calls_a_person_and_is_tried_again_a_minute_later():
    position = f.hold()
    configured(position, max_resubmit_attempts=2)
    f.exit_order(position)
    for number in (1, 2, 3):
        order = Order.objects.latest("pk")
        assert order.attempt == number
        tell(order)
        assert call_off_overdue(now=later(31)) == 1
        tell(order, S.CANCELLED)
    assert Order.objects.count() == 3
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("exit_failed", "critical", True)
    assert [send_failed_stops_again(now=later(seconds)) for seconds in (50, 61, 62)] == [0, 1, 0]
    again = Order.objects.latest("pk")
    assert (again.attempt, again.quantity, again.reason) == (4, D(10), "stop_loss")
    tell(again, S.FILLED, ("10", "98"))
    assert f.read_again(position).status == "closed"
    assert Alert.objects.get().resolved_at is not None


@pytest.mark.parametrize(
    ("_case", "opened_ago", "closes_in", "asked"),
    [
        ("the market is closed", 7200, -3600, 0),
        ("it has just opened", 10, 3600, 0),
        ("it has been open for long enough", 40, 3600, 1),
    ],
)
def test_only_time_of_trading_makes_an_exit_late(_case, opened_ago, closes_in, asked):
    position = f.hold()
    tell(f.exit_order(position))
    now = later(86_400)
    at = [(-opened_ago, closes_in), (86_400, 100_000)]
    for opens, closes in at:
        Session.objects.create(
            calendar="XNYS",
            opens_at=now + timedelta(seconds=opens),
            closes_at=now + timedelta(seconds=closes),
        )
    assert call_off_overdue(now=now) == asked


def test_what_the_session_ended_waits_for_the_next_one_and_costs_no_attempt():
    position = f.hold()
    configured(position, max_resubmit_attempts=1)
    now = f.utc_now()
    opens = now + timedelta(hours=10)
    Session.objects.create(calendar="XNYS", opens_at=opens, closes_at=opens + timedelta(hours=6))
    f.exit_order(position)
    for _ in range(3):
        order = Order.objects.latest("pk")
        tell(order, now=now)
        tell(order, S.EXPIRED, now=now)
    waiting = Order.objects.latest("pk")
    assert (waiting.attempt, waiting.state, waiting.next_attempt_at) == (4, "pending", opens)
    assert Alert.objects.count() == 0


def test_what_a_person_calls_off_meanwhile_is_not_sent_anew():
    position = f.hold()
    order = f.exit_order(position)
    tell(order)
    call_off_overdue(now=later(31))
    request_cancel(order_id=order.pk, now=f.utc_now(), actor="ann")
    tell(order, S.CANCELLED)
    assert send_failed_stops_again(now=later(120)) == 0
    assert exits_of(position) == [("stop_loss", "market", D(10), "cancelled")]


# -- with a limit


def limited(tape, price, *, plan=None, **settings):
    """Return a position and its limit exit, which works at the broker since it fired at a price."""
    tape.trade("100")
    plan = plan or {
        "stop_loss": {"pct": "1", "order_type": "limit"},
        "take_profits": [{"pct": "2", "order_type": "limit"}],
    }
    position = f.hold(plan=plan, now=tape.now)
    configured(position, **settings)
    tape.at(1)
    tape.quote(price)
    scan(now=tape.now, everything=True)
    order = Order.objects.get(position=position)
    tell(order, now=tape.now)
    return position, order


def give_up(tape, order, price, *fills):
    """Let the time of a limit exit run out at a price, and the broker confirm that it is called off."""
    tape.at(11)
    tape.quote(price)
    assert call_off_overdue(now=tape.now) == 1
    tell(order, S.CANCELLED, *fills, now=tape.now)


@pytest.mark.parametrize(
    ("_case", "fired_at", "then_at", "made"),
    [
        ("a stop ends at the market, wherever the price is", "98.9", "97", ("stop_loss", "market", D(7), "pending")),
        ("a target whose price is there", "102", "102.5", ("take_profit_1", "market", D(7), "pending")),
    ],
)
def test_a_limit_exit_that_does_not_fill_goes_to_the_market(_case, fired_at, then_at, made):
    tape = Tape()
    position, order = limited(tape, fired_at)
    give_up(tape, order, then_at, ("3", "99"))
    assert exits_of(position)[1:] == [made]


def test_a_target_whose_price_has_left_waits_for_its_level_again_and_then_sells_what_is_left():
    tape = Tape()
    plan = {"stop_loss": {"pct": "9"}, "take_profits": [{"pct": "2", "order_type": "limit", "fraction_pct": "50"}]}
    position, order = limited(tape, "102", plan=plan)
    give_up(tape, order, "101", ("2", "102"))
    assert exits_of(position) == [("take_profit_1", "limit", D(5), "cancelled")]
    assert f.triggers_of(position)["take_profit_1"] == "armed"
    assert f.read_again(position).available == 8
    assert Event.objects.get(kind="target_waits_again").data["unsold"] == "3"
    tape.at(1)
    tape.quote("101.5")
    assert scan(now=tape.now, everything=True).orders == 0
    tape.quote("102.2")
    assert scan(now=tape.now, everything=True).orders == 1
    assert exits_of(position)[1:] == [("take_profit_1", "limit", D(3), "pending")]


def test_a_stop_is_priced_anew_within_its_slippage_and_at_the_market_beyond_it_or_at_its_last_attempt():
    tape = Tape()
    reprice = {"seconds": 10, "then": "reprice"}
    position, order = limited(tape, "98.9", limit_exit=reprice, max_resubmit_attempts=2, max_slippage_bps=150)
    give_up(tape, order, "98.2")
    second = Order.objects.latest("pk")
    assert (second.order_type, second.limit_price, second.attempt) == ("limit", D("98.2"), 2)
    tell(second, now=tape.now)
    give_up(tape, second, "98.1")
    assert exits_of(position)[2:] == [("stop_loss", "market", D(10), "pending")]


def test_a_stop_beyond_its_slippage_is_not_priced_anew():
    tape = Tape()
    position, order = limited(tape, "98.9", limit_exit={"seconds": 10, "then": "reprice"})
    give_up(tape, order, "90")
    assert exits_of(position)[1:] == [("stop_loss", "market", D(10), "pending")]


# -- given up


def refused(order, *, now=None):
    """Let the broker refuse an order for good."""
    (claimed,) = claim(order_ids=[order.pk], worker="w")
    error = Refused("not allowed", permanent=True)
    settle_failure(order_id=order.pk, epoch=claimed.epoch, error=error, now=now or f.utc_now())


def test_a_stop_that_was_refused_is_tried_every_minute_and_its_alert_stays():
    position = f.hold()
    refused(f.exit_order(position))
    advance(now=f.utc_now())
    assert Order.objects.count() == 1
    assert send_failed_stops_again(now=later(61)) == 1
    again = Order.objects.latest("pk")
    assert (again.attempt, again.quantity, f.read_again(position).reserved) == (2, D(10), D(10))
    refused(again)
    alert = Alert.objects.get()
    assert (alert.count, alert.resolved_at, alert.severity) == (2, None, "critical")


def never_again_since_a_person_called_it_off(position, order):
    Order.objects.filter(pk=order.pk).update(cancel_asked_at=f.utc_now())


def never_again_since_it_was_tried_often_enough(position, order):
    Order.objects.filter(pk=order.pk).update(attempt=MOST_ATTEMPTS)


def never_again_since_the_position_is_frozen(position, order):
    Position.objects.filter(pk=position.pk).update(frozen_at=f.utc_now())


def never_again_since_a_person_leaves_it(position, order):
    request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")


def never_again_since_its_plan_has_a_new_stop(position, order):
    position.triggers.filter(reason="stop_loss").update(armed_at=later(10))


@pytest.mark.parametrize(
    "why",
    [
        never_again_since_a_person_called_it_off,
        never_again_since_it_was_tried_often_enough,
        never_again_since_the_position_is_frozen,
        never_again_since_a_person_leaves_it,
        never_again_since_its_plan_has_a_new_stop,
    ],
)
def test_a_failed_stop_is_left_alone(why):
    position = f.hold()
    order = f.exit_order(position)
    refused(order)
    why(position, order)
    made = Order.objects.count()
    assert send_failed_stops_again(now=later(61)) == 0
    assert Order.objects.count() == made


def test_a_target_that_was_refused_is_over():
    position = f.hold()
    refused(f.exit_order(position, reason="take_profit_1"))
    assert send_failed_stops_again(now=later(61)) == 0
    assert f.triggers_of(position)["stop_loss"] == "armed"
