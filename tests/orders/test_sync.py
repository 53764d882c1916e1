"""Asking the broker: who is asked about, who is spared, and what the sweep hands out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from alerts.models import Alert
from orders.brokers.protocol import ReportedState
from orders.errors import NotSent
from orders.limits import POLL_AFTER_SECONDS, POLLS_FAILED
from orders.models import Order
from orders.sync import distrust_account, due_orders, poll_quiet_orders
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, to

pytestmark = pytest.mark.django_db


def working(*, heard_ago=None, account=None, **fields):
    """Return an exit at the broker that was heard of so many seconds ago, or never."""
    heard_at = None if heard_ago is None else f.utc_now() - timedelta(seconds=heard_ago)
    return f.raw_order(f.hold(account=account), state="submitted", heard_at=heard_at, **fields)


def test_only_quiet_orders_are_asked_about_the_most_urgent_first():
    account = f.make_account()
    target = working(account=account, heard_ago=POLL_AFTER_SECONDS + 1, urgency=40)
    stop = working(account=account, heard_ago=POLL_AFTER_SECONDS + 1)
    never = working(account=account)
    working(account=account, heard_ago=1)
    f.raw_order(f.hold(account=account))
    broker = ScriptedBroker(finds=[f.report_of(order) for order in (never, stop, target)])
    assert poll_quiet_orders(connect=to(broker), now=f.utc_now()) == 3
    assert broker.asked == [order.client_order_id for order in (never, stop, target)]
    assert poll_quiet_orders(connect=to(broker), now=f.utc_now()) == 0


def test_a_poll_books_what_the_stream_did_not_tell():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitted")
    broker = ScriptedBroker(finds=[f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10")])])
    poll_quiet_orders(connect=to(broker), now=f.utc_now())
    assert f.read_again(position).status == "closed"


def test_an_account_that_does_not_answer_does_not_hold_up_another():
    dead, alive = f.make_account(), f.make_account()
    for _ in range(60):
        working(account=dead, urgency=0)
    order = working(account=alive, urgency=50)
    gone, there = ScriptedBroker(finds=[NotSent("no connection")] * 60), ScriptedBroker(finds=[f.report_of(order)])
    poll_quiet_orders(connect=lambda _ids: {dead.pk: gone, alive.pk: there}.__getitem__, now=f.utc_now())
    assert (len(gone.asked), there.asked) == (1, [order.client_order_id])
    assert f.read_again(order).heard_at is not None


def test_an_order_the_broker_does_not_know_is_kept_and_calls_a_person():
    order = working()
    poll_quiet_orders(connect=to(ScriptedBroker()), now=f.utc_now())
    assert f.read_again(order).state == "submitted"
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.order_ref) == ("order_unknown_to_broker", "critical", order.pk)


def test_a_wished_cancel_is_sent_until_the_end_is_told():
    order = working()
    Order.objects.filter(pk=order.pk).update(state="cancel_requested")
    broker = ScriptedBroker(finds=[f.report_of(order), f.report_of(order, ReportedState.CANCELLED)])
    for _ in range(2):
        poll_quiet_orders(connect=to(broker), now=f.utc_now() + timedelta(seconds=60))
        Order.objects.filter(pk=order.pk).update(heard_at=None)
    assert broker.cancelled == [order.client_order_id] * 2
    assert f.read_again(order).state == "cancelled"


def test_a_cut_stream_makes_every_working_order_of_the_account_quiet():
    account = f.make_account()
    mine, other = working(account=account, heard_ago=0), working(heard_ago=0)
    assert distrust_account(account_id=account.pk) == 1
    assert (f.read_again(mine).heard_at, f.read_again(other).heard_at is None) == (None, False)


@pytest.mark.parametrize(
    ("_case", "fields", "due"),
    [
        ("pending", {}, True),
        ("just created: its own doorbell is on the way", {"created_at": 0}, False),
        ("its next try is later", {"next_attempt_at": 30}, False),
        ("its next try is due", {"next_attempt_at": -1}, True),
        ("a worker holds it", {"state": "submitting", "lease_until": 20}, False),
        ("its worker's lease ran out", {"state": "submitting", "lease_until": -1}, True),
        ("unknown, to be looked up", {"state": "unknown", "next_attempt_at": -1}, True),
        ("rung a second ago", {"rung_at": -1}, False),
        ("rung three seconds ago", {"rung_at": -3}, True),
        ("at the broker", {"state": "submitted"}, False),
    ],
)
def test_what_the_sweep_hands_out(_case, fields, due):
    now = f.utc_now()
    moments = {"created_at": -5} | {name: at for name, at in fields.items() if name.endswith(("_at", "_until"))}
    order = f.raw_order(
        f.hold(), **fields | {name: now + timedelta(seconds=seconds) for name, seconds in moments.items()}
    )
    assert due_orders(now=now) == ([(order.pk, "stop_loss")] if due else [])


def test_an_order_is_handed_out_at_most_every_two_seconds():
    order, now = f.exit_order(f.hold()), f.utc_now()
    handed = [now + timedelta(seconds=tenth / 10) for tenth in range(60)]
    times = [at for at in handed if due_orders(now=at) == [(order.pk, "stop_loss")]]
    assert [round((at - now).total_seconds(), 1) for at in times] == [0.0, 2.1, 4.2]


def test_the_most_urgent_is_handed_out_first():
    position = f.hold()
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="50")
    stop = f.exit_order(position)
    assert due_orders(now=f.utc_now()) == [(stop.pk, "stop_loss"), (target.pk, "take_profit")]


def test_a_broker_that_does_not_say_what_became_of_an_order_calls_a_person_until_it_does():
    order = working()
    broker = ScriptedBroker(finds=[NotSent("no connection")] * POLLS_FAILED)
    for number in range(1, POLLS_FAILED + 1):
        poll_quiet_orders(connect=to(broker), now=f.utc_now())
        assert Alert.objects.count() == (number >= POLLS_FAILED)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.account_ref) == ("polls_failed", "critical", order.account_id)
    broker.finds = [f.report_of(order)]
    poll_quiet_orders(connect=to(broker), now=f.utc_now())
    assert (f.read_again(order).polls_failed, Alert.objects.get().resolved_at is not None) == (0, True)


def test_a_cancel_that_is_not_confirmed_calls_a_person():
    order = working()
    asked_at = f.utc_now()
    Order.objects.filter(pk=order.pk).update(state="cancel_requested", cancel_asked_at=asked_at)
    for seconds, alerts in ((20, 0), (31, 1)):
        Order.objects.filter(pk=order.pk).update(heard_at=None)
        broker = ScriptedBroker(finds=[f.report_of(order)])
        poll_quiet_orders(connect=to(broker), now=asked_at + timedelta(seconds=seconds))
        assert (broker.cancelled, Alert.objects.count()) == ([order.client_order_id], alerts)
    assert Alert.objects.get().kind == "cancel_not_confirmed"
