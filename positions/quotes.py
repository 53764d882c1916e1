"""The only writer of prices. Judges every print, then writes what it came to in one statement and rings the scan.

A row is judged and written without being held in between: the write asks that the row's `seq` is still the one that
was judged, so of two writers the second looks again, and an older price never overwrites a newer one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection, transaction

from positions import doorbells
from positions.bars import bar_start, close_bars
from positions.belief import Limits, Suspect, View
from positions.feeds.protocol import Tick
from positions.intervals import Interval, Summary, sum_up

#: Rows written, and so locked, together: few enough that a scan never waits long for them.
ROWS_AT_ONCE: Final = 1_000

_READ: Final = """
    SELECT i.symbol, i.id, i.collar_pct,
        q.seq, q.bid, q.ask, q.last, q.source_at, q.suspect, q.suspect_at, q.bar_open IS NOT NULL
    FROM positions_instrument i {join} positions_quote q ON q.instrument_id = i.id
    WHERE i.symbol = ANY(%s)
    {lock}
"""
_READ_FREELY: Final = _READ.format(join="LEFT JOIN", lock="")
_READ_AND_LOCK: Final = _READ.format(join="JOIN", lock="ORDER BY i.id FOR NO KEY UPDATE OF q")

# The interval of a new row begins before its first price (from_seq 0), and after a scan with the price it saw
# (the scan sets the extremes to it), so widening is right in every case.
_WRITE: Final = """
    INSERT INTO positions_quote AS q (
        instrument_id, seq, from_seq, dirty, source, source_at, received_at, suspect, suspect_at, bid, ask, last,
        bid_low, bid_high, ask_low, ask_high, last_low, last_high, bar_open, bar_low, bar_high
    )
    SELECT n.id, n.seq, 0, true, %s, n.source_at, %s, n.suspect, n.suspect_at, n.bid, n.ask, n.last,
        n.bid_low, n.bid_high, n.ask_low, n.ask_high, n.last_low, n.last_high, n.opening, n.last_low, n.last_high
    FROM unnest(
        %s::bigint[], %s::bigint[], %s::timestamptz[], %s::numeric[], %s::timestamptz[],
        %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
        %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[]
    ) AS n (
        id, seq, source_at, suspect, suspect_at,
        bid, ask, last, bid_low, bid_high, ask_low, ask_high, last_low, last_high, opening
    )
    ORDER BY n.id
    ON CONFLICT (instrument_id) DO UPDATE SET
        seq = excluded.seq, dirty = true, source = excluded.source, source_at = excluded.source_at,
        received_at = excluded.received_at, suspect = excluded.suspect, suspect_at = excluded.suspect_at,
        bid = excluded.bid, ask = excluded.ask, last = excluded.last,
        bid_low = least(q.bid_low, excluded.bid_low), bid_high = greatest(q.bid_high, excluded.bid_high),
        ask_low = least(q.ask_low, excluded.ask_low), ask_high = greatest(q.ask_high, excluded.ask_high),
        last_low = least(q.last_low, excluded.last_low), last_high = greatest(q.last_high, excluded.last_high),
        bar_open = coalesce(q.bar_open, excluded.bar_open),
        bar_low = least(q.bar_low, excluded.bar_low), bar_high = greatest(q.bar_high, excluded.bar_high)
    WHERE q.seq = excluded.seq - 1
    RETURNING q.instrument_id
"""
_SUSPECT: Final = """
    UPDATE positions_quote q SET suspect = n.suspect, suspect_at = n.suspect_at
    FROM (
        SELECT o.instrument_id, w.suspect, w.suspect_at
        FROM positions_quote o
        JOIN unnest(%s::bigint[], %s::bigint[], %s::numeric[], %s::timestamptz[]) AS w (id, seq, suspect, suspect_at)
            ON w.id = o.instrument_id AND w.seq = o.seq
        ORDER BY o.instrument_id FOR NO KEY UPDATE OF o
    ) AS n
    WHERE n.instrument_id = q.instrument_id
    RETURNING q.instrument_id
"""
_COUNT_REFUSED: Final = """
    INSERT INTO positions_refusedprice AS r (symbol, reason, count, last_seen_at, last_price)
    SELECT n.symbol, n.reason, n.count, %s, n.price
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[]) AS n (symbol, reason, count, price)
    ORDER BY n.symbol, n.reason
    ON CONFLICT (symbol, reason) DO UPDATE SET
        count = r.count + excluded.count, last_seen_at = excluded.last_seen_at, last_price = excluded.last_price
"""


@dataclass(slots=True, kw_only=True)
class WriteOutcome:
    """What became of a batch: symbols with an accepted print, refusals by (symbol, reason), symbols nobody knows."""

    accepted_symbols: set[str] = field(default_factory=set)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown_symbols: set[str] = field(default_factory=set)


class _Row(NamedTuple):
    symbol: str
    id: int
    seq: int  # 0 before the first price
    limits: Limits
    seen: View | None
    suspect: Suspect | None
    has_bar: bool


def ring_scan() -> None:
    """Tell the scan that prices have changed; a bell nobody hears costs the time until the beat rings."""
    doorbells.ring("exitmgr.scan", queue="scan", expires=5)


def write_quotes(
    *,
    ticks: Sequence[Tick],
    source: str,
    now: datetime,
    ring: Callable[[], object] = ring_scan,
) -> WriteOutcome:
    """Write the believable prints of a batch, count the others, and ring the scan once prices are committed.

    A symbol may occur many times: its prints are judged in their order, and the extremes cover all accepted ones.
    The same batch may be written twice: a suspect print is only confirmed by one that was made later.
    """
    batch = _Batch(source=source, now=now, ring=ring)
    for prints in _minute_by_minute(ticks, now=now):
        symbols = sorted(prints)
        for start in range(0, len(symbols), ROWS_AT_ONCE):
            batch.write({symbol: prints[symbol] for symbol in symbols[start : start + ROWS_AT_ONCE]})
    batch.count_refused()
    return batch.outcome


class _Batch:
    """The work of one call, some symbols at a time."""

    def __init__(self, *, source: str, now: datetime, ring: Callable[[], object]) -> None:
        self.outcome = WriteOutcome()
        self._source, self._now, self._ring = source, now, ring
        self._refused_prices: dict[tuple[str, str], str] = {}

    def write(self, prints: Mapping[str, Sequence[Tick]]) -> None:
        """Judge and write; rows that somebody else wrote in between are locked and judged once more."""
        rows = _read(prints, sql=_READ_FREELY, now=self._now)
        self.outcome.unknown_symbols |= prints.keys() - {row.symbol for row in rows}
        overtaken = self._write_rows(rows, prints)
        if overtaken:
            with transaction.atomic():
                self._write_rows(_read(overtaken, sql=_READ_AND_LOCK, now=self._now), prints)

    def _write_rows(self, rows: Iterable[_Row], prints: Mapping[str, Sequence[Tick]]) -> list[str]:
        """Write what the prints of these rows came to and return the symbols of rows that were overtaken."""
        judged = [(row, self._judge(row, prints[row.symbol])) for row in rows]
        moved = [(row, summary.interval, summary.suspect) for row, summary in judged if summary.interval]
        doubted = [
            (row, summary.suspect)
            for row, summary in judged
            if summary.interval is None and summary.suspect != row.suspect
        ]
        written = self._store(moved) | _store_suspects(doubted)
        self.outcome.accepted_symbols |= {row.symbol for row, _, _ in moved if row.id in written}
        tried = {row.id for row, _, _ in moved} | {row.id for row, _ in doubted}
        overtaken = tried - written
        for row, summary in judged:
            if summary.refused and row.id not in overtaken:
                self._keep_account(row.symbol, summary)
        return [row.symbol for row, _ in judged if row.id in overtaken]

    def _judge(self, row: _Row, prints: Sequence[Tick]) -> Summary:
        return sum_up(prints, seen=row.seen, suspect=row.suspect, limits=row.limits)

    def _store(self, moved: Sequence[tuple[_Row, Interval, Suspect | None]]) -> set[int]:
        """Write new prices, ring once they are committed, and return the ids of the rows that were written."""
        if not moved:
            return set()
        close_bars(instrument_ids=[row.id for row, interval, _ in moved if _begins_a_minute(interval, row)])
        columns = list(zip(*(interval for _, interval, _ in moved), strict=True))
        times = columns.pop(Interval._fields.index("source_at"))
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")  # the next price makes up for a lost one
            cursor.execute(
                _WRITE,
                [
                    self._source,
                    self._now,
                    _array(row.id for row, _, _ in moved),
                    _array(row.seq + 1 for row, _, _ in moved),
                    _array(map(datetime.isoformat, times)),
                    _array(suspect and suspect.price for _, _, suspect in moved),
                    _array(suspect and suspect.source_at.isoformat() for _, _, suspect in moved),
                    *map(_array, columns),
                ],
            )
            written = {id_ for (id_,) in cursor.fetchall()}
            if written:
                transaction.on_commit(self._ring, robust=True)
        return written

    def _keep_account(self, symbol: str, summary: Summary) -> None:
        for reason, count in summary.refused.items():
            self.outcome.refused[symbol, str(reason)] += count
            self._refused_prices[symbol, str(reason)] = summary.refused_prices[reason][:64]

    def count_refused(self) -> None:
        """Add this call's refusals to the counters of each symbol and reason."""
        if not self.outcome.refused:
            return
        keys = list(self.outcome.refused)
        with connection.cursor() as cursor:
            cursor.execute(
                _COUNT_REFUSED,
                [
                    self._now,
                    [symbol for symbol, _ in keys],
                    [reason for _, reason in keys],
                    [self.outcome.refused[key] for key in keys],
                    [self._refused_prices[key] for key in keys],
                ],
            )


def _store_suspects(doubted: Sequence[tuple[_Row, Suspect | None]]) -> set[int]:
    """Write which price of a row waits for a second print and return the ids of the rows that were written."""
    if not doubted:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            _SUSPECT,
            [
                _array(row.id for row, _ in doubted),
                _array(row.seq for row, _ in doubted),
                _array(suspect and suspect.price for _, suspect in doubted),
                _array(suspect and suspect.source_at.isoformat() for _, suspect in doubted),
            ],
        )
        return {id_ for (id_,) in cursor.fetchall()}


def _read(symbols: Iterable[str], *, sql: str, now: datetime) -> list[_Row]:
    general = Limits.at(now, collar_pct=Decimal(0))
    with connection.cursor() as cursor:
        cursor.execute(sql, [list(symbols)])
        return [
            _Row(
                symbol,
                id_,
                seq or 0,
                Limits(general.oldest, general.newest, collar_pct),
                View(bid, ask, last, source_at) if seq is not None else None,
                Suspect(suspect, suspect_at) if suspect is not None else None,
                has_bar,
            )
            for symbol, id_, collar_pct, seq, bid, ask, last, source_at, suspect, suspect_at, has_bar in cursor
        ]


def _minute_by_minute(ticks: Sequence[Tick], *, now: datetime) -> Iterator[Mapping[str, Sequence[Tick]]]:
    """Yield the prints by symbol, again for each new minute that begins among them: a bar holds one minute only."""
    times = [tick.source_at for tick in ticks]
    one_minute = not times or bar_start(min(times)) == bar_start(max(times))
    rounds: list[dict[str, list[Tick]]] = [defaultdict(list)]
    if one_minute:
        for tick in ticks:
            rounds[0][tick.symbol].append(tick)
        yield from rounds
        return
    believable = Limits.at(now, collar_pct=Decimal(1))
    progress: dict[str, tuple[int, datetime]] = {}
    for tick in ticks:
        number, minute = progress.get(tick.symbol, (0, None))
        began = bar_start(tick.source_at)
        if believable.oldest <= tick.source_at <= believable.newest and (minute is None or began > minute):
            number, minute = number + (minute is not None), began
            progress[tick.symbol] = (number, minute)
        if number == len(rounds):
            rounds.append(defaultdict(list))
        rounds[number][tick.symbol].append(tick)
    yield from rounds


def _begins_a_minute(interval: Interval, row: _Row) -> bool:
    if not row.has_bar or row.seen is None:
        return False
    return bar_start(row.seen.source_at) < bar_start(interval.source_at)


def _array(values: Iterable[object]) -> str:
    """Return an array literal of numbers or times, which is several times faster than adapting each element."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"
