"""Parts that stay away, freeze, or lose their supervisor: stops go out without them, and are done once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.flows.rig import Rig, eventually

pytestmark = pytest.mark.flow

#: The watch waits for three missed beats and looks each second; the rest is room for a busy machine.
STAND_IN_SECONDS = 20.0


@pytest.fixture
def stopped(rig: Rig) -> Iterator[list[str]]:
    """Names of processes the test has stopped; they are started again after it."""
    names: list[str] = []
    yield names
    for name in names:
        rig.stack.start_process(name)


def senders(rig: Rig, position_ids: list[int]) -> set[str]:
    return {row.claimed_by.partition("@")[0] for row in rig.exits(position_ids)}


def test_without_beat_and_scans_the_stop_worker_stands_in_and_says_so(rig: Rig, stopped: list[str]):
    held = rig.hold(3)
    for name in ("beat", "scan"):
        rig.stack.stop_process(name)
        stopped.append(name)
    silent_since = time.monotonic()
    eventually(lambda: len(rig.alerts("scan_silent")) == 1, seconds=STAND_IN_SECONDS)
    assert time.monotonic() - silent_since < STAND_IN_SECONDS
    (alert,) = rig.alerts("scan_silent")
    assert (alert["severity"], alert["requires_action"], alert["resolved_at"]) == ("critical", True, None)

    rig.breach()
    rig.await_closed(held, seconds=STAND_IN_SECONDS)
    rig.assert_left_once(held)

    while stopped:
        rig.stack.start_process(stopped.pop())
    eventually(lambda: rig.alerts("scan_silent")[0]["resolved_at"] is not None, seconds=30)


def test_without_redis_stops_go_out_from_the_database(rig: Rig, stopped: list[str]):
    held = rig.hold(3)
    rig.stack.stop_process("redis")
    stopped.append("redis")
    down_since = time.monotonic()
    rig.breach()
    rig.await_closed(held, seconds=STAND_IN_SECONDS)
    rig.assert_left_once(held)
    assert senders(rig, held) == {"watch of stop"}
    while time.monotonic() - down_since < 10:  # an outage that outlasts every reconnect within a worker's first tries
        time.sleep(0.1)

    rig.stack.start_process(stopped.pop())
    again = rig.hold(3)
    rig.breach()
    rig.await_closed(again, seconds=60)
    rig.assert_left_once(again)


def sender_of_the_only_exit(rig: Rig, held: list[int]) -> str:
    """Return the worker that has just claimed the exit and is talking to the broker."""
    eventually(lambda: [row.state for row in rig.exits(held)] == ["submitting"], seconds=20, poll=0.005)
    return senders(rig, held).pop()


def test_a_worker_that_freezes_while_the_broker_takes_its_order_does_not_double_it(rig: Rig):
    held = rig.hold(1)
    rig.slow_broker(1.5)
    rig.breach()
    with rig.frozen(sender_of_the_only_exit(rig, held)):
        rig.await_closed(held)  # the stream tells of the fill; failing that, another worker after the lease
    again = rig.hold(1)
    rig.breach()
    rig.await_closed(again)
    rig.assert_left_once(held)
    rig.assert_left_once(again)


def test_a_worker_that_freezes_before_the_broker_heard_of_its_order_is_overtaken(rig: Rig):
    held = rig.hold(1)
    order_request = {"method": "POST", "path": "/v2/orders", "symbol": "AAPL"}
    rig.simulator.fault(kind="latency", seconds="3", count=1, match=order_request)
    rig.simulator.fault(kind="drop_before_accept", count=1, match=order_request)
    rig.breach()
    holder = sender_of_the_only_exit(rig, held)
    with rig.frozen(holder):
        rig.await_closed(held)
        assert holder not in senders(rig, held)
    again = rig.hold(1)  # by now the one that was frozen has settled, too late, what it had claimed
    rig.breach()
    rig.await_closed(again)
    rig.assert_left_once(held)
    assert rig.exits(held)[0].epoch > 1


def test_a_supervisor_killed_in_a_burst_is_followed_by_a_start_that_finishes_it(rig: Rig):
    held = rig.hold(60)
    rig.slow_broker(0.25)
    rig.breach()
    rig.await_exits_under_way(held)
    supervisor = next(row["pid"] for row in rig.stack.status() if row["name"] == "supervisor")
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not rig.stack.is_up(), seconds=20)
    rig.start()
    rig.await_closed(held)
    rig.assert_left_once(held)
