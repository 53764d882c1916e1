"""Ringing the lanes: one doorbell per chunk of orders, the most urgent lane first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import transaction

from orders.models import Lane, Order
from positions.doorbells import ring

#: Orders a doorbell names at most: enough to share a claim, few enough not to hold a lane.
CHUNK = 20


def ring_lanes(orders: Iterable[tuple[int, str]]) -> int:
    """Ring the lanes of orders given as (id, lane) and return how many doorbells left."""
    by_lane: dict[str, list[int]] = {lane: [] for lane in Lane.values}
    for order_id, lane in orders:
        by_lane[lane].append(order_id)
    left = 0
    for lane, ids in by_lane.items():
        for start in range(0, len(ids), CHUNK):
            left += ring("orders.submit", queue=lane, kwargs={"order_ids": ids[start : start + CHUNK]})
    return left


def ring_lanes_on_commit(orders: Sequence[Order]) -> None:
    """Ring the lanes of new orders once they are committed."""
    named = [(order.pk, order.lane) for order in orders]
    if named:
        transaction.on_commit(lambda: ring_lanes(named), robust=True)


def ring_advance_on_commit() -> None:
    """Tell the room above, once this is committed, that orders have news."""
    transaction.on_commit(lambda: ring("exitmgr.advance", queue="scan"), robust=True)
