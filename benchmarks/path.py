"""From a price at the venue to the exit accepted by the broker, through every process, one by one and in a burst."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from benchmarks import floor as empty_task
from benchmarks.ground import Ground, milliseconds, percentile

SINGLES = 200
BURST = 1_000
_STOP = {"stop_loss": {"pct": "1"}}


def run(ground: Ground) -> dict[str, Any]:
    """Measure both, and the floor under them, and return the figures."""
    singles = _singles(ground)
    burst = _burst(ground)
    # the floor is measured on the same machine in the same run, with the stack idle beside it
    ground.stack.stop_process("maintenance")
    floor = empty_task.measure(log=ground.stack.var / "log" / "bench-worker.log")
    ground.stack.start_process("maintenance")
    return {
        **singles,
        **burst,
        **floor,
        "path_over_empty_task_p50": singles["price_to_accepted_ms_p50"] / floor["empty_task_ms_p50"],
        "empty_tasks_per_order": floor["empty_tasks_per_second"] / burst["orders_per_second"],
    }


def _singles(ground: Ground) -> dict[str, Any]:
    instrument = ground.instrument("PTH")
    spans: list[float] = []
    stages: dict[str, list[float]] = {"price_to_stored": [], "price_to_claimed": []}
    for _ in range(SINGLES):
        ground.settle_price(instrument.symbol, "100", "100.02")
        held = ground.hold(instrument, 1, plan=_STOP)
        time.sleep(0.02)  # let the scan that arming rings pass, so that each sample meets idle workers
        pushed = datetime.now(UTC)
        ground.price(instrument.symbol, "98", "98.02")
        (order,) = ground.await_exits(held)
        assert order.accepted_at
        assert order.priced_at
        assert order.submitted_at
        spans.append(milliseconds(order.accepted_at, pushed))
        stages["price_to_stored"].append(milliseconds(order.priced_at, pushed))
        stages["price_to_claimed"].append(milliseconds(order.submitted_at, pushed))
    ground.await_calm()
    return {
        "samples": len(spans),
        "price_to_accepted_ms_p50": percentile(spans, 50),
        "price_to_accepted_ms_p99": percentile(spans, 99),
        **{f"{name}_ms_p50": percentile(values, 50) for name, values in stages.items()},
    }


def _burst(ground: Ground) -> dict[str, Any]:
    instrument = ground.instrument("BST")
    ground.settle_price(instrument.symbol, "100", "100.02")
    held = ground.hold(instrument, BURST, plan=_STOP)
    pushed = datetime.now(UTC)
    ground.price(instrument.symbol, "98", "98.02")
    orders = ground.await_exits(held)
    ground.await_calm()
    last = max(order.accepted_at for order in orders if order.accepted_at)
    seconds = (last - pushed).total_seconds()
    return {
        "burst": len(orders),
        "burst_last_accepted_ms": seconds * 1000,
        "orders_per_second": len(orders) / seconds,
    }
