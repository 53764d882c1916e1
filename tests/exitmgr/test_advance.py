"""What follows news of orders: brackets armed and completed, unfinished exits sent again, nothing left unprotected."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.brackets import create_bracket
from exitmgr.exits import request_exit
from exitmgr.models import Bracket, Trigger
from exitmgr.policy.plan_choice import ChosenPlan
from exitmgr.policy.schema import Policy
from exitmgr.rules.plan import parse_plan
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.cancel import request_cancel
from orders.errors import Refused
from orders.models import Order
from orders.outcomes import settle_failure
from orders.submit import claim
from orders.updates import apply_reports
from positions.models import Position, Quote
from tests import factories as f

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def tell(order, state=S.WORKING, *fills, filled=None):
    """Let the broker say something of an order, and follow it up; fills are (quantity, price)."""
    executions = [f.fill_of(quantity, price) for quantity, price in fills]
    report = f.report_of(order, state, executions=executions, filled=filled)
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    advance(now=f.utc_now())
    return f.read_again(order)


def levels_of(position):
    """Return the level of each armed trigger."""
    rows = Trigger.objects.filter(position=position, status="armed").order_by("pk")
    return dict(rows.values_list("reason", "level"))


def exits_of(position):
    """Return reason, quantity and state of each exit in the order they were made."""
    rows = Order.objects.filter(position=position, intent="exit").order_by("pk")
    return list(rows.values_list("reason", "quantity", "state"))


# -- entries


def test_the_first_partial_fill_is_protected_at_once_and_levels_follow_the_average():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    assert levels_of(position) == {"stop_loss": D(99), "take_profit_1": D(102)}
    bracket = f.bracket_of(position)
    assert (bracket.status, bracket.entry_price, bracket.stop_price, bracket.ratio) == ("active", D(100), D(99), D(2))
    tell(entry, S.FILLED, ("6", "105"), filled="10")
    assert levels_of(position) == {"stop_loss": D("101.97"), "take_profit_1": D("105.06")}
    assert (f.bracket_of(position).entry_price, Bracket.objects.count()) == (D(103), 1)


def test_a_level_that_moved_is_not_judged_on_prices_before_the_move():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    f.push_price("101")
    tell(entry, S.FILLED, ("6", "105"), filled="10")
    f.push_price("104")
    assert scan(now=f.utc_now()).orders == 0
    assert exits_of(position) == []
    assert position.triggers.get(reason="stop_loss").armed_seq == Quote.objects.get().seq - 1


def test_a_rung_that_fired_does_not_fire_again_after_more_was_filled():
    f.set_quote("100")
    plan = {"stop_loss": {"pct": "5"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}]}
    entry = f.entry_order(plan=plan)
    position = tell(entry, S.WORKING, ("4", "100")).position
    f.push_price("102")
    scan(now=f.utc_now())
    tell(entry, S.FILLED, ("6", "100"), filled="10")
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "fired"}
    assert levels_of(position) == {"stop_loss": D(95)}


def test_the_rest_of_an_entry_is_called_off_when_an_exit_fires():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    f.push_price("98.90")
    scan(now=f.utc_now())
    assert f.read_again(entry).news
    advance(now=f.utc_now())
    kept = f.read_again(entry)
    assert (kept.state, kept.heard_at) == ("cancel_requested", None)
    assert exits_of(position) == [("stop_loss", D(4), "pending")]


def test_an_entry_fill_after_closing_is_a_new_protected_position():
    f.set_quote("100")
    entry = f.entry_order()
    first = tell(entry, S.WORKING, ("4", "100")).position
    leaving = request_exit(position_id=first.pk, now=f.utc_now(), actor="ann")
    tell(leaving, S.FILLED, ("4", "100"))
    assert f.bracket_of(first).status == "completed"
    second = tell(entry, S.CANCELLED, ("1", "98"), filled="5").position
    assert second.pk != first.pk
    assert levels_of(second) == {"stop_loss": D("97.02"), "take_profit_1": D("99.96")}
    assert (f.bracket_of(second).status, levels_of(first)) == ("active", {})


def test_what_the_entry_fills_while_the_stop_is_out_follows_the_stop():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    f.push_price("98.90")
    scan(now=f.utc_now())
    stop = Order.objects.get(intent="exit")
    tell(entry, S.FILLED, ("6", "100"), filled="10")
    assert exits_of(position) == [("stop_loss", D(4), "pending")]
    tell(stop, S.FILLED, ("4", "98.9"))
    assert exits_of(position) == [("stop_loss", D(4), "filled"), ("stop_loss", D(6), "pending")]
    rest = Order.objects.filter(intent="exit").latest("pk")
    tell(rest, S.FILLED, ("6", "98.8"))
    assert f.read_again(position).status == "closed"


def test_what_the_entry_fills_while_a_person_leaves_stays_protected():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    leaving = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    tell(entry, S.FILLED, ("6", "100"), filled="10")
    tell(leaving, S.FILLED, ("4", "100"))
    assert f.read_again(position).available == 6
    assert f.triggers_of(position)["stop_loss"] == "armed"


def test_a_latched_stop_takes_what_the_entry_fills_later_at_once():
    f.set_quote("100")
    entry = f.entry_order()
    position = tell(entry, S.WORKING, ("4", "100")).position
    request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    f.push_price("98.90")
    scan(now=f.utc_now())
    assert f.triggers_of(position)["stop_loss"] == "breached"
    tell(entry, S.FILLED, ("6", "100"), filled="10")
    assert exits_of(position) == [("manual", D(4), "pending"), ("stop_loss", D(6), "pending")]


@pytest.mark.parametrize("end", [S.CANCELLED, S.REJECTED, S.EXPIRED])
def test_an_entry_that_ends_unfilled_takes_its_bracket_along(end):
    entry = f.entry_order()
    tell(entry)
    tell(entry, end)
    bracket = Bracket.objects.get()
    assert (bracket.status, bracket.ended_at is not None, Position.objects.count()) == ("cancelled", True, 0)


def test_a_plan_that_no_longer_fits_the_fill_is_an_error_and_calls_a_person():
    entry = f.entry_order(plan={"stop_loss": {"price": "99"}})
    position = tell(entry, S.FILLED, ("10", "98.50")).position
    bracket = f.bracket_of(position)
    assert (bracket.status, levels_of(position)) == ("error", {})
    assert "must lie below the entry price 98.5" in bracket.error
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("bracket_error", "critical", True)
    assert alert.position_ref == position.pk


# -- exits


def test_a_closed_position_completes_its_bracket_and_cancels_what_is_armed():
    position = f.hold()
    order = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    tell(order, S.FILLED, ("10", "101"))
    assert f.bracket_of(position).status == "completed"
    assert f.triggers_of(position) == {"stop_loss": "cancelled", "take_profit_1": "cancelled"}
    assert Event.objects.filter(kind="bracket_completed", position_ref=position.pk).count() == 1
    assert advance(now=f.utc_now()) == 0


@pytest.mark.parametrize("end", [S.CANCELLED, S.REJECTED, S.EXPIRED])
def test_the_rest_of_an_exit_the_broker_ended_goes_out_again_under_a_new_id(end):
    position = f.hold()
    first = f.exit_order(position)
    tell(first)
    tell(first, end, ("4", "99"))
    second = Order.objects.latest("pk")
    assert exits_of(position) == [("stop_loss", D(10), str(end)), ("stop_loss", D(6), "pending")]
    assert (second.attempt, second.retry_of_id) == (2, first.pk)
    assert second.client_order_id != first.client_order_id
    assert f.utc_now() - timedelta(seconds=1) < second.next_attempt_at < f.utc_now() + timedelta(seconds=2)
    assert f.read_again(position).reserved == 6


def test_an_exit_the_broker_ends_again_and_again_calls_a_person_in_the_end():
    position = f.hold()
    f.exit_order(position)
    allowed = Policy().exit_manager.max_resubmit_attempts
    for attempt in range(1, allowed + 2):
        order = Order.objects.latest("pk")
        assert order.attempt == attempt
        tell(order)
        tell(order, S.REJECTED)
    assert Order.objects.count() == allowed + 1
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.order_ref) == ("exit_failed", "critical", order.pk)
    assert f.read_again(position).reserved == 0


def test_what_a_person_called_off_is_not_sent_again():
    position = f.hold()
    order = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    tell(order)
    request_cancel(order_id=order.pk, now=f.utc_now(), actor="ann")
    tell(order, S.CANCELLED)
    assert exits_of(position) == [("manual", D(10), "cancelled")]
    assert f.triggers_of(position)["stop_loss"] == "armed"


def test_an_exit_that_was_given_up_is_not_sent_again():
    position = f.hold()
    order = f.exit_order(position)
    (claimed,) = claim(order_ids=[order.pk], worker="w")
    refused = Refused("not allowed", permanent=True)
    settle_failure(order_id=order.pk, epoch=claimed.epoch, error=refused, now=f.utc_now())
    advance(now=f.utc_now())
    assert exits_of(position) == [("stop_loss", D(10), "cancelled")]
    assert Alert.objects.get().kind == "exit_failed"


def test_what_a_target_gives_back_follows_a_stop_that_has_fired():
    f.set_quote("100")
    plan = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}]}
    position = f.hold(plan=plan)
    f.push_price("102")
    scan(now=f.utc_now())
    target = Order.objects.get()
    f.push_price("98.90")
    scan(now=f.utc_now())
    assert exits_of(position) == [("take_profit_1", D(5), "pending"), ("stop_loss", D(5), "pending")]
    tell(Order.objects.get(reason="stop_loss"), S.FILLED, ("5", "98.9"))
    (claimed,) = claim(order_ids=[target.pk], worker="w")
    error = Refused("no", permanent=True)
    settle_failure(order_id=target.pk, epoch=claimed.epoch, error=error, now=f.utc_now())
    advance(now=f.utc_now())
    assert exits_of(position)[2:] == [("stop_loss", D(5), "pending")]


# -- the mark


def test_news_is_worked_off_once():
    position = f.hold()
    order = f.exit_order(position)
    executions = [f.fill_of("10", "99")]
    report = f.report_of(order, S.FILLED, executions=executions)
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    assert f.read_again(order).news
    assert [advance(now=f.utc_now()) for _ in range(2)] == [1, 0]
    assert not f.read_again(order).news


def test_a_failure_in_between_leaves_the_mark(monkeypatch):
    position = f.hold()
    order = f.exit_order(position)
    report = f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")])
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())

    def die(*_args, **_options):
        raise KeyboardInterrupt  # as when the process is stopped

    with monkeypatch.context() as broken:
        broken.setattr("exitmgr.advance.complete_brackets", die)
        with pytest.raises(KeyboardInterrupt):
            advance(now=f.utc_now())
    assert (f.read_again(order).news, f.bracket_of(position).status) == (True, "active")
    advance(now=f.utc_now())
    assert (f.read_again(order).news, f.bracket_of(position).status) == (False, "completed")


def test_one_order_that_cannot_be_followed_up_does_not_hold_up_the_others():
    orders = [f.exit_order(f.hold()) for _ in range(3)]
    poisoned = f.entry_order()
    report = f.report_of(poisoned, executions=[f.fill_of("4", "100")])
    apply_reports(account_id=poisoned.account_id, reports=[report], now=f.utc_now())
    position = f.read_again(poisoned).position
    # somebody gave the holding a plan before its entry's own could be armed: the database refuses a second one
    create_bracket(
        position=position, chosen=ChosenPlan(parse_plan({"stop_loss": {"pct": "1"}}), given=True), now=f.utc_now()
    )
    for order in orders:
        report = f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")])
        apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    assert advance(now=f.utc_now()) == 3
    assert {f.bracket_of(order.position).status for order in orders} == {"completed"}
    assert f.read_again(poisoned).news
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.order_ref) == ("advance_failed", "critical", poisoned.pk)
