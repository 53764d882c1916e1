"""Quote rows, read and written many at a time. A write asks that the row's `seq` is still the one that was judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connection

from positions.bars import bar_start, close_bars
from positions.belief import Limits, Suspect, View
from positions.intervals import Interval

_READ: Final = """
    SELECT i.symbol, i.id, i.collar_pct, i.max_age_seconds, i.max_spread_pct,
        q.seq, q.bid, q.ask, q.last, q.source_at, q.bar_open IS NOT NULL,
        q.suspect, q.suspect_bid, q.suspect_ask, q.suspect_last, q.suspect_at, q.suspect_source, q.suspect_heard_at
    FROM positions_instrument i {join} positions_quote q ON q.instrument_id = i.id
    WHERE {which}
    {lock}
"""
_READ_FREELY: Final = _READ.format(join="LEFT JOIN", which="i.symbol = ANY(%(symbols)s)", lock="")
_READ_AND_LOCK: Final = _READ.format(
    join="JOIN", which="i.symbol = ANY(%(symbols)s)", lock="ORDER BY i.id FOR NO KEY UPDATE OF q"
)
# One that somebody holds is looked at the next time. One that has grown too old while nobody looked is no price.
_LOCK_STANDING: Final = _READ.format(
    join="JOIN",
    which="""q.suspect IS NOT NULL
        AND q.suspect_heard_at <= %(now)s - i.confirm_seconds * interval '1 second'
        AND q.suspect_heard_at >= %(now)s - i.max_age_seconds * interval '1 second'""",
    lock="ORDER BY i.id FOR NO KEY UPDATE OF q SKIP LOCKED",
)

# The interval of a new row begins before its first price (from_seq 0), and after a scan with the price it saw
# (the scan sets the extremes to it), so widening is right in every case. An accepted price leaves nothing suspect.
_WRITE: Final = """
    INSERT INTO positions_quote AS q (
        instrument_id, seq, from_seq, dirty, source, source_at, received_at, bid, ask, last,
        bid_low, bid_high, ask_low, ask_high, last_low, last_high, mid_low, mid_high, bar_open, bar_low, bar_high
    )
    SELECT n.id, n.seq, 0, true, %s, n.source_at, %s, n.bid, n.ask, n.last,
        n.bid_low, n.bid_high, n.ask_low, n.ask_high, n.last_low, n.last_high, n.mid_low, n.mid_high,
        n.opening, n.last_low, n.last_high
    FROM unnest(
        %s::bigint[], %s::bigint[], %s::timestamptz[], %s::numeric[], %s::numeric[], %s::numeric[],
        %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
        %s::numeric[], %s::numeric[], %s::numeric[]
    ) AS n (
        id, seq, source_at, bid, ask, last,
        bid_low, bid_high, ask_low, ask_high, last_low, last_high, mid_low, mid_high, opening
    )
    ORDER BY n.id
    ON CONFLICT (instrument_id) DO UPDATE SET
        seq = excluded.seq, dirty = true, source = excluded.source, source_at = excluded.source_at,
        received_at = excluded.received_at, bid = excluded.bid, ask = excluded.ask, last = excluded.last,
        bid_low = least(q.bid_low, excluded.bid_low), bid_high = greatest(q.bid_high, excluded.bid_high),
        ask_low = least(q.ask_low, excluded.ask_low), ask_high = greatest(q.ask_high, excluded.ask_high),
        last_low = least(q.last_low, excluded.last_low), last_high = greatest(q.last_high, excluded.last_high),
        mid_low = least(q.mid_low, excluded.mid_low), mid_high = greatest(q.mid_high, excluded.mid_high),
        suspect = NULL, suspect_bid = NULL, suspect_ask = NULL, suspect_last = NULL, suspect_at = NULL,
        suspect_source = '', suspect_heard_at = NULL,
        bar_open = coalesce(q.bar_open, excluded.bar_open),
        bar_low = least(q.bar_low, excluded.bar_low), bar_high = greatest(q.bar_high, excluded.bar_high)
    WHERE q.seq = excluded.seq - 1
    RETURNING q.instrument_id
"""
_SUSPECT: Final = """
    UPDATE positions_quote q SET
        suspect = n.suspect, suspect_bid = n.bid, suspect_ask = n.ask, suspect_last = n.last, suspect_at = n.at,
        suspect_source = %s, suspect_heard_at = %s
    FROM (
        SELECT o.instrument_id, w.suspect, w.bid, w.ask, w.last, w.at
        FROM positions_quote o
        JOIN unnest(
            %s::bigint[], %s::bigint[], %s::timestamptz[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[]
        ) AS w (id, seq, at, suspect, bid, ask, last)
            ON w.id = o.instrument_id AND w.seq = o.seq
        ORDER BY o.instrument_id FOR NO KEY UPDATE OF o
    ) AS n
    WHERE n.instrument_id = q.instrument_id
    RETURNING q.instrument_id
"""


class _Stored(NamedTuple):
    """The columns of `_READ`, in their order; an instrument without a price has no quote's."""

    symbol: str
    id: int
    collar_pct: Decimal
    max_age_seconds: int
    max_spread_pct: Decimal | None
    seq: int | None
    bid: Any
    ask: Any
    last: Any
    source_at: Any
    has_bar: bool
    suspect: Decimal | None
    suspect_bid: Any
    suspect_ask: Any
    suspect_last: Any
    suspect_at: Any
    suspect_source: str | None
    suspect_heard_at: datetime | None


class QuoteRow(NamedTuple):
    """What a writer has to know of an instrument to judge and write its next price."""

    symbol: str
    id: int
    seq: int  # 0 before the first price
    limits: Limits
    seen: View | None
    suspect: Suspect | None
    suspect_source: str
    suspect_heard_at: datetime | None
    has_bar: bool


def read_rows(symbols: Iterable[str], *, now: datetime) -> list[QuoteRow]:
    """Return the rows of those symbols that are known, without holding them."""
    return _read(_READ_FREELY, now=now, symbols=list(symbols))


def lock_rows(symbols: Iterable[str], *, now: datetime) -> list[QuoteRow]:
    """Return the rows of those symbols that have a price, and hold them until the transaction ends."""
    return _read(_READ_AND_LOCK, now=now, symbols=list(symbols))


def lock_standing_suspects(*, now: datetime) -> list[QuoteRow]:
    """Return the rows whose suspect print has stood as long as its instrument asks for, and hold them."""
    return _read(_LOCK_STANDING, now=now, symbols=[])


def close_bars_before(moved: Sequence[tuple[QuoteRow, Interval]]) -> None:
    """Close the bars of those rows for which these prices begin a new minute.

    In a transaction before the one that writes them, unless all rows are held already: rows must be locked in one go.
    """
    close_bars(instrument_ids=[row.id for row, interval in moved if _begins_a_minute(interval, row)])


def write_intervals(moved: Sequence[tuple[QuoteRow, Interval]], *, source: str, received_at: datetime) -> set[int]:
    """Write new prices over the rows they were judged on; return the ids of those that nobody overtook."""
    if not moved:
        return set()
    columns = list(zip(*(interval for _, interval in moved), strict=True))
    times = columns.pop(Interval._fields.index("source_at"))
    with connection.cursor() as cursor:
        cursor.execute(
            _WRITE,
            [
                source,
                received_at,
                _array(row.id for row, _ in moved),
                _array(row.seq + 1 for row, _ in moved),
                _array(map(datetime.isoformat, times)),
                *map(_array, columns),
            ],
        )
        return {id_ for (id_,) in cursor.fetchall()}


def write_suspects(doubted: Sequence[tuple[int, int, Suspect]], *, source: str, heard_at: datetime) -> set[int]:
    """Write which print of a row (id, seq) waits for a second one; return the ids of those nobody overtook."""
    if not doubted:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            _SUSPECT,
            [
                source,
                heard_at,
                _array(id_ for id_, _, _ in doubted),
                _array(seq for _, seq, _ in doubted),
                _array(suspect.view.source_at.isoformat() for _, _, suspect in doubted),
                _array(suspect.price for _, _, suspect in doubted),
                _array(suspect.view.bid for _, _, suspect in doubted),
                _array(suspect.view.ask for _, _, suspect in doubted),
                _array(suspect.view.last for _, _, suspect in doubted),
            ],
        )
        return {id_ for (id_,) in cursor.fetchall()}


def oldest_believed(symbols: Iterable[str], *, now: datetime) -> datetime:
    """Return how old a print of any of these symbols may be."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(max_age_seconds) FROM positions_instrument WHERE symbol = ANY(%s)", [list(symbols)])
        return now - timedelta(seconds=cursor.fetchone()[0] or 0)


def _read(sql: str, *, now: datetime, symbols: list[str]) -> list[QuoteRow]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"symbols": symbols, "now": now})
        return [_row(_Stored(*columns), now=now) for columns in cursor]


def _row(stored: _Stored, *, now: datetime) -> QuoteRow:
    limits = Limits.at(
        now,
        collar_pct=stored.collar_pct,
        max_age=timedelta(seconds=stored.max_age_seconds),
        max_spread_pct=stored.max_spread_pct,
    )
    suspect = None
    if stored.suspect is not None:
        print_ = View(stored.suspect_bid, stored.suspect_ask, stored.suspect_last, stored.suspect_at)
        suspect = Suspect(stored.suspect, print_)
    return QuoteRow(
        symbol=stored.symbol,
        id=stored.id,
        seq=stored.seq or 0,
        limits=limits,
        seen=View(stored.bid, stored.ask, stored.last, stored.source_at) if stored.seq else None,
        suspect=suspect,
        suspect_source=stored.suspect_source or "",
        suspect_heard_at=stored.suspect_heard_at,
        has_bar=stored.has_bar,
    )


def _begins_a_minute(interval: Interval, row: QuoteRow) -> bool:
    if not row.has_bar or row.seen is None:
        return False
    return bar_start(row.seen.source_at) < bar_start(interval.source_at)


def _array(values: Iterable[object]) -> str:
    """Return an array literal of numbers or times, which is several times faster than adapting each element."""
    return "{" + ",".join(map(str, values)) + "}"
