"""Collecting ticks: order, bounds, and what is kept when the database cannot take them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from positions.coalescer import Coalescer, thin_out
from positions.feeds.protocol import Tick

NOW = datetime(2026, 3, 2, 15, 30, 30, tzinfo=UTC)


def tick(last: Any, *, symbol: str = "AAPL", bid: Any = None, ask: Any = None) -> Tick:
    """Return a tick with prices given as text or int."""
    return Tick(symbol, *(None if price is None else Decimal(price) for price in (bid, ask, last)), NOW)


def test_a_drain_takes_everything_in_order_once() -> None:
    coalescer = Coalescer()
    ticks = [tick(price) for price in (3, 1, 2)]
    coalescer.add(ticks[:2])
    coalescer.add(ticks[2:])

    assert coalescer.drain(wait_seconds=0) == ticks
    assert coalescer.drain(wait_seconds=0) == []


def test_a_drain_waits_for_the_first_tick() -> None:
    coalescer = Coalescer()
    drained: list[list[Tick]] = []
    waiting = threading.Thread(target=lambda: drained.append(coalescer.drain(wait_seconds=10)))
    waiting.start()

    coalescer.add([tick(1)])
    waiting.join(timeout=2)

    assert drained == [[tick(1)]]


def test_what_is_put_back_comes_first() -> None:
    coalescer = Coalescer()
    coalescer.add([tick(1), tick(2)])
    batch = coalescer.drain(wait_seconds=0)
    coalescer.add([tick(3)])
    coalescer.put_back(batch)

    assert coalescer.drain(wait_seconds=0) == [tick(1), tick(2), tick(3)]


def test_no_tick_is_lost_between_threads() -> None:
    coalescer = Coalescer()
    frames = [[tick(n, symbol=f"S{thread}") for n in range(1, 11)] for thread in range(4)]

    def add(frame: list[Tick]) -> None:
        for _ in range(50):
            coalescer.add(frame)

    threads = [threading.Thread(target=add, args=(frame,)) for frame in frames]
    for thread in threads:
        thread.start()
    taken: list[Tick] = []
    while any(thread.is_alive() for thread in threads) or len(coalescer):
        taken += coalescer.drain(wait_seconds=0.01)

    for number, frame in enumerate(frames):
        assert [one for one in taken if one.symbol == f"S{number}"] == frame * 50


@pytest.mark.parametrize(
    ("_case", "ticks", "kept"),
    [
        ("nothing", [], []),
        ("few", [tick(1), tick(2)], [tick(1), tick(2)]),
        ("first, extremes and last", [tick(p) for p in (5, 6, 9, 7, 1, 2, 4)], [tick(p) for p in (5, 9, 1, 4)]),
        (
            "extremes of each price",
            [tick(5, bid=4, ask=6), tick(5, bid=3, ask=6), tick(5, bid=4, ask=6), tick(5, bid=4, ask=9), tick(5)],
            [tick(5, bid=4, ask=6), tick(5, bid=3, ask=6), tick(5, bid=4, ask=9), tick(5)],
        ),
        (
            "extremes of the mid, which may be neither side's",
            [tick(5, bid=4, ask=8), tick(5, bid=1, ask=9), tick(5, bid=3, ask=6), tick(5, bid=4, ask="5.5"), tick(5)],
            [tick(5, bid=4, ask=8), tick(5, bid=1, ask=9), tick(5, bid=3, ask=6), tick(5, bid=4, ask="5.5"), tick(5)],
        ),
        (
            "a side that is no number has no mid",
            [tick(5, bid=4, ask=6), tick(5, bid="Infinity", ask=6), tick(5, bid=4, ask=6)],
            [tick(5, bid=4, ask=6), tick(5, bid=4, ask=6)],
        ),
        (
            "no number is no extreme",
            [tick(5), tick("NaN"), tick("Infinity"), tick(6), tick(5), tick(4)],
            [tick(5), tick(6), tick(4)],
        ),
    ],
)
def test_thinning_keeps_what_matters(_case: str, ticks: list[Tick], kept: list[Tick]) -> None:
    assert thin_out(ticks) == kept


def test_thinning_keeps_symbols_apart() -> None:
    ticks = [tick(p, symbol=symbol) for p in (5, 6, 7, 1, 5) for symbol in ("A", "B")]

    kept = thin_out(ticks)

    assert [one for one in kept if one.symbol == "A"] == [tick(p, symbol="A") for p in (5, 7, 1, 5)]
    assert [one for one in kept if one.symbol == "B"] == [tick(p, symbol="B") for p in (5, 7, 1, 5)]


def test_an_outage_does_not_fill_the_memory() -> None:
    coalescer = Coalescer(most=1_000)
    for price in range(1, 20_001):
        coalescer.add([tick(price % 977 + 1, symbol=f"S{price % 10}")])
        assert len(coalescer) <= 1_000

    prices = [one.last for one in coalescer.drain(wait_seconds=0)]
    assert (min(prices), max(prices), prices[-1]) == (1, 977, 20_000 % 977 + 1)


def test_more_symbols_than_the_bound_are_all_kept() -> None:
    coalescer = Coalescer(most=100)
    names = [f"S{n}" for n in range(300)]
    for _ in range(5):
        coalescer.add([tick(price, symbol=name) for name in names for price in (2, 3, 1, 2, 2)])

    assert {one.symbol for one in coalescer.drain(wait_seconds=0)} == set(names)
