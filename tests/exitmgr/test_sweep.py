"""The sweep: what was left behind goes out again, and one failure does not stop the rest."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exitmgr.sweep import beat, is_silent, sweep
from orders.brokers.protocol import ReportedState
from orders.updates import apply_reports
from tests import factories as f

pytestmark = pytest.mark.django_db


@pytest.fixture
def rung(monkeypatch):
    """Return the doorbells that were rung, as (task, queue, kwargs)."""
    bells = []

    def ring(task, *, queue, kwargs=None, expires=None):
        bells.append((task, queue, kwargs))
        return True

    monkeypatch.setattr("orders.lanes.ring", ring)
    return bells


def test_what_nobody_holds_is_rung_for_lane_by_lane_in_chunks(rung):
    position = f.hold()
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="50")
    stops = [f.exit_order(f.hold()).pk for _ in range(21)]
    assert sweep(now=f.utc_now()) == 22
    assert rung == [
        ("orders.submit", "stop_loss", {"order_ids": stops[:20]}),
        ("orders.submit", "stop_loss", {"order_ids": stops[20:]}),
        ("orders.submit", "take_profit", {"order_ids": [target.pk]}),
    ]


def test_a_bell_is_rung_again_at_most_every_two_seconds(rung):
    f.exit_order(f.hold())
    start = f.utc_now()
    rings = [sweep(now=start + timedelta(seconds=seconds)) for seconds in (0, 1, 2, 3, 4)]
    assert rings == [1, 0, 0, 1, 0]
    assert len(rung) == 2


def test_news_is_followed_up(rung):
    position = f.hold()
    order = f.exit_order(position)
    report = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10", "99")])
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    assert sweep(now=f.utc_now()) == 0
    assert f.bracket_of(position).status == "completed"


def test_stops_are_rung_even_when_following_up_fails(rung, monkeypatch):
    order = f.exit_order(f.hold())

    def fail(**_options):
        raise RuntimeError("a defect")

    monkeypatch.setattr("exitmgr.sweep.advance", fail)
    with pytest.raises(RuntimeError):
        sweep(now=f.utc_now())
    assert rung == [("orders.submit", "stop_loss", {"order_ids": [order.pk]})]


def test_silence_is_measured_from_the_last_beat():
    now, after = f.utc_now(), timedelta(seconds=3)
    assert is_silent(name="scan", now=now, after=after)
    beat(name="scan", now=now)
    beat(name="other", now=now + timedelta(seconds=60))
    assert not is_silent(name="scan", now=now + timedelta(seconds=3), after=after)
    assert is_silent(name="scan", now=now + timedelta(seconds=3, microseconds=1), after=after)
