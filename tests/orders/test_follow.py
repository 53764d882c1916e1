"""Following the stream of updates: duplicates and disorder book once, and a cut stream is caught up with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection

from orders import follow
from orders.brokers.registry import connect
from orders.follow import Follower
from orders.models import Fill, Order
from orders.tasks import submit_orders, sync_orders
from tests import factories as f
from tests.simulator.box import Box, eventually, start_box

D = Decimal
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def box(running: Box) -> Box:
    """Return the simulator, emptied, with a price."""
    running.control("POST", "/reset")
    running.quote("AAPL", "98.90", "98.92")
    return running


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tasks that were rung for."""
    bells: list[str] = []
    for place in ("orders.lanes.ring", "orders.follow.ring", "exitmgr.brackets.ring"):
        monkeypatch.setattr(place, lambda task, **_options: bells.append(task) or True)
    return bells


@pytest.fixture
def follower(rung: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    """Run a follower of all accounts; it is stopped in the end."""
    monkeypatch.setattr(follow, "ACCOUNTS_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(follow, "RESTART_SECONDS", 0.05)

    class Closing(Follower):
        def _follow(self, account_id: int) -> None:
            try:
                super()._follow(account_id)
            finally:
                connection.close()

    followed = Closing(connect=connect, clock=f.utc_now)

    def run() -> None:
        try:
            followed.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield followed
    followed.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()


def listeners(box: Box) -> int:
    """Return how many streams of updates are open at the broker."""
    shown: Any = box.control("GET", "/streams")
    return int(shown["trading"]) if isinstance(shown["trading"], int) else len(shown["trading"])


def exit_at(box: Box) -> Order:
    """Decide to leave ten AAPL that are held at this broker."""
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": "10", "avg_entry_price": "100"})
    account = f.make_account(url=box.url, key=box.key, secret=box.secret)
    return f.exit_order(f.hold(account=account))


def filled(order: Order) -> bool:
    """Return whether our books say that the order has filled."""
    return f.read_again(order).state == "filled"


@pytest.mark.parametrize(
    ("_case", "faults"),
    [
        ("each update once", []),
        ("each update three times", [{"kind": "duplicate_updates", "times": 3}]),
        ("held back and turned around", [{"kind": "reorder_updates", "seconds": 0.05}]),
        ("both", [{"kind": "reorder_updates", "count": 2}, {"kind": "duplicate_updates", "times": 2}]),
    ],
)
def test_updates_of_the_stream_are_booked_once(box, follower, rung, _case, faults):
    order = exit_at(box)
    eventually(lambda: listeners(box) == 1)
    if faults:
        box.control("POST", "/faults", {"faults": faults})
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.5", "seconds": 0.05, "count": 1})
    submit_orders(order_ids=[order.pk])
    eventually(lambda: filled(order))
    position = f.read_again(order.position)
    assert (position.status, position.exited, position.reserved) == ("closed", D(10), D(0))
    assert Fill.objects.count() == 2
    assert "exitmgr.advance" in rung


def test_what_was_said_while_the_stream_was_cut_is_asked_about_at_the_next_connect(box, follower, rung):
    order = exit_at(box)
    eventually(lambda: listeners(box) == 1)
    box.control("POST", "/faults", {"kind": "mute_stream", "stream": "trading"})
    submit_orders(order_ids=[order.pk])
    assert f.read_again(order).state == "submitted"
    Order.objects.filter(pk=order.pk).update(heard_at=f.utc_now())
    box.control("DELETE", "/faults")
    box.control("POST", "/faults", {"kind": "cut_stream", "stream": "trading"})
    eventually(lambda: f.read_again(order).heard_at is None)
    eventually(lambda: "orders.sync" in rung)
    sync_orders()
    assert filled(order)


def test_an_account_added_later_is_followed_too(box, follower):
    eventually(lambda: listeners(box) == 0)
    exit_at(box)
    eventually(lambda: listeners(box) == 1)


def test_what_is_heard_while_the_database_is_away_is_booked_when_it_is_back(box, follower, monkeypatch, caplog):
    order = exit_at(box)
    eventually(lambda: listeners(box) == 1)
    really = follow.apply_reports
    failures = iter([OperationalError("away"), OperationalError("away")])

    def flaky(**reports):
        for error in failures:
            raise error
        return really(**reports)

    monkeypatch.setattr(follow, "apply_reports", flaky)
    submit_orders(order_ids=[order.pk])
    eventually(lambda: filled(order))  # by the stream alone: nothing polls here
    assert caplog.text.count("updates_wait") == 2
    assert listeners(box) == 1
