"""The watch: silent while scans are heard of; in silence it scans, follows up and sends stops by itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError

from alerts.models import Alert
from exitmgr import tasks, watch
from exitmgr.watch import SILENCE, keep_watch, note_scan, stand_in_if_silent
from orders.models import Order
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, client_ids, to

pytestmark = pytest.mark.django_db


def look(broker, *, was, later=0.0):
    """Let the watch look once, `later` seconds from now."""
    return stand_in_if_silent(
        clock=lambda: f.utc_now() + timedelta(seconds=later), connect=to(broker), worker="stop", was=was
    )


def test_while_scans_are_heard_of_it_does_nothing():
    f.set_quote("100")
    f.hold()
    f.push_price("98.90")
    note_scan(now=f.utc_now())
    broker = ScriptedBroker()
    assert look(broker, was=False) is False
    assert (Order.objects.count(), Alert.objects.count(), broker.sent) == (0, 0, [])


def test_in_silence_it_finds_the_breach_and_sends_the_stop_itself():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.90")
    broker = ScriptedBroker()
    assert look(broker, was=False) is True
    order = Order.objects.get(position=position)
    assert (order.reason, order.state) == ("stop_loss", "pending")
    assert look(broker, was=True, later=2) is True
    assert client_ids(broker.sent) == [order.client_order_id]
    assert (f.read_again(order).state, f.read_again(order).claimed_by) == ("submitted", "watch of stop")


def test_it_sends_only_what_protects():
    position = f.hold()
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="20")
    manual = f.exit_order(position, reason="manual", fraction_pct="20")
    emergency = f.exit_order(position, reason="emergency", fraction_pct="20")
    broker = ScriptedBroker()
    look(broker, was=True)
    assert set(client_ids(broker.sent)) == {manual.client_order_id, emergency.client_order_id}
    assert f.read_again(target).state == "pending"


def test_silence_is_one_alert_and_its_end_resolves_it():
    broker = ScriptedBroker()
    was = None
    for _ in range(3):
        was = look(broker, was=was)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.count, alert.resolved_at) == ("scan_silent", "critical", 1, None)
    note_scan(now=f.utc_now())
    assert look(broker, was=was) is False
    assert f.read_again(alert).resolved_at is not None


def test_an_alert_left_by_a_watch_that_was_restarted_is_resolved():
    look(ScriptedBroker(), was=False)
    note_scan(now=f.utc_now())
    look(ScriptedBroker(), was=None)
    assert Alert.objects.get().resolved_at is not None


def test_only_a_scheduled_scan_is_a_sign_of_life():
    tasks.scan()
    assert look(ScriptedBroker(), was=True) is True
    tasks.scan(scheduled=True)
    assert look(ScriptedBroker(), was=True) is False
    assert look(ScriptedBroker(), was=True, later=SILENCE.total_seconds() + 1) is True


def test_no_failure_ends_the_watch(monkeypatch, caplog):
    rounds = iter([OperationalError("away"), RuntimeError("a defect"), True, KeyboardInterrupt()])
    seen = []

    def one_round(*, was, **_options):
        seen.append(was)
        said = next(rounds)
        if isinstance(said, BaseException):
            raise said
        return said

    monkeypatch.setattr(watch, "stand_in_if_silent", one_round)
    monkeypatch.setattr(watch, "close_old_connections", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        keep_watch(clock=f.utc_now, sleep=lambda _seconds: None, connect=to(ScriptedBroker()), worker="stop")
    assert seen == [None, None, None, True]
    assert "watch_lost_database" in caplog.text
    assert "watch_failed" in caplog.text
