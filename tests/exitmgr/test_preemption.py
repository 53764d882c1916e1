"""A stop never waits behind a less urgent exit, and limit exits are priced as their plan says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.advance import advance
from exitmgr.preemption import pre_empt
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.values import Side
from tests import factories as f
from tests.exitmgr.tape import Tape

D = Decimal
pytestmark = pytest.mark.django_db
LIMITED = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit", "time_in_force": "gtc"}]}


def working_target(tape, *, accepted=True):
    """Return a position whose limit target has fired and rests at the broker, unfilled, or is just being sent."""
    position = f.hold(plan=LIMITED, now=tape.now)
    tape.at(1)
    tape.quote("102")
    scan(now=tape.now, everything=True)
    order = Order.objects.get(position=position)
    Order.objects.filter(pk=order.pk).update(state="submitting", broker_order_id="")
    if accepted:
        apply_reports(account_id=order.account_id, reports=[f.report_of(order)], now=tape.now)
    return position, f.read_again(order)


def orders_of(position):
    """Return reason, state and quantity of each exit, in the order they were made."""
    return list(Order.objects.filter(position=position).order_by("pk").values_list("reason", "state", "quantity"))


def test_a_working_target_is_called_off_and_the_stop_sells_what_it_gives_back():
    tape = Tape()
    tape.trade("100")
    position, target = working_target(tape)
    assert (target.order_type, target.limit_price, target.time_in_force) == ("limit", D(102), "gtc")
    tape.at(1)
    tape.quote("98")
    assert scan(now=tape.now, everything=True).orders == 0
    assert f.triggers_of(position)["stop_loss"] == "breached"
    advance(now=tape.now)
    assert orders_of(position) == [("take_profit_1", "cancel_requested", D(10))]
    partly = f.fill_of("3", "102")
    apply_reports(
        account_id=target.account_id,
        reports=[f.report_of(target, ReportedState.CANCELLED, executions=[partly])],
        now=tape.now,
    )
    advance(now=tape.now)
    assert orders_of(position) == [("take_profit_1", "cancelled", D(10)), ("stop_loss", "pending", D(7))]
    assert f.triggers_of(position)["stop_loss"] == "fired"


def test_an_exit_that_is_just_being_sent_is_called_off_by_a_later_sweep():
    tape = Tape()
    tape.trade("100")
    position, target = working_target(tape, accepted=False)
    tape.at(1)
    tape.quote("98")
    scan(now=tape.now, everything=True)
    assert pre_empt(now=tape.now) == 0
    apply_reports(account_id=target.account_id, reports=[f.report_of(target)], now=tape.now)
    assert (pre_empt(now=tape.now), pre_empt(now=tape.now)) == (1, 0)
    assert orders_of(position) == [("take_profit_1", "cancel_requested", D(10))]


def test_nothing_is_called_off_while_no_stop_waits():
    tape = Tape()
    tape.trade("100")
    position, _ = working_target(tape)
    tape.at(1)
    tape.quote("101")
    scan(now=tape.now, everything=True)
    assert pre_empt(now=tape.now) == 0
    assert orders_of(position) == [("take_profit_1", "submitted", D(10))]


@pytest.mark.parametrize(
    ("_case", "side", "price", "reason", "limit"),
    [
        ("a long's stop gives way downwards", Side.LONG, "98", "stop_loss", D("97.51")),
        ("a long's target asks for no more than its level", Side.LONG, "105", "take_profit_1", D(102)),
        ("a short's stop gives way upwards", Side.SHORT, "102", "stop_loss", D("102.52")),
        ("a short's target", Side.SHORT, "95", "take_profit_1", D(98)),
    ],
)
def test_a_limit_exit_is_priced_from_its_level(_case, side, price, reason, limit):
    tape = Tape()
    tape.trade("100")
    plan = {
        "stop_loss": {"pct": "1", "order_type": "limit"},
        "take_profits": [{"pct": "2", "order_type": "limit"}],
    }
    position = f.hold(side=side, plan=plan, now=tape.now)
    tape.at(1)
    tape.quote(price)
    scan(now=tape.now, everything=True)
    order = Order.objects.get(position=position)
    assert (order.reason, order.order_type, order.limit_price) == (reason, "limit", limit)
