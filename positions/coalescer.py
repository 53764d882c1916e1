"""Collects ticks while the previous ones are being written. Bounded: in an outage only what matters is kept."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final

from positions.feeds.protocol import Tick

#: Ticks kept before they are thinned out; at 50,000 a second this is two seconds of them.
MOST_TICKS: Final = 100_000


def _sum_of_sides(tick: Tick) -> Decimal | None:
    """Return twice the mid, None where a side is missing or no number."""
    if tick.bid is None or tick.ask is None or not (tick.bid.is_finite() and tick.ask.is_finite()):
        return None
    return tick.bid + tick.ask


_COLUMNS: Final[tuple[Callable[[Tick], Decimal | None], ...]] = (
    attrgetter("bid"),
    attrgetter("ask"),
    attrgetter("last"),
    _sum_of_sides,
)


class Coalescer:
    """Takes ticks from any thread and hands them over in one batch, those of a symbol in their order."""

    def __init__(self, *, most: int = MOST_TICKS) -> None:
        self._most = most
        self._room = most
        self._ticks: list[Tick] = []
        self._lock = threading.Lock()
        self._filled = threading.Event()

    def add(self, ticks: Sequence[Tick]) -> None:
        """Append ticks."""
        with self._lock:
            self._ticks.extend(ticks)
            self._thin_out()
        self._filled.set()

    def put_back(self, ticks: Sequence[Tick]) -> None:
        """Return a batch that could not be written; it comes before what was added since."""
        with self._lock:
            self._ticks[:0] = ticks
            self._thin_out()
        self._filled.set()

    def drain(self, *, wait_seconds: float) -> list[Tick]:
        """Return all ticks at once, waiting for the first one if there is none; empty when none came."""
        self._filled.wait(wait_seconds)
        with self._lock:
            ticks, self._ticks = self._ticks, []
            self._room = self._most
            self._filled.clear()
        return ticks

    def __len__(self) -> int:
        return len(self._ticks)

    def _thin_out(self) -> None:
        if len(self._ticks) > self._room:
            self._ticks = thin_out(self._ticks)
            self._room = max(self._most, 2 * len(self._ticks))


def thin_out(ticks: Iterable[Tick]) -> list[Tick]:
    """Return each symbol's first and last tick and those that hold an extreme, in their order."""
    by_symbol: defaultdict[str, list[Tick]] = defaultdict(list)
    for tick in ticks:
        by_symbol[tick.symbol].append(tick)
    kept = []
    for some in by_symbol.values():
        places = {0, len(some) - 1}
        for price_of in _COLUMNS:
            prices = [
                (price, place)
                for place, tick in enumerate(some)
                if (price := price_of(tick)) is not None and price.is_finite()
            ]
            if prices:
                places |= {min(prices)[1], max(prices)[1]}
        kept += [some[place] for place in sorted(places)]
    return kept
