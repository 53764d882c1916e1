"""Outcomes nobody can prove: nothing is sent again, until the order turns up or a person says what became of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from orders.errors import OutcomeUnknown
from orders.models import Order
from orders.settle import NotInQuestion, settle_order
from orders.submit import submit
from orders.sync import due_orders, poll_quiet_orders
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
pytestmark = pytest.mark.django_db


def lost(position, broker):
    """Return an exit whose answer was lost at a venue that would take it twice, looked up once in vain."""
    order = f.exit_order(position)
    broker.submits = [OutcomeUnknown("timeout")]
    ask(order, broker)
    ask(order, broker)
    return f.read_again(order)


def ask(order, broker):
    """Let a worker take the order up."""
    Order.objects.filter(pk=order.pk).update(next_attempt_at=None)
    submit(order_ids=[order.pk], worker="w", connect=to(broker), clock=f.utc_now)


def test_it_is_looked_up_and_never_sent_again():
    position, broker = f.hold(), ScriptedBroker(durable_dedupe=False)
    order = lost(position, broker)
    for _ in range(3):
        ask(order, broker)
    kept = f.read_again(order)
    assert (len(broker.sent), len(broker.asked), kept.state) == (1, 4, "unknown")
    assert (kept.quarantined_at is not None, kept.reserved, f.read_again(position).reserved) == (True, D(10), D(10))
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("order_outcome_unknown", "critical", True)
    assert "never sent again" in alert.message


def test_where_the_venue_takes_no_order_twice_it_is_sent_again():
    broker = ScriptedBroker(durable_dedupe=True)
    order = lost(f.hold(), broker)
    assert (order.state, order.quarantined_at, len(broker.sent)) == ("submitted", None, 2)


def test_it_turns_up_after_all():
    broker = ScriptedBroker(durable_dedupe=False)
    order = lost(f.hold(), broker)
    broker.finds = [f.report_of(order)]
    ask(order, broker)
    assert (f.read_again(order).state, len(broker.sent)) == ("submitted", 1)
    assert Alert.objects.get().resolved_at is not None


def test_a_person_says_that_it_never_arrived():
    position, broker = f.hold(), ScriptedBroker(durable_dedupe=False)
    order = lost(position, broker)
    settled = settle_order(order_id=order.pk, arrived=False, now=f.utc_now(), actor="ann")
    assert (settled.state, settled.reserved, settled.news) == ("cancelled", D(0), True)
    assert f.read_again(position).reserved == 0
    assert Alert.objects.get().resolved_at is not None
    event = Event.objects.get(kind="order_settled")
    assert (event.actor, event.data["arrived"]) == ("ann", False)


def test_a_person_says_that_it_arrived():
    position, broker = f.hold(), ScriptedBroker(durable_dedupe=False)
    order = lost(position, broker)
    settle_order(order_id=order.pk, arrived=True, now=f.utc_now(), actor="ann", broker_order_id="abc")
    kept = f.read_again(order)
    assert (kept.state, kept.broker_order_id, kept.heard_at, kept.reserved) == ("submitted", "abc", None, D(10))
    assert due_orders(now=f.utc_now()) == []
    broker.finds = [f.report_of(order)]
    assert poll_quiet_orders(connect=to(broker), now=f.utc_now()) == 1
    assert len(broker.sent) == 1


def test_only_what_is_in_question_is_settled():
    order = f.exit_order(f.hold())
    with pytest.raises(NotInQuestion, match="is pending"):
        settle_order(order_id=order.pk, arrived=False, now=f.utc_now(), actor="ann")
    assert f.read_again(order).state == "pending"
    assert Event.objects.filter(kind="order_settled").count() == 0


def test_what_a_halted_account_lost_is_looked_up_without_being_sent():
    account = f.make_account()
    broker = ScriptedBroker(submits=[OutcomeUnknown("timeout")])
    order = f.exit_order(f.hold(account=account))
    submit(order_ids=[order.pk], worker="w", connect=to(broker), clock=f.utc_now)
    account.trading_state = "halted"
    account.save()
    now = f.utc_now() + timedelta(seconds=10)
    assert due_orders(now=now) == []
    assert poll_quiet_orders(connect=to(broker), now=now) == 1
    assert (f.read_again(order).state, len(broker.sent), Alert.objects.count()) == ("unknown", 1, 0)
    broker.finds = [f.report_of(order)]
    poll_quiet_orders(connect=to(broker), now=now)
    assert (f.read_again(order).state, len(broker.sent)) == ("submitted", 1)
