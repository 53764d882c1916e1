"""Changing a working order: nothing is believed before a report, and what the old one held is never held twice."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Event
from exitmgr.advance import advance
from orders.brokers.protocol import ReportedState
from orders.cancel import request_cancel
from orders.errors import NotSent, OutcomeUnknown, RefusalKind, Refused
from orders.models import Order
from orders.replace import NotReplaceable, request_replace
from orders.sync import poll_quiet_orders
from orders.updates import apply_reports
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def resting_stop(*fills):
    """Return a stop of 10 that rests at the broker at 99."""
    order = f.exit_order(f.hold())
    Order.objects.filter(pk=order.pk).update(order_type="stop", stop_price=D(99), work_seconds=None)
    executions = [f.fill_of(quantity, "99") for quantity in fills]
    tell(order, f.report_of(order, executions=executions))
    return f.read_again(order)


def tell(order, *reports):
    """Apply reports of one order's account, and follow them up."""
    apply_reports(account_id=order.account_id, reports=list(reports), now=f.utc_now())
    advance(now=f.utc_now())


def change(order, **what):
    """Wish for a change."""
    return request_replace(order_id=order.pk, now=f.utc_now(), actor="ann", **what)


def replaced(order, *, by="new-id", filled="0"):
    """Return what the broker says of an order that was replaced."""
    report = f.report_of(order, S.REPLACED, filled=filled)
    return type(report)(**{name: getattr(report, name) for name in report.__slots__} | {"replaced_by": by})


def look(broker, *, seconds=0):
    """Ask about quiet orders."""
    return poll_quiet_orders(connect=to(broker), now=f.utc_now() + timedelta(seconds=seconds))


def orders_of(position):
    """Return state, quantity, reservation and stop of each exit."""
    rows = Order.objects.filter(position=position).order_by("pk")
    return list(rows.values_list("state", "quantity", "reserved", "stop_price"))


def test_the_successor_takes_over_what_the_old_one_held():
    order = resting_stop("4")
    position = f.read_again(order.position)
    wish = change(order, stop_price=D(100), quantity=D(6))
    broker = ScriptedBroker(finds=[replaced(order, filled="4")])
    assert look(broker) == 1
    ((ref, sent),) = broker.replaced
    assert (ref, sent.stop_price, sent.quantity) == (order.client_order_id, D(100), D(6))
    assert orders_of(position) == [("cancelled", D(10), D(0), D(99)), ("submitted", D(6), D(6), D(100))]
    new = Order.objects.latest("pk")
    assert (new.replaces_id, new.broker_order_id, new.leg) == (order.pk, "new-id", order.leg)
    assert new.client_order_id == wish.replacing["client_order_id"] == sent.client_order_id
    assert f.read_again(position).reserved == 6
    advance(now=f.utc_now())
    assert Order.objects.count() == 2
    tell(new, f.report_of(new, S.FILLED, executions=[f.fill_of("6", "100")]))
    assert f.read_again(position).status == "closed"


def test_it_is_asked_for_once_and_the_old_order_works_on_until_the_broker_says_otherwise():
    order = resting_stop()
    change(order, stop_price=D(100))
    broker = ScriptedBroker(finds=[f.report_of(order)] * 3)
    for _ in range(3):
        look(broker)
        Order.objects.update(heard_at=None)
    assert len(broker.replaced) == 1
    assert orders_of(order.position) == [("submitted", D(10), D(10), D(99))]
    look(ScriptedBroker(finds=[f.report_of(order)]), seconds=60)
    assert f.read_again(order).replacing == {}
    assert Event.objects.get(kind="order_not_replaced").order_ref == order.pk


@pytest.mark.parametrize(
    ("_case", "error", "asked", "kept"),
    [
        ("it was refused", Refused("too late", kind=RefusalKind.NOT_CANCELABLE), 1, False),
        ("nothing left us", NotSent("gone"), 2, True),
        ("nobody knows", OutcomeUnknown("timeout"), 1, True),
    ],
)
def test_what_comes_back_instead_of_an_answer(_case, error, asked, kept):
    order = resting_stop()
    change(order, stop_price=D(100))
    broker = ScriptedBroker(replaces=[error], finds=[f.report_of(order)] * 2)
    for _ in range(2):
        Order.objects.update(heard_at=None)
        look(broker)
    assert len(broker.replaced) == asked
    assert bool(f.read_again(order).replacing) is kept
    assert orders_of(order.position) == [("submitted", D(10), D(10), D(99))]


def test_a_fill_beats_a_change():
    order = resting_stop()
    change(order, stop_price=D(100))
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")]))
    assert orders_of(order.position) == [("filled", D(10), D(0), D(99))]
    assert f.read_again(order.position).status == "closed"


def test_what_fills_between_the_change_and_its_report_is_taken_off_the_successor():
    order = resting_stop()
    change(order, stop_price=D(100))
    fill = f.fill_of("3", "99")
    report = replaced(order, filled="3")
    tell(order, f.report_of(order, executions=[fill]), report)
    assert orders_of(order.position) == [("cancelled", D(10), D(0), D(99)), ("submitted", D(7), D(7), D(100))]
    tell(order, report, report)
    assert len(orders_of(order.position)) == 2


def test_fills_that_are_missing_hold_the_change_up_until_they_are_told():
    order = resting_stop()
    change(order, stop_price=D(100))
    tell(order, replaced(order, filled="3"))
    assert orders_of(order.position) == [("submitted", D(10), D(10), D(99))]


def test_a_cancel_of_the_old_one_is_meant_for_its_successor():
    order = resting_stop()
    change(order, stop_price=D(100))
    request_cancel(order_id=order.pk, now=f.utc_now(), actor="ann")
    tell(order, replaced(order))
    assert [state for state, *_ in orders_of(order.position)] == ["cancelled", "cancel_requested"]


def test_what_others_replaced_is_followed_by_the_brokers_id():
    order = resting_stop()
    tell(order, replaced(order, by="by-hand"))
    new = Order.objects.latest("pk")
    assert (new.state, new.quantity, new.broker_order_id, new.replaces_id) == ("submitted", D(10), "by-hand", order.pk)
    broker = ScriptedBroker()
    look(broker)
    assert broker.asked == [""]


@pytest.mark.parametrize(
    ("_case", "prepare", "what", "why"),
    [
        ("it is not at the broker", {"state": "unknown"}, {}, "is unknown"),
        ("a change is under way", {"replacing": {"asked_at": "noon"}}, {}, "under way since noon"),
        ("it would grow", {}, {"quantity": D(11)}, "at most the 10 left"),
        ("it would be nothing", {}, {"quantity": D(0)}, "above 0"),
    ],
)
def test_a_change_that_cannot_be_is_refused(_case, prepare, what, why):
    order = resting_stop()
    if "state" in prepare:
        order = f.exit_order(f.hold())
        Order.objects.filter(pk=order.pk).update(state="submitting")
    Order.objects.filter(pk=order.pk).update(**prepare)
    with pytest.raises(NotReplaceable, match=why):
        change(order, **what)
    assert Event.objects.filter(kind="order_replace_requested").count() == 0
