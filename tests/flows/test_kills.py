"""Processes are killed in the middle of a burst: every breach still ends in one filled exit, and the ledgers agree."""

from __future__ import annotations

import pytest

from tests.flows.rig import WORKERS, Rig

pytestmark = pytest.mark.flow

BURST = 60


@pytest.fixture
def burst(rig: Rig) -> list[int]:
    """Sixty positions whose stops were just breached; some exits are filled, the others are on their way."""
    held = rig.hold(BURST)
    rig.slow_broker(0.25)
    rig.breach()
    rig.await_exits_under_way(held)
    return held


def settle(rig: Rig, burst: list[int]) -> None:
    rig.await_closed(burst)
    rig.assert_left_once(burst)


def test_every_worker_is_killed_with_its_children(rig: Rig, burst: list[int]):
    rig.kill(*WORKERS)
    settle(rig, burst)
    assert max(row.epoch for row in rig.exits(burst)) > 1, "no order was taken over: the kill came too late to matter"


def test_redis_forgets_every_message(rig: Rig, burst: list[int]):
    rig.forget_all_messages()
    settle(rig, burst)


def test_redis_is_killed(rig: Rig, burst: list[int]):
    rig.kill("redis")
    settle(rig, burst)


def test_postgres_is_killed(rig: Rig, burst: list[int]):
    rig.kill("postgres")
    settle(rig, burst)


def test_the_broker_is_killed(rig: Rig, burst: list[int]):
    rig.kill("simulator")
    settle(rig, burst)


def test_beat_feed_and_updates_are_killed(rig: Rig, burst: list[int]):
    rig.kill("beat", "feed", "updates")
    settle(rig, burst)


def test_answers_are_lost_after_the_broker_took_the_order(rig: Rig):
    held = rig.hold(20)
    rig.simulator.fault(
        kind="drop_after_accept", count=10, match={"method": "POST", "path": "/v2/orders", "symbol": "AAPL"}
    )
    rig.breach()
    settle(rig, held)


def test_everything_but_the_servers_is_killed_at_once(rig: Rig, burst: list[int]):
    rig.kill(*WORKERS, "simulator", "beat", "feed", "updates", "web", "flower")
    settle(rig, burst)
