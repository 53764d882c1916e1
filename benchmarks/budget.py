"""Who leaves first where a broker takes only so many requests a minute, and how often it turns us away."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.ground import Ground, percentile
from benchmarks.lanes import inversions
from orders.models import Order
from orders.states import LIVE

#: (requests a minute, orders of each kind): Alpaca's own limit, and a larger one that is over sooner for its backlog.
RUNS = ((200, 60), (1000, 500))
PATIENCE = 480.0
_STOP = {"stop_loss": {"pct": "1"}}
_TARGET = {"take_profits": [{"pct": "1"}]}


def run(ground: Ground) -> dict[str, Any]:
    """Measure each limit and return the figures."""
    figures: dict[str, Any] = {}
    for per_minute, each in RUNS:
        figures |= {f"at_{per_minute}_{name}": value for name, value in _run(ground, per_minute, each).items()}
    return figures


def _run(ground: Ground, per_minute: int, each: int) -> dict[str, Any]:
    """Write entries, targets and stops down while nobody sends, set the limit, and let the workers go."""
    entered, targets, stops = (ground.instrument(name) for name in ("ENT", "TGT", "STP"))
    for instrument in (entered, targets, stops):
        ground.settle_price(instrument.symbol, "100", "100.02")
    held_targets = ground.hold(targets, each, plan=_TARGET)
    held_stops = ground.hold(stops, each, plan=_STOP)
    for name in ("stop", "orders"):
        ground.stack.stop_process(name)
    ground.settle_price(entered.symbol, "100", "100.02")  # an old price takes no entries
    ids = ground.enter(entered, each)
    ground.price(targets.symbol, "102", "102.02")
    ids += [order.pk for order in ground.await_exits(held_targets, accepted=False)]
    ground.price(stops.symbol, "98", "98.02")
    ids += [order.pk for order in ground.await_exits(held_stops, accepted=False)]
    time.sleep(61 - time.time() % 60)  # limits count by the minute: begin with a whole one, whatever was spent before
    ground.simulator.call("POST", "rate_limit", {"per_minute": per_minute})
    began = time.monotonic()
    try:
        for name in ("orders", "stop"):
            ground.stack.start_process(name)
        unsent = Order.objects.filter(pk__in=ids, accepted_at__isnull=True)
        ground.until(lambda: not unsent.filter(state__in=LIVE).exists(), patience=PATIENCE)
        took = time.monotonic() - began
        turned_away = int(ground.simulator.call("GET", "rate_limit")["turned_away"])
    finally:
        ground.simulator.call("POST", "rate_limit", {"per_minute": None})
    return {**_order_of_arrival(ground, ids), "turned_away": turned_away, "seconds": took}


def _order_of_arrival(ground: Ground, ids: list[int]) -> dict[str, Any]:
    """Return what the broker's own books say of who came when."""
    lanes = dict(Order.objects.filter(pk__in=ids).values_list("client_order_id", "lane"))
    arrived = sorted(
        (
            (order.submitted_at, lanes[order.client_order_id])
            for order in ground.simulator.ledger().orders
            if order.client_order_id in lanes
        ),
        key=lambda pair: pair[0],
    )
    first = arrived[0][0]
    figures: dict[str, Any] = {
        "orders": len(arrived),
        "never_sent": len(ids) - len(arrived),
        "inversions": inversions([lane for _, lane in arrived]),
    }
    for lane in ("stop_loss", "take_profit", "entry"):
        seconds = [(at - first).total_seconds() for at, its in arrived if its == lane]
        figures |= {f"{lane}_s_p50": percentile(seconds, 50), f"{lane}_s_last": max(seconds)}
    return figures
