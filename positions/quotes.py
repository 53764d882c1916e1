"""The only writer of prices. Judges every print, then writes what it came to in one statement and rings the scan.

A row is judged and written without being held in between: the write asks that the row's `seq` is still the one that
was judged, so of two writers the second looks again, and an older price never overwrites a newer one.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.db import connection, transaction

from positions import doorbells
from positions.bars import bar_start
from positions.belief import MAX_AHEAD
from positions.feeds.protocol import Tick
from positions.intervals import Interval, Summary, interval_of, sum_up
from positions.quote_rows import (
    QuoteRow,
    close_bars_before,
    lock_rows,
    lock_standing_suspects,
    oldest_believed,
    read_rows,
    write_intervals,
    write_suspects,
)

log = logging.getLogger(__name__)

#: Rows written, and so locked, together: few enough that a scan never waits long for them.
ROWS_AT_ONCE: Final = 1_000

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
        rows = read_rows(prints, now=self._now)
        self.outcome.unknown_symbols |= prints.keys() - {row.symbol for row in rows}
        overtaken = self._write_rows(rows, prints)
        if overtaken:
            with transaction.atomic():
                self._write_rows(lock_rows(overtaken, now=self._now), prints)

    def _write_rows(self, rows: Iterable[QuoteRow], prints: Mapping[str, Sequence[Tick]]) -> list[str]:
        """Write what the prints of these rows came to and return the symbols of rows that were overtaken."""
        judged = [(row, _judge(row, prints[row.symbol])) for row in rows]
        moved = [(row, summary) for row, summary in judged if summary.interval]
        doubted = [
            (row, summary.suspect)
            for row, summary in judged
            if summary.interval is None and summary.suspect is not None and summary.suspect != row.suspect
        ]
        written = self._store(moved) | write_suspects(
            [(row.id, row.seq, suspect) for row, suspect in doubted], source=self._source, heard_at=self._now
        )
        self.outcome.accepted_symbols |= {row.symbol for row, _ in moved if row.id in written}
        tried = {row.id for row, _ in moved} | {row.id for row, _ in doubted}
        overtaken = tried - written
        for row, summary in judged:
            if summary.refused and row.id not in overtaken:
                self._keep_account(row.symbol, summary)
        return [row.symbol for row, _ in judged if row.id in overtaken]

    def _store(self, moved: Sequence[tuple[QuoteRow, Summary]]) -> set[int]:
        """Write new prices, ring once they are committed, and return the ids of the rows that were written."""
        if not moved:
            return set()
        intervals = [(row, summary.interval) for row, summary in moved if summary.interval is not None]
        doubted = [(row.id, row.seq + 1, summary.suspect) for row, summary in moved if summary.suspect is not None]
        close_bars_before(intervals)
        with transaction.atomic():
            _commit_without_waiting()
            written = write_intervals(intervals, source=self._source, received_at=self._now)
            write_suspects([one for one in doubted if one[0] in written], source=self._source, heard_at=self._now)
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


def accept_standing_suspects(*, now: datetime) -> int:
    """Believe the prints outside the collar that stood as long as their instrument asks for; return how many.

    Nothing has contradicted them: an ordinary print clears a suspect. The scheduled scan, which looks at every
    price, calls this before it looks; where nothing is suspect it costs one look at an empty index.
    """
    with transaction.atomic(durable=True):
        by_origin: defaultdict[tuple[str, datetime], list[tuple[QuoteRow, Interval]]] = defaultdict(list)
        for row in lock_standing_suspects(now=now):
            assert row.suspect is not None and row.suspect_heard_at is not None  # noqa: S101, PT018 - asked for
            by_origin[row.suspect_source, row.suspect_heard_at].append((row, interval_of(row.suspect.view)))
            log.warning("suspect_believed symbol=%s price=%s", row.symbol, row.suspect.price)
        for (source, heard_at), moved in by_origin.items():
            close_bars_before(moved)
            write_intervals(moved, source=source, received_at=heard_at)
    return sum(map(len, by_origin.values()))


def _judge(row: QuoteRow, prints: Sequence[Tick]) -> Summary:
    return sum_up(prints, seen=row.seen, suspect=row.suspect, limits=row.limits)


def _commit_without_waiting() -> None:
    """Let the transaction end before it is on the disk: the next price makes up for a lost one."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")


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
    oldest, newest = oldest_believed({tick.symbol for tick in ticks}, now=now), now + MAX_AHEAD
    progress: dict[str, tuple[int, datetime]] = {}
    for tick in ticks:
        number, minute = progress.get(tick.symbol, (0, None))
        began = bar_start(tick.source_at)
        if oldest <= tick.source_at <= newest and (minute is None or began > minute):
            number, minute = number + (minute is not None), began
            progress[tick.symbol] = (number, minute)
        if number == len(rounds):
            rounds.append(defaultdict(list))
        rounds[number][tick.symbol].append(tick)
    yield from rounds
