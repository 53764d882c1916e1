"""Do stops go first? A backlog of entries and targets with the stops queued last, then a stop amid slow entries."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.ground import Ground, milliseconds, percentile
from orders.models import Order

BACKLOG = 300
SAMPLES = 30
SLOW_SECONDS = 1.0
_STOP = {"stop_loss": {"pct": "1"}}
_TARGET = {"take_profits": [{"pct": "1"}]}


def run(ground: Ground) -> dict[str, Any]:
    """Measure both and return the figures."""
    return {**_backlog(ground), **_amid_slow_entries(ground)}


def _backlog(ground: Ground) -> dict[str, Any]:
    """Queue entries, then targets, then stops while no order worker runs; start them and look at who started when."""
    entered, targets, stops = (ground.instrument(name) for name in ("ENT", "TGT", "STP"))
    for instrument in (entered, targets, stops):
        ground.settle_price(instrument.symbol, "100", "100.02")
    held_targets = ground.hold(targets, BACKLOG, plan=_TARGET)
    held_stops = ground.hold(stops, BACKLOG, plan=_STOP)
    for name in ("stop", "orders"):
        ground.stack.stop_process(name)
    ids = ground.enter(entered, BACKLOG)
    ground.price(targets.symbol, "102", "102.02")
    ids += [order.pk for order in ground.await_exits(held_targets, accepted=False)]
    ground.price(stops.symbol, "98", "98.02")
    ids += [order.pk for order in ground.await_exits(held_stops, accepted=False)]
    for name in ("orders", "stop"):
        ground.stack.start_process(name)
    ground.until(lambda: not Order.objects.filter(pk__in=ids, submitted_at__isnull=True).exists())
    started = list(
        Order.objects.filter(pk__in=ids).order_by("submitted_at", "urgency", "pk").values_list("lane", "submitted_at")
    )
    ground.await_calm()
    lanes = [lane for lane, _ in started]
    last_stop = max(at for lane, at in started if at and lane == "stop_loss")
    first_other = min(at for lane, at in started if at and lane != "stop_loss")
    return {
        "backlog": len(started),
        "inversions": inversions(lanes),
        "last_stop_to_first_other_ms": milliseconds(first_other, last_stop),
    }


def inversions(lanes: list[str]) -> int:
    """Return how many pairs started in the wrong order of precedence."""
    rank = {"emergency": 0, "stop_loss": 1, "take_profit": 2, "entry": 3}
    count, seen = 0, [0, 0, 0, 0]
    for lane in lanes:
        place = rank[lane]
        count += sum(seen[place + 1 :])
        seen[place] += 1
    return count


def _amid_slow_entries(ground: Ground) -> dict[str, Any]:
    """Keep the shared worker busy with entries that take a second each, and fire stops one by one."""
    entered, stops = ground.instrument("ENT"), ground.instrument("STP")
    for instrument in (entered, stops):
        ground.settle_price(instrument.symbol, "100", "100.02")
    ground.simulator.fault(kind="latency", match={"symbol": entered.symbol}, seconds=SLOW_SECONDS)
    waits: list[float] = []
    try:
        for _ in range(SAMPLES):
            if Order.objects.filter(instrument=entered, state="pending").count() < 40:
                ground.settle_price(entered.symbol, "100", "100.02")  # an old price takes no entries
                ground.enter(entered, 80)
                time.sleep(SLOW_SECONDS / 2)
            ground.settle_price(stops.symbol, "100", "100.02")
            held = ground.hold(stops, 1, plan=_STOP)
            ground.price(stops.symbol, "98", "98.02")
            (order,) = ground.await_exits(held)
            assert order.submitted_at is not None
            waits.append(milliseconds(order.submitted_at, order.created_at))
        busy = Order.objects.filter(instrument=entered, state__in=["pending", "submitting"]).count()
    finally:
        ground.simulator.clear_faults()
    ground.await_calm()
    return {
        "slow_entries_still_waiting": busy,
        "stop_start_ms_p50": percentile(waits, 50),
        "stop_start_ms_max": max(waits),
        "stop_starts_within_50_ms_percent": 100 * sum(wait <= 50 for wait in waits) / len(waits),
    }
