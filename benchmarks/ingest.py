"""How many price updates a second one feed process takes: collected, judged, and committed to the quotes.

Two runs over the same symbols. `flat out` offers ticks as fast as they are taken, never more than a second's worth
ahead, and gives the rate. `paced` offers a fixed rate and gives the age of ticks when their quotes are committed.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from positions.coalescer import Coalescer
from positions.feeds.protocol import Tick
from positions.models import Bar, Instrument, Quote
from positions.quotes import write_quotes

_PREFIX: Final = "INGEST."
_FRAME: Final = 500  #: ticks that arrive together
_AHEAD: Final = 50_000


def run(
    _ground: object = None,
    /,
    *,
    symbols: int = 5_000,
    ticks: int = 600_000,
    paced_rate: int = 50_000,
    paced_seconds: float = 6,
) -> dict[str, Any]:
    """Measure, remove the rows made for it, and return the figures. Needs Django set up and a migrated database."""
    _remove_rows()
    Instrument.objects.bulk_create([Instrument(symbol=f"{_PREFIX}{n}", tradable=False) for n in range(symbols)])
    try:
        names = [f"{_PREFIX}{n}" for n in range(symbols)]
        _Run(names, frames=4 * symbols // _FRAME, rate=None).measure()  # every row exists, every page is warm
        flat_out = _Run(names, frames=ticks // _FRAME, rate=None).measure()
        paced = _Run(names, frames=int(paced_rate * paced_seconds) // _FRAME, rate=paced_rate).measure()
    finally:
        _remove_rows()
    return {
        "symbols": symbols,
        "ticks": flat_out["ticks"],
        "ticks_per_second": flat_out["ticks_per_second"],
        "write_ms_p50": flat_out["write_ms_p50"],
        "paced_ticks_per_second": paced["ticks_per_second"],
        "paced_age_ms_p50": paced["age_ms_p50"],
        "paced_age_ms_p99": paced["age_ms_p99"],
        "paced_write_ms_p50": paced["write_ms_p50"],
    }


class _Run:
    """One stream of random walks through a coalescer into the database."""

    def __init__(self, symbols: Sequence[str], *, frames: int, rate: int | None) -> None:
        self._symbols = symbols
        self._rate = rate
        self._coalescer = Coalescer()
        self._walk = random.Random(7)
        self._prices = dict.fromkeys(symbols, 10_000)
        self._frames = [self._frame() for _ in range(frames)]
        self._offered = threading.Event()

    def _frame(self) -> list[tuple[str, Decimal, Decimal]]:
        """Return symbols with new sides, a cent or two from the last: the prices of ticks that arrive together."""
        frame = []
        for symbol in self._walk.choices(self._symbols, k=_FRAME):
            cents = self._prices[symbol] = self._prices[symbol] + self._walk.randint(-2, 2)
            frame.append((symbol, Decimal(cents - 1).scaleb(-2), Decimal(cents + 1).scaleb(-2)))
        return frame

    def measure(self) -> dict[str, float]:
        """Offer every frame, write until nothing is left, and return rates in ticks a second and milliseconds."""
        feeder = threading.Thread(target=self._offer, daemon=True)
        writes: list[float] = []
        ages: list[float] = []
        taken = accepted = 0
        began = time.perf_counter()
        feeder.start()
        while not self._offered.is_set() or len(self._coalescer):
            batch = self._coalescer.drain(wait_seconds=0.05)
            if not batch:
                continue
            write_began = time.perf_counter()
            outcome = write_quotes(ticks=batch, source="benchmark", now=datetime.now(UTC), ring=_silence)
            writes.append(1000 * (time.perf_counter() - write_began))
            done = datetime.now(UTC)
            ages += [1000 * (done - tick.source_at).total_seconds() for tick in batch[:: max(1, len(batch) // 50)]]
            taken += len(batch)
            accepted += len(outcome.accepted_symbols)
            assert not outcome.refused, outcome.refused
        elapsed = time.perf_counter() - began
        feeder.join()
        assert taken == len(self._frames) * _FRAME
        return {
            "ticks": taken,
            "quotes": accepted,
            "ticks_per_second": round(taken / elapsed),
            "write_ms_p50": round(statistics.median(writes), 1),
            "age_ms_p50": round(statistics.median(ages), 1),
            "age_ms_p99": round(statistics.quantiles(ages, n=100)[98], 1),
        }

    def _offer(self) -> None:
        began = time.perf_counter()
        for number, frame in enumerate(self._frames):
            if self._rate is None:
                while len(self._coalescer) > _AHEAD:
                    time.sleep(0.002)
            else:
                time.sleep(max(0.0, began + number * _FRAME / self._rate - time.perf_counter()))
            now = datetime.now(UTC)
            self._coalescer.add([Tick(symbol, bid, ask, None, now) for symbol, bid, ask in frame])
        self._offered.set()


def _silence() -> None:
    """Ring nobody: what is measured ends with the commit."""


def _remove_rows() -> None:
    ours = Instrument.objects.filter(symbol__startswith=_PREFIX)
    Bar.objects.filter(instrument__in=ours).delete()
    Quote.objects.filter(instrument__in=ours).delete()
    ours.delete()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE positions_quote")
