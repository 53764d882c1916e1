"""What made other systems sell twice: lost answers, late news, two reasons at once, ids that were used before."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.scans import scan
from exitmgr.sweep import sweep
from orders.brokers.protocol import ReportedState
from orders.errors import NotSent, OutcomeUnknown, Refused
from orders.models import Fill, Order
from orders.submit import submit
from orders.sync import poll_quiet_orders
from orders.updates import apply_reports
from tests import factories as f
from tests.exitmgr.tape import Tape
from tests.orders.scripted import ScriptedBroker, client_ids, to

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def send(order, broker):
    """Let a worker try an order now, whatever it was waiting for."""
    Order.objects.filter(pk=order.pk).update(next_attempt_at=None)
    submit(order_ids=[order.pk], worker="w", connect=to(broker), clock=f.utc_now)
    return f.read_again(order)


def follow(order, state, *fills):
    """Let the broker tell of an order, and follow it up; fills are (quantity, price)."""
    executions = [f.fill_of(quantity, price) for quantity, price in fills]
    report = f.report_of(order, state, executions=executions)
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    advance(now=f.utc_now())


@pytest.mark.parametrize(
    ("_case", "error"),
    [
        ("the answer was lost", OutcomeUnknown("timeout")),
        ("the venue broke down after taking it", OutcomeUnknown("502")),
    ],
)
def test_an_exit_that_filled_behind_a_lost_answer_is_booked_and_sent_once(_case, error):
    position = f.hold()
    order = f.exit_order(position)
    filled = f.report_of(order, S.FILLED, executions=[f.fill_of("10")])
    broker = ScriptedBroker(submits=[error], finds=[OutcomeUnknown("timeout"), filled])
    assert [send(order, broker).state for _ in range(3)] == ["unknown", "unknown", "filled"]
    advance(now=f.utc_now())
    sweep(now=f.utc_now() + timedelta(seconds=30))
    assert client_ids(broker.sent) == [order.client_order_id]
    assert broker.asked == [order.client_order_id] * 2
    assert f.read_again(position).status == "closed"
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("_case", "error"),
    [("nobody was there", NotSent("refused connection")), ("the broker said no", Refused("try later"))],
)
def test_what_provably_did_not_arrive_goes_out_again_under_the_same_id(_case, error):
    order = f.exit_order(f.hold())
    broker = ScriptedBroker(submits=[error])
    assert send(order, broker).state == "pending"
    assert send(order, broker).state == "submitted"
    assert client_ids(broker.sent) == [order.client_order_id] * 2
    assert broker.asked == [order.client_order_id]


def test_an_order_that_is_lost_is_not_taken_for_one_that_failed():
    position = f.hold()
    order = f.exit_order(position)
    broker = ScriptedBroker(submits=[OutcomeUnknown("timeout")], settle_after=60)
    assert [send(order, broker).state for _ in range(4)] == ["unknown"] * 4
    assert len(broker.sent) == 1
    held = f.read_again(position)
    assert (held.reserved, held.available) == (D(10), D(0))


@pytest.mark.parametrize(
    ("_case", "plan"),
    [
        ("a stop and a trail", {"stop_loss": {"pct": "1"}, "trailing": {"pct": "1"}}),
        ("a stop and its time limit", {"stop_loss": {"pct": "1"}, "time_limit_seconds": 1}),
        ("two trails", {"trailing": [{"pct": "1"}, {"pct": "0.5"}]}),
    ],
)
def test_two_reasons_at_once_are_one_exit(_case, plan):
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan=plan, now=tape.now)
    tape.at(5)
    tape.quote("98")
    assert scan(now=tape.now, everything=True).orders == 1
    assert scan(now=tape.at(1), everything=True).orders == 0
    (order,) = Order.objects.all()
    assert (order.quantity, f.read_again(position).reserved) == (D(10), D(10))


@pytest.mark.parametrize(
    ("_case", "filled", "rest", "status"),
    [
        ("nearly all of it", "9.9999999995", None, "closed"),
        ("a lot is left", "9", D(1), "exit_pending"),
    ],
)
def test_an_exit_that_ends_nearly_filled_asks_for_what_is_left_and_no_more(_case, filled, rest, status):
    f.make_instrument(lot=D("0.000000001"), dust=D("0.000000001"))
    position = f.hold()
    order = f.exit_order(position)
    follow(order, S.WORKING)
    follow(f.read_again(order), S.CANCELLED, (filled, "99"))
    again = list(Order.objects.exclude(pk=order.pk))
    assert [row.quantity for row in again] == ([] if rest is None else [rest])
    assert f.read_again(position).reserved == (rest or 0)
    assert f.read_again(position).status == status


def test_each_new_attempt_has_an_id_that_was_never_used():
    position = f.hold()
    order = f.exit_order(position)
    seen = [order.client_order_id]
    for _ in range(3):
        follow(order, S.WORKING)
        follow(f.read_again(order), S.CANCELLED)
        order = Order.objects.latest("pk")
        seen.append(order.client_order_id)
    assert len(set(seen)) == 4
    assert Order.objects.get(client_order_id=seen[-1]).attempt == 4


def test_an_exit_that_nobody_told_of_is_asked_about_and_closes_the_position():
    position = f.hold()
    order = f.exit_order(position)
    broker = ScriptedBroker()
    assert send(order, broker).state == "submitted"
    filled = f.report_of(order, S.FILLED, executions=[f.fill_of("10")])
    broker.finds = [filled]
    long_after = f.utc_now() + timedelta(seconds=6)
    assert poll_quiet_orders(connect=to(broker), now=long_after) == 1
    assert poll_quiet_orders(connect=to(broker), now=long_after + timedelta(seconds=6)) == 0
    assert (f.read_again(order).state, f.read_again(position).status) == ("filled", "closed")
    assert (Fill.objects.count(), Alert.objects.count()) == (1, 0)
