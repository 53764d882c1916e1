"""Guards that nothing else tries: lifting on after a fresh arming, stops that must not be called off, silent jumps."""

from __future__ import annotations

from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr import preemption
from exitmgr.advance import advance
from exitmgr.models import TrailCohort
from exitmgr.preemption import pre_empt
from exitmgr.scans import scan
from orders.models import Order
from orders.updates import apply_reports
from positions.feeds.protocol import Tick
from positions.models import Instrument
from positions.quotes import write_quotes
from tests import factories as f
from tests.exitmgr.tape import Tape, exits_of
from tests.exitmgr.test_preemption import LIMITED

D = Decimal
pytestmark = pytest.mark.django_db


def accept(order):
    """Let the broker say that it has an order."""
    Order.objects.filter(pk=order.pk).update(state="submitting", broker_order_id="")
    apply_reports(account_id=order.account_id, reports=[f.report_of(order)], now=f.utc_now())


def test_a_high_from_before_a_trail_was_armed_does_not_lift_it_when_the_price_goes_on():
    tape = Tape()
    tape.trade("100")
    tape.at(1)
    tape.quote("120", "80", "100")
    position = f.hold(plan={"trailing": {"pct": "1"}})
    tape.quote("101")
    tape.look()
    assert exits_of(position) == []
    assert TrailCohort.objects.get().best == D(101)


def test_a_trail_starts_at_the_furthest_price_of_the_interval():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"trailing": {"pct": "1", "activation_pct": "2"}})
    tape.trade("100")
    tape.at(1)
    tape.quote("105", "104.5")
    tape.look()
    assert exits_of(position) == []
    tape.trade("103.95")
    assert exits_of(position) == [("trailing_stop", D(10), D("103.95"))]


def test_a_stop_that_is_on_its_way_is_not_called_off_for_another_stop():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"stop_loss": {"pct": "1"}, "trailing": {"pct": "3"}}, now=tape.now)
    tape.at(1)
    tape.quote("99")
    scan(now=tape.now, everything=True)
    accept(Order.objects.get(position=position))
    tape.at(1)
    tape.quote("96")
    scan(now=tape.now, everything=True)
    assert f.triggers_of(position) == {"stop_loss": "fired", "trailing_stop": "breached"}
    advance(now=tape.now)
    assert list(Order.objects.values_list("reason", "state")) == [("stop_loss", "submitted")]


def test_an_exit_that_cannot_be_called_off_calls_a_person_and_holds_up_no_other(monkeypatch):
    tape = Tape()
    tape.trade("100")
    for _ in range(2):
        f.hold(plan=LIMITED, now=tape.now)
    tape.at(1)
    tape.quote("102")
    scan(now=tape.now, everything=True)
    bad, good = Order.objects.order_by("pk")
    accept(bad)
    accept(good)
    tape.at(1)
    tape.quote("98")
    scan(now=tape.now, everything=True)
    request_cancel = preemption.request_cancel

    def cancel(*, order_id, **options):
        if order_id == bad.pk:
            raise ValueError("no such thing")
        return request_cancel(order_id=order_id, **options)

    monkeypatch.setattr("exitmgr.preemption.request_cancel", cancel)
    assert pre_empt(now=tape.now) == 1
    assert (f.read_again(bad).state, f.read_again(good).state) == ("submitted", "cancel_requested")
    assert list(Alert.objects.values_list("kind", "order_ref")) == [("pre_emption_failed", bad.pk)]


def test_the_scheduled_scan_believes_a_jump_that_nothing_contradicts():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"stop_loss": {"pct": "1"}})
    Instrument.objects.update(collar_pct=10, confirm_seconds=5)
    tape.at(1)
    jump = Tick("AAPL", D(50), D(50), D(50), tape.now)
    write_quotes(ticks=[jump], source="test", now=tape.now, ring=lambda: None)
    tape.look()
    assert exits_of(position) == []
    tape.at(5)
    tape.look()
    assert exits_of(position) == [("stop_loss", D(10), D(50))]
