"""Historical bars from a broker into our own table: what no bar can be is left out, what was corrected is replaced."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from orders.brokers.protocol import Broker
from positions.bars import recent_bars, save_bars
from positions.models import Instrument
from positions.values import Candle

log = logging.getLogger(__name__)

DAY_SECONDS: Final = 86_400
#: An exchange is open on seven days of ten at the least, and for a quarter of a day.
_DAYS_PER_OPEN_DAY: Final = 1.6
_DAYS_PER_OPEN_TIME: Final = 6
#: Holidays in a row must not leave a short history empty.
_LONGEST_CLOSURE: Final = timedelta(days=7)


def fetch_bars(*, broker: Broker, instrument: Instrument, seconds: int, count: int, now: datetime) -> int:
    """Store the newest finished bars of a length, about `count` of them, and return how many were stored.

    Only what is missing is asked for. Prices come in today's terms: when the newest bar we have is told differently
    now, there was a split or a correction, and all are asked for again.

    :raises BrokerError: the broker did not answer, or has no bars of this length.
    """
    whole = _reach(seconds, count)
    known = recent_bars(instrument_id=instrument.pk, seconds=seconds, until=now, limit=count)
    start = now - whole
    if known and len(known) > 1 and known[-1].start > start:
        found = _ask(broker, instrument, seconds=seconds, start=known[-1].start, now=now)
        if found and (found[0].start, found[0].close) == (known[-1].start, known[-1].close):
            return save_bars(instrument_id=instrument.pk, seconds=seconds, bars=found[1:])
    found = _ask(broker, instrument, seconds=seconds, start=start, now=now)
    return save_bars(instrument_id=instrument.pk, seconds=seconds, bars=found)


def _ask(broker: Broker, instrument: Instrument, *, seconds: int, start: datetime, now: datetime) -> list[Candle]:
    told = broker.bars(instrument.symbol, start=start, end=now, seconds=seconds)
    bars = [Candle(bar.start, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in told]
    flaws = [f"{bar.start:%Y-%m-%d %H:%M} {bar.flaw}" for bar in bars if bar.flaw]
    if flaws:
        log.warning("bars_left_out symbol=%s count=%s first=%s", instrument, len(flaws), flaws[0])
    latest = now - timedelta(seconds=seconds)
    return [bar for bar in bars if not bar.flaw and bar.start <= latest]


def _reach(seconds: int, count: int) -> timedelta:
    """Return how far back so many bars may reach where the venue is closed most of the time."""
    stretch = _DAYS_PER_OPEN_DAY if seconds >= DAY_SECONDS else _DAYS_PER_OPEN_TIME
    return timedelta(seconds=seconds) * count * stretch + _LONGEST_CLOSURE
