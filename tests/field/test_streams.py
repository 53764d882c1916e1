"""Streams that lie by silence, and exits that meet a closed venue: what was not said is asked for, what waits is kept."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from orders.brokers.protocol import ReportedState
from orders.errors import OutcomeUnknown, RefusalKind, Refused
from orders.models import Fill, Order
from orders.submit import submit
from orders.sync import distrust_account, poll_quiet_orders
from orders.updates import apply_reports
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def working(account):
    """Return an exit that its broker has acknowledged just now."""
    order = f.exit_order(f.hold(account=account))
    apply_reports(account_id=account.pk, reports=[f.report_of(order)], now=f.utc_now())
    return f.read_again(order)


def test_news_of_one_order_says_nothing_about_another():
    account = f.make_account()
    silent, told = working(account), working(account)
    later = f.utc_now() + timedelta(seconds=6)
    apply_reports(account_id=account.pk, reports=[f.report_of(told)], now=later)
    broker = ScriptedBroker(finds=[f.report_of(silent, S.FILLED, executions=[f.fill_of("10")])])
    assert poll_quiet_orders(connect=to(broker), now=later) == 1
    assert broker.asked == [silent.client_order_id]
    assert f.read_again(silent).state == "filled"


def test_what_a_cut_stream_has_lost_is_asked_for_at_once():
    account, other = f.make_account(), f.make_account()
    lost, apart = working(account), working(other)
    assert poll_quiet_orders(connect=to(ScriptedBroker()), now=f.utc_now()) == 0
    assert distrust_account(account_id=account.pk) == 1
    broker = ScriptedBroker(finds=[f.report_of(lost, S.FILLED, executions=[f.fill_of("10")])])
    assert poll_quiet_orders(connect=to(broker), now=f.utc_now()) == 1
    assert [f.read_again(order).state for order in (lost, apart)] == ["filled", "submitted"]


def test_what_stream_and_poll_both_tell_is_booked_once():
    account = f.make_account()
    order = working(account)
    fill = f.fill_of("10")
    report = f.report_of(order, S.FILLED, executions=[fill])
    apply_reports(account_id=account.pk, reports=[report], now=f.utc_now())
    Order.objects.filter(pk=order.pk).update(heard_at=None)
    poll_quiet_orders(connect=to(ScriptedBroker(finds=[report])), now=f.utc_now())
    apply_reports(account_id=account.pk, reports=[report], now=f.utc_now())
    assert (Fill.objects.count(), f.read_again(order.position).exited) == (1, D(10))


def test_a_poll_that_fails_concludes_nothing():
    account = f.make_account()
    order = working(account)
    distrust_account(account_id=account.pk)
    poll_quiet_orders(connect=to(ScriptedBroker(finds=[OutcomeUnknown("timeout")])), now=f.utc_now())
    assert (f.read_again(order).state, f.read_again(order.position).reserved) == ("submitted", D(10))


@pytest.mark.parametrize("reason", ["stop_loss", "time_limit", "manual"])
def test_an_exit_that_comes_after_the_close_is_kept_for_the_next_session(reason):
    f.make_instrument(calendar="XNYS")
    position = f.hold()
    order = f.exit_order(position, reason=reason)
    said = Refused("market is closed", kind=RefusalKind.MARKET_CLOSED)
    submit(order_ids=[order.pk], worker="w", connect=to(ScriptedBroker(submits=[said])), clock=f.utc_now)
    kept = f.read_again(order)
    assert (kept.state, kept.tries, f.read_again(position).reserved) == ("pending", 0, D(10))
    assert kept.next_attempt_at > f.utc_now() + timedelta(seconds=25)
