"""Bars: of one minute, rolled out of the quotes' accumulators, or of a broker's history; and what they say.

An accumulator never mixes two minutes: whoever writes the first price of a new minute closes the bar before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from django.db import connection, transaction
from django.db.models import Max, Min

from positions.fields import plain
from positions.models import Bar, Position, Quote
from positions.rows import write_back
from positions.states import PositionStatus
from positions.values import Candle

MINUTE: Final = timedelta(minutes=1)
_ROWS_AT_ONCE: Final = 500
#: Minutes that longer bars are built from: half a year of a stock exchange, five weeks around the clock.
MOST_MINUTES: Final = 50_000

_CLOSE: Final = """
    WITH taken AS (
        SELECT instrument_id, date_trunc('minute', source_at) AS start, bar_open, bar_high, bar_low, last
        FROM positions_quote
        WHERE bar_open IS NOT NULL AND {which}
        ORDER BY instrument_id
        {limit}
        FOR NO KEY UPDATE {wait}
    ), cleared AS (
        UPDATE positions_quote q SET bar_open = NULL, bar_high = NULL, bar_low = NULL
        FROM taken WHERE taken.instrument_id = q.instrument_id
    )
    INSERT INTO positions_bar AS b (instrument_id, start, seconds, open, high, low, close, volume)
    SELECT instrument_id, start, 60, bar_open, bar_high, bar_low, last, 0 FROM taken ORDER BY instrument_id
    ON CONFLICT (instrument_id, seconds, start) DO UPDATE SET
        high = greatest(b.high, excluded.high), low = least(b.low, excluded.low), close = excluded.close
"""
_CLOSE_THESE: Final = _CLOSE.format(which="instrument_id = ANY(%s::bigint[])", limit="", wait="")
_CLOSE_FINISHED: Final = _CLOSE.format(
    which="source_at < date_trunc('minute', %s::timestamptz)",
    limit=f"LIMIT {_ROWS_AT_ONCE}",
    wait="SKIP LOCKED",  # a row that is being written closes its own bar
)

# A bar's first minute opens it and its last one closes it; the oldest bar is left out, as it may have begun before
# the minutes that are read.
_BUILD: Final = """
    WITH minutes AS (
        SELECT start, open, high, low, close, volume FROM positions_bar
        WHERE instrument_id = %(instrument_id)s AND seconds = 60 AND start <= %(until)s - interval '1 minute'
        ORDER BY start DESC LIMIT %(most)s
    ), built AS (
        SELECT date_bin(make_interval(secs => %(seconds)s), start, timestamptz '1970-01-01 00:00Z') AS start,
               (array_agg(open ORDER BY start))[1], max(high), min(low), (array_agg(close ORDER BY start DESC))[1],
               sum(volume)
        FROM minutes GROUP BY 1
    )
    SELECT * FROM built
    WHERE start + make_interval(secs => %(seconds)s) <= %(until)s AND start > (SELECT min(start) FROM built)
    ORDER BY start DESC LIMIT %(limit)s
"""


class HistoricalBar(Protocol):
    """A finished bar as a broker tells it; `start` is its first instant."""

    @property
    def start(self) -> datetime: ...
    @property
    def open(self) -> Decimal: ...
    @property
    def high(self) -> Decimal: ...
    @property
    def low(self) -> Decimal: ...
    @property
    def close(self) -> Decimal: ...
    @property
    def volume(self) -> Decimal: ...


class Extremes(NamedTuple):
    """Highest and lowest price of a span."""

    peak: Decimal
    trough: Decimal


def bar_start(at: datetime) -> datetime:
    """Return the first instant of the minute a moment lies in."""
    return at.replace(second=0, microsecond=0)


def close_bars(*, instrument_ids: Sequence[int]) -> None:
    """Turn what these quotes have accumulated into bars, because a new minute begins for them."""
    if instrument_ids:
        _close(_CLOSE_THESE, list(instrument_ids))


def roll_bars(*, now: datetime) -> int:
    """Turn the accumulators of finished minutes into bars and return how many; quiet symbols depend on it."""
    rolled = 0
    while True:
        some = _close(_CLOSE_FINISHED, now)
        rolled += some
        if some < _ROWS_AT_ONCE:
            return rolled


def save_bars(*, instrument_id: int, seconds: int, bars: Iterable[HistoricalBar]) -> int:
    """Store finished bars of a broker's history and return how many; they replace bars made from our own prices."""
    rows = [
        Bar(
            instrument_id=instrument_id,
            seconds=seconds,
            start=bar.start,
            open=bar.open,
            high=bar.high,
            low=bar.low,
            close=bar.close,
            volume=bar.volume,
        )
        for bar in bars
    ]
    Bar.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["instrument", "seconds", "start"],
        update_fields=["open", "high", "low", "close", "volume"],
        batch_size=2_000,
    )
    return len(rows)


def recent_bars(*, instrument_id: int, seconds: int, until: datetime, limit: int) -> list[Candle]:
    """Return the newest stored bars of a length that were finished at a moment, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT start, trim_scale(open), trim_scale(high), trim_scale(low), trim_scale(close), trim_scale(volume)
              FROM positions_bar WHERE instrument_id = %s AND seconds = %s AND start <= %s
             ORDER BY start DESC LIMIT %s
            """,
            [instrument_id, seconds, until - timedelta(seconds=seconds), limit],
        )
        return [Candle(*row) for row in reversed(cursor.fetchall())]


def bars_of_minutes(*, instrument_id: int, seconds: int, until: datetime, limit: int) -> list[Candle]:
    """Return the newest bars of a length that our own minutes make up, oldest first; finished ones only.

    Bars begin at multiples of their length since 1970, days at midnight UTC.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _BUILD,
            {"instrument_id": instrument_id, "seconds": seconds, "until": until, "limit": limit, "most": MOST_MINUTES},
        )
        return [Candle(row[0], *map(plain, row[1:])) for row in reversed(cursor.fetchall())]


def peak_and_trough(position: Position, *, until: datetime) -> Extremes:
    """Return the extremes of the last price from the entry until a moment, the entry price being one of them.

    A minute counts if it began after the entry and ended by `until`; the minute in the making counts if it began
    after the entry, else only its newest price does. So no price from before the entry is ever among them.
    """
    opened = position.opened_at
    bars = Bar.objects.filter(
        instrument_id=position.instrument_id, seconds=60, start__gte=opened, start__lte=until - MINUTE
    ).aggregate(peak=Max("high"), trough=Min("low"))
    seen = [position.average_entry, bars["peak"], bars["trough"], position.last_exit_price]
    quote = Quote.objects.filter(
        instrument_id=position.instrument_id, source_at__gte=opened, source_at__lte=until
    ).first()
    if quote is not None:
        seen.append(quote.last)
        if bar_start(quote.source_at) >= opened:
            seen += [quote.bar_high, quote.bar_low]
    prices = [price for price in seen if price is not None]
    return Extremes(max(prices), min(prices))


def note_extremes(*, limit: int = 200) -> int:
    """Write peak and trough into positions that were closed since the last time, and return into how many."""
    closed = list(
        Position.objects.filter(status=PositionStatus.CLOSED, peak__isnull=True, closed_at__isnull=False).order_by(
            "pk"
        )[:limit]
    )
    for position in closed:
        assert position.closed_at is not None  # noqa: S101 - filtered
        position.peak, position.trough = peak_and_trough(position, until=position.closed_at)
    return write_back(closed, fields=["peak", "trough"])


def _close(sql: str, parameter: datetime | list[int]) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.execute(sql, [parameter])
        return int(cursor.rowcount)
