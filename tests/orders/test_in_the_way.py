"""An exit refused for what other orders hold: ours are ended and it is sent again, others' call a person."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert
from orders.brokers.protocol import ReportedState
from orders.errors import RefusalKind, Refused
from orders.limits import HELD_ATTEMPTS
from orders.models import Order
from orders.submit import submit
from orders.updates import apply_reports
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
pytestmark = pytest.mark.django_db


def refusal(kind=RefusalKind.HELD_QUANTITY, related=()):
    """Return what a broker says when other orders are in the way."""
    return Refused("insufficient qty available", kind=kind, available=D(0), related_orders=related)


def send(order, *said):
    """Send an order at once and return how it is kept; the broker answers with each of these, then takes it."""
    broker = ScriptedBroker(submits=list(said))
    for _ in range(len(said) or 1):
        Order.objects.filter(pk=order.pk).update(next_attempt_at=None)
        submit(order_ids=[order.pk], worker="w", connect=to(broker), clock=f.utc_now)
    return f.read_again(order)


def working(order):
    """Let the broker acknowledge an order."""
    apply_reports(account_id=order.account_id, reports=[f.report_of(order)], now=f.utc_now())
    return f.read_again(order)


def half_filled_entry(account):
    """Return a position whose entry still works for the rest."""
    entry = working(f.entry_order(account=account))
    report = f.report_of(entry, executions=[f.fill_of("4", "100")])
    apply_reports(account_id=account.pk, reports=[report], now=f.utc_now())
    entry = f.read_again(entry)
    return entry, entry.position


@pytest.mark.parametrize("kind", [RefusalKind.WASH_TRADE, RefusalKind.HELD_QUANTITY])
def test_the_rest_of_the_entry_is_ended_and_the_exit_sent_again_at_no_cost(kind):
    account = f.make_account()
    entry, position = half_filled_entry(account)
    order = f.exit_order(position)
    kept = send(order, refusal(kind))
    assert (kept.state, kept.tries, kept.held_tries, kept.reserved) == ("pending", 0, 1, D(4))
    assert kept.next_attempt_at - f.utc_now() < timedelta(seconds=1)
    ended = f.read_again(entry)
    assert (ended.state, ended.cancel_for) == ("cancel_requested", "room")
    assert Alert.objects.count() == 0
    assert send(order).state == "submitted"


def test_less_urgent_exits_of_the_position_give_way_and_those_of_others_stay():
    account = f.make_account()
    position, other = f.hold(account=account), f.hold(account=account)
    target = working(f.exit_order(position, reason="take_profit_1", fraction_pct="50"))
    theirs = working(f.exit_order(other, reason="take_profit_1"))
    stop = f.exit_order(position)
    kept = send(stop, refusal(related=[target.broker_order_id]))
    assert kept.state == "pending"
    assert [f.read_again(order).state for order in (target, theirs)] == ["cancel_requested", "submitted"]
    assert Alert.objects.count() == 0


def test_an_order_that_is_not_ours_calls_a_person_by_its_name():
    order = f.exit_order(f.hold())
    send(order, refusal(related=["by-hand-1"]))
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action, alert.order_ref) == (
        "order_held", "critical", True, order.pk,
    )  # fmt: skip
    assert "by-hand-1" in alert.message


def test_it_goes_on_for_a_while_and_is_given_up_as_any_refusal_in_the_end():
    position = f.hold()
    order = f.exit_order(position)
    kept = send(order, *[refusal()] * HELD_ATTEMPTS)
    assert (kept.state, kept.tries, kept.held_tries) == ("pending", 0, HELD_ATTEMPTS)
    kept = send(order, *[refusal()] * order.retry_attempts)
    assert (kept.state, kept.reserved, f.read_again(position).reserved) == ("cancelled", D(0), D(0))
    assert set(Alert.objects.values_list("kind", flat=True)) == {"order_held", "exit_failed"}


def test_an_entry_calls_nothing_off():
    account = f.make_account()
    target = working(f.exit_order(f.hold(account=account), reason="take_profit_1"))
    entry = f.entry_order(account=account, symbol="MSFT")
    Order.objects.filter(pk=entry.pk).update(instrument=target.instrument)
    Order.objects.filter(pk=target.pk).update(resting=True)  # what only protects keeps no entry back
    assert send(entry, refusal(RefusalKind.WASH_TRADE)).tries == 1
    assert f.read_again(target).state == "submitted"


def test_an_exit_refused_since_the_market_is_closed_waits_and_costs_no_try():
    order = f.exit_order(f.hold())
    kept = send(order, Refused("market is closed", kind=RefusalKind.MARKET_CLOSED))
    assert (kept.state, kept.tries) == ("pending", 0)
    assert timedelta(seconds=25) < kept.next_attempt_at - f.utc_now() <= timedelta(seconds=30)


def test_what_was_in_the_way_and_ended_leaves_the_exit_its_quantity():
    account = f.make_account()
    entry, position = half_filled_entry(account)
    order = f.exit_order(position)
    send(order, refusal(RefusalKind.WASH_TRADE))
    report = f.report_of(entry, ReportedState.CANCELLED, filled="4")
    apply_reports(account_id=account.pk, reports=[report], now=f.utc_now())
    kept = send(order)
    assert (kept.state, kept.quantity, f.read_again(position).reserved) == ("submitted", D(4), D(4))
