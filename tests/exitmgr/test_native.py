"""Target and stop as one group at the broker: written down, reserved once, shrunk together, and filled both at worst."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.brackets import open_bracket
from exitmgr.sweep import sweep
from orders.brokers.protocol import OrderClass, ReportedState
from orders.models import Fill, Order
from orders.submit import claim
from orders.updates import apply_reports
from tests import factories as f
from tests.exitmgr.test_resting import NATIVE, PLAN, RUNGS, hold, look, market, orders_of, say

D = Decimal
pytestmark = pytest.mark.django_db


def leg_of_group(order, state=ReportedState.WORKING, *, quantity=None):
    """Return what the broker says of the stop beside a target."""
    report = f.report_of(order, state)
    return replace(
        report,
        client_order_id=f"child-{order.pk}",
        broker_order_id=f"broker-child-{order.pk}",
        quantity=order.quantity if quantity is None else D(quantity),
    )


def accept(tape, order):
    report = replace(f.report_of(order), legs=(leg_of_group(order),))
    apply_reports(account_id=order.account_id, reports=[report], now=tape.now)
    advance(now=tape.now)


def group(tape, **how):
    """Return a position with the two legs the broker keeps for it."""
    position = hold(tape, settings=NATIVE, **how)
    accept(tape, Order.objects.get(position=position))
    target, stop = Order.objects.filter(position=position).order_by("pk")
    return position, target, stop


def test_the_target_is_sent_with_the_stop_as_its_leg():
    position = hold(market(), settings=NATIVE)
    order = Order.objects.get(position=position)
    (claimed,) = claim(order_ids=[order.pk], worker="test")
    request = claimed.request
    assert (request.order_class, request.order_type, request.limit_price) == (OrderClass.OCO, "limit", D(102))
    assert (request.stop_leg_stop, request.stop_price, request.quantity) == (D(99), None, D(10))
    assert (order.urgency, order.lane, order.leg, order.reserved) == (10, "stop_loss", "take_profit_1", D(10))


def test_the_accepted_stop_becomes_a_row_that_holds_the_reservation():
    tape = market()
    position, target, stop = group(tape)
    assert (target.reserved, stop.reserved, f.read_again(position).reserved) == (D(0), D(10), D(10))
    assert (stop.leg, stop.reason, stop.stop_price, stop.state) == ("stop", "stop_loss", D(99), "submitted")
    assert (stop.group, stop.client_order_id) == (target.group, f"child-{target.pk}")
    assert target.group != ""
    accept(tape, target)
    assert Order.objects.filter(position=position).count() == 2


@pytest.mark.parametrize(
    ("_case", "plan", "quantity", "kind"),
    [
        ("one target for all", PLAN, "10", "limit"),
        ("rungs: the stop alone", RUNGS, "10", "stop"),
        ("no target", {"stop_loss": {"pct": "1"}}, "10", "stop"),
        ("parts of a share", PLAN, "1.5", "stop"),
        (
            "a target that decays",
            {
                "stop_loss": {"pct": "1"},
                "take_profits": [{"schedule": [{"after_seconds": 0, "pct": "5"}, {"after_seconds": 60, "pct": "2"}]}],
            },
            "10",
            "stop",
        ),
    ],
)
def test_only_one_whole_target_rests_beside_the_stop(_case, plan, quantity, kind):
    position = hold(market(), plan=plan, quantity=quantity, settings=NATIVE)
    assert Order.objects.get(position=position).order_type == kind


def test_crypto_has_no_groups():
    tape = market()
    type(f.make_instrument()).objects.update(asset_class="crypto")
    position = hold(tape, settings=NATIVE)
    assert open_bracket(position).mode == "resting"
    assert "keeps no target and stop as one group" in open_bracket(position).notes[0]


def test_a_target_in_reach_is_left_to_the_broker():
    tape = market()
    position, target, stop = group(tape)
    look(tape, "102.5")
    assert open_bracket(position).swap == ""
    assert [f.read_again(row).state for row in (target, stop)] == ["submitted", "submitted"]


def test_a_partial_target_shrinks_the_stop_and_frees_what_it_sold():
    tape = market()
    position, target, stop = group(tape)
    say(tape, target, filled="4", price="102")
    held, stop = f.read_again(position), f.read_again(stop)
    assert (held.remaining, held.reserved, stop.quantity, stop.reserved) == (D(6), D(6), D(6), D(6))
    say(tape, stop, ReportedState.FILLED, filled="6")
    assert f.read_again(stop).state == "filled"
    assert (f.read_again(position).status, f.read_again(position).reserved) == ("closed", D(0))


def test_a_target_that_fills_before_its_leg_is_known_is_booked_once():
    tape = market()
    position = hold(tape, settings=NATIVE)
    target = Order.objects.get(position=position)
    say(tape, target, ReportedState.FILLED, filled="10", price="102")
    report = replace(
        f.report_of(target, ReportedState.FILLED, filled="10"),
        legs=(leg_of_group(target, ReportedState.CANCELLED),),
    )
    apply_reports(account_id=target.account_id, reports=[report], now=tape.now)
    kept = f.read_again(position)
    assert (kept.status, kept.exited, kept.reserved) == ("closed", D(10), D(0))
    assert {row.state for row in Order.objects.filter(position=position)} <= {"filled", "cancelled"}


@pytest.mark.parametrize(("_case", "first"), [("the target first", 0), ("the stop first", 1)])
def test_both_legs_that_fill_sell_the_position_once_and_call_a_person(_case, first):
    tape = market()
    position, *legs = group(tape)
    for leg in (legs[first], legs[1 - first]):
        say(tape, f.read_again(leg), ReportedState.FILLED, filled="10", price="100")
    kept = f.read_again(position)
    assert (kept.status, kept.exited, kept.reserved) == ("closed", D(10), D(0))
    assert sum(Fill.objects.filter(order__position=position).values_list("quantity", flat=True)) == 20
    alert = Alert.objects.get(kind="position_oversold")
    assert (alert.severity, alert.requires_action, alert.data) == ("critical", True, {"beyond": "10"})
    assert Event.objects.filter(kind="position_oversold", position_ref=position.pk).count() == 1
    sweep(now=tape.at(10))
    assert {row.state for row in Order.objects.filter(position=position)} == {"filled"}


def test_a_sibling_that_does_not_end_is_called_off_and_then_told():
    tape = market()
    position, target, stop = group(tape)
    say(tape, stop, ReportedState.FILLED, filled="10")
    assert f.read_again(position).status == "closed"
    sweep(now=tape.at(5))
    assert f.read_again(target).state == "cancel_requested"
    sweep(now=tape.at(30))
    assert not Alert.objects.filter(kind="leg_not_ended").exists()
    sweep(now=tape.at(1))
    assert Alert.objects.get(kind="leg_not_ended").order_ref == target.pk
    say(tape, target, ReportedState.CANCELLED)
    sweep(now=tape.at(1))
    assert Alert.objects.get(kind="leg_not_ended").resolved_at is not None


def test_a_group_the_broker_ends_comes_back():
    tape = market()
    position, target, stop = group(tape)
    say(tape, target, ReportedState.CANCELLED)
    assert len(orders_of(position)) == 2
    say(tape, stop, ReportedState.CANCELLED)
    sweep(now=tape.at(1))
    assert [(kind, state) for _, kind, state, _, _ in orders_of(position)] == [
        ("limit", "cancelled"), ("stop", "cancelled"), ("limit", "pending"),
    ]  # fmt: skip
