"""Whether live stops cover what is held: noted, timed, told, and settled."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.models import Protection
from exitmgr.protection import NO_STOP, protection_now, watch_protection
from exitmgr.sweep import beat
from orders.brokers.protocol import ReportedState
from orders.models import Order
from tests import factories as f
from tests.exitmgr.test_resting import at_rest, hold, look, market, say

D = Decimal
pytestmark = pytest.mark.django_db


def noted(position):
    row = Protection.objects.get(position=position)
    return row.protected, row.covered, row.why


def test_the_watch_protects_while_scans_go_on():
    now = f.utc_now()
    position = f.hold()
    watch_protection(now=now)
    assert noted(position) == (False, D(0), "scans have stopped")
    beat(name="scan", now=now)
    watch_protection(now=now)
    assert noted(position) == (True, D(10), "")
    watch_protection(now=now + timedelta(seconds=6))
    assert noted(position) == (False, D(0), "scans have stopped")


@pytest.mark.parametrize(
    ("_case", "plan"),
    [
        ("only a target", {"take_profits": [{"pct": "2"}]}),
        ("only a time limit", {"time_limit_seconds": 60}),
    ],
)
def test_a_plan_without_a_stop_is_shown_and_calls_nobody(_case, plan):
    now = f.utc_now()
    beat(name="scan", now=now)
    position = f.hold(plan=plan)
    watch_protection(now=now)
    beat(name="scan", now=now + timedelta(seconds=100))
    assert watch_protection(now=now + timedelta(seconds=100)) == 0
    assert noted(position) == (False, D(0), NO_STOP)
    covered = protection_now(now=now)
    assert (covered.protected, covered.unprotected, covered.without_stop) == (0, 0, 1)


def test_a_trail_protects():
    now = f.utc_now()
    beat(name="scan", now=now)
    position = f.hold(plan={"trailing": {"pct": "2"}})
    watch_protection(now=now)
    assert noted(position) == (True, D(10), "")


def test_a_frozen_position_is_not_protected():
    now = f.utc_now()
    beat(name="scan", now=now)
    position = f.hold()
    type(position).objects.filter(pk=position.pk).update(frozen_at=now)
    watch_protection(now=now)
    assert noted(position) == (False, D(0), "the position is frozen")


def test_at_rest_only_what_the_broker_acknowledged_covers():
    tape = market()
    beat(name="scan", now=tape.now)
    position = hold(tape)
    watch_protection(now=tape.now)
    assert noted(position) == (False, D(0), "the broker holds stops for less than remains")
    stop = Order.objects.get(position=position)
    say(tape, stop)
    watch_protection(now=tape.now)
    assert noted(position) == (True, D(10), "")
    look(tape, "102")
    watch_protection(now=tape.now)
    assert noted(position) == (False, D(0), "the broker holds stops for less than remains")
    say(tape, stop, ReportedState.CANCELLED)
    say(tape, Order.objects.get(position=position, reason="take_profit_1"))
    watch_protection(now=tape.now)
    assert noted(position) == (True, D(10), "")


def test_a_bracket_in_error_is_covered_by_the_watch():
    tape = market()
    position, _ = at_rest(tape)
    position.brackets.update(status="error")
    Order.objects.filter(position=position).delete()
    type(position).objects.filter(pk=position.pk).update(reserved=0)
    beat(name="scan", now=tape.now)
    watch_protection(now=tape.now)
    assert noted(position) == (True, D(10), "")


def test_who_is_unprotected_for_long_is_told_once_and_settled_when_covered():
    tape = market()
    position = hold(tape)
    beat(name="scan", now=tape.now)
    watch_protection(now=tape.now)
    since = Protection.objects.get(position=position).since
    assert watch_protection(now=tape.at(30)) == 0
    assert [watch_protection(now=tape.at(1)), watch_protection(now=tape.at(1))] == [1, 1]
    alert = Alert.objects.get(kind="unprotected")
    assert (alert.position_ref, alert.count, alert.severity, alert.requires_action) == (
        position.pk, 2, "critical", True,
    )  # fmt: skip
    assert Protection.objects.get(position=position).since == since
    assert protection_now(now=tape.now).longest_seconds == pytest.approx((tape.now - since).total_seconds())
    say(tape, Order.objects.get(position=position))
    watch_protection(now=tape.now)
    assert Alert.objects.get(kind="unprotected").resolved_at == tape.now


def test_a_closed_position_is_forgotten_and_its_alert_settled():
    tape = market()
    position = hold(tape)
    watch_protection(now=tape.now)
    assert watch_protection(now=tape.at(40)) == 1
    say(tape, Order.objects.get(position=position), ReportedState.FILLED, filled="10")
    assert watch_protection(now=tape.at(1)) == 0
    assert not Protection.objects.exists()
    assert not Alert.objects.filter(kind="unprotected", resolved_at__isnull=True).exists()


def test_silent_scans_are_the_watchs_to_tell():
    f.hold()
    now = f.utc_now()
    watch_protection(now=now)
    assert watch_protection(now=now + timedelta(seconds=60)) == 0
    assert protection_now(now=now + timedelta(seconds=60)).unprotected == 1
    assert not Alert.objects.exists()


def test_many_are_told_in_one_alert(monkeypatch):
    monkeypatch.setattr("exitmgr.protection.MANY", 1)
    tape = market()
    first, second = hold(tape), hold(tape)
    watch_protection(now=tape.now)
    assert watch_protection(now=tape.at(40)) == 2
    assert Alert.objects.get(kind="unprotected").title == "2 positions are not protected"
    say(tape, Order.objects.get(position=second))
    assert watch_protection(now=tape.at(1)) == 1
    told = Alert.objects.filter(kind="unprotected", resolved_at__isnull=True)
    assert list(told.values_list("position_ref", flat=True)) == [first.pk]
