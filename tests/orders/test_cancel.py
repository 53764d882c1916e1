"""Calling off: an unsent order ends here, a sent one when the broker says so, and nothing in between."""

from __future__ import annotations

from decimal import Decimal

import pytest

from alerts.models import Event
from orders.brokers.protocol import ReportedState
from orders.cancel import NotCancellable, request_cancel, send_cancel
from orders.errors import NotSent, RefusalKind, Refused
from orders.models import Order
from orders.submit import claim
from orders.updates import apply_reports
from tests import factories as f
from tests.orders.scripted import ScriptedBroker

D = Decimal
pytestmark = pytest.mark.django_db


def call_off(order):
    """Cancel as a person would."""
    return request_cancel(order_id=order.pk, now=f.utc_now(), actor="ann", why="changed my mind")


def test_an_unsent_exit_ends_at_once_and_frees_what_it_reserved():
    position = f.hold()
    order = call_off(f.exit_order(position))
    assert (order.state, order.reserved, order.news) == ("cancelled", D(0), True)
    assert (f.read_again(position).reserved, f.read_again(position).status) == (D(0), "open")
    event = Event.objects.get(kind="order_cancel_requested")
    assert (event.actor, event.data) == ("ann", {"why": "changed my mind", "from": "pending", "to": "cancelled"})
    assert claim(order_ids=[order.pk], worker="w") == []


def test_a_sent_exit_keeps_its_reservation_until_the_broker_confirms():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitted", heard_at=f.utc_now())
    asked = call_off(order)
    assert (asked.state, asked.reserved, asked.heard_at) == ("cancel_requested", D(10), None)
    assert f.read_again(position).reserved == 10
    apply_reports(account_id=order.account_id, reports=[f.report_of(order, ReportedState.CANCELLED)], now=f.utc_now())
    assert (f.read_again(order).state, f.read_again(position).reserved) == ("cancelled", D(0))


def test_a_fill_beats_a_cancel():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitted")
    call_off(order)
    filled = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10")])
    apply_reports(account_id=order.account_id, reports=[filled], now=f.utc_now())
    assert (f.read_again(order).state, f.read_again(position).status) == ("filled", "closed")


def test_asking_twice_is_asking_once():
    order = f.raw_order(f.hold(), state="submitted")
    assert [call_off(order).state for _ in range(2)] == ["cancel_requested"] * 2


@pytest.mark.parametrize("state", ["submitting", "unknown"])
def test_an_order_that_may_be_on_its_way_cannot_be_called_off(state):
    order = f.raw_order(f.hold(), state=state)
    with pytest.raises(NotCancellable, match="being sent right now"):
        call_off(order)
    assert (f.read_again(order).state, f.read_again(order).cancel_asked_at) == (state, None)
    assert Event.objects.filter(kind="order_cancel_requested").count() == 0


@pytest.mark.parametrize("state", ["filled", "cancelled", "rejected", "expired"])
def test_an_ended_order_cannot_be_called_off(state):
    order = f.raw_order(f.hold(), state=state, ended_at=f.utc_now())
    with pytest.raises(NotCancellable, match=f"has ended .{state}"):
        call_off(order)


def test_an_unsent_entry_is_called_off_without_a_position():
    assert call_off(f.entry_order()).state == "cancelled"


def test_an_unknown_order_is_said_to_be_unknown():
    with pytest.raises(Order.DoesNotExist):
        request_cancel(order_id=0, now=f.utc_now(), actor="ann")


def test_a_broker_that_refuses_to_cancel_has_probably_ended_it():
    order = f.raw_order(f.hold(), state="cancel_requested")

    class Ended(ScriptedBroker):
        def cancel(self, ref):
            super().cancel(ref)
            raise Refused("already filled", kind=RefusalKind.NOT_CANCELABLE)

    broker = Ended()
    send_cancel(order, broker=broker)
    assert broker.cancelled == [order.client_order_id]
    assert f.read_again(order).state == "cancel_requested"


def test_a_broker_that_cannot_be_reached_is_not_taken_for_a_cancel():
    class Gone(ScriptedBroker):
        def cancel(self, ref):
            raise NotSent("no connection")

    with pytest.raises(NotSent):
        send_cancel(f.raw_order(f.hold(), state="cancel_requested"), broker=Gone())
