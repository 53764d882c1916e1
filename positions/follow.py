"""Keeps prices coming in: one stream per account, written as they arrive, through outages of database and Redis.

Nothing is written but quotes. What cannot be written now is kept, thinned out, and written when it can be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

from django.db import InterfaceError, OperationalError, connection

from positions.coalescer import Coalescer
from positions.credentials import UnreadableCredentials
from positions.feeds import UnknownFeedError, feed_for
from positions.feeds.protocol import Feed, Tick
from positions.feeds.sides import Sides
from positions.models import Account
from positions.queries import followed_symbols
from positions.quotes import ring_scan, write_quotes

logger = logging.getLogger(__name__)

#: Two writes begin at least this far apart, so that single ticks do not cost a write and a ring each.
PACE_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
REPORT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 1.0
SOURCE_LENGTH: Final = 32  #: of the column the source is written to
FIGURES: Final = ("ticks", "quotes", "writes", "refused", "unknown", "dropped")


class Bell:
    """Rings the scan from a thread of its own: a Redis that hangs delays no price, and many rings become one."""

    def __init__(self, ring: Callable[[], object] = ring_scan) -> None:
        self._ring = ring
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Ask for a ring and return at once."""
        self._wanted.set()

    def close(self) -> None:
        """Ring a last time and end."""
        self._ended = True
        self._wanted.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._ended:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._ring()
            except Exception:  # the beat rings as well
                logger.exception("bell_failed")


class Stream:
    """One account's prices: a thread that reads them and a thread that writes them."""

    def __init__(
        self,
        *,
        source: str,
        feed: Feed,
        symbols: Callable[[], frozenset[str]],
        clock: Callable[[], datetime],
        ring: Callable[[], object],
    ) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()  #: totals since the start
        self._feed, self._symbols, self._clock, self._ring = feed, symbols, clock, ring
        self._coalescer = Coalescer()
        self._sides = Sides()
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"read {source}", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"write {source}", daemon=True)
        self._reader.start()
        self._writer.start()

    @property
    def alive(self) -> bool:
        """Say whether both threads still run."""
        return self._reader.is_alive() and self._writer.is_alive()

    def stop(self) -> None:
        """Ask both threads to end."""
        self._stopping.set()

    def join(self, *, until: float) -> None:
        """Wait for both to end, what was read being written, up to a moment of the monotonic clock."""
        for thread in (self._reader, self._writer):
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _read(self) -> None:
        try:
            self._feed.run(
                symbols=self._symbols,
                on_ticks=lambda ticks: self._coalescer.add(self._sides.complete(ticks)),
                until=self._stopping.is_set,
            )
        except Exception:  # whoever watches `alive` starts another
            logger.exception("price_stream_failed source=%s", self.source)

    def _write(self) -> None:
        failures = 0
        try:
            while True:
                ticks = self._coalescer.drain(wait_seconds=0.2)
                began = time.monotonic()
                if not ticks:
                    if self._stopping.is_set() and not self._reader.is_alive():
                        return
                    continue
                failures = 0 if self._write_once(ticks) else failures + 1
                if failures and self._stopping.is_set():
                    return  # quotes are no promise: the next process starts from newer ones
                pause = min(PACE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS)
                time.sleep(max(0.0, began + pause - time.monotonic()))
        finally:
            connection.close()

    def _write_once(self, ticks: list[Tick]) -> bool:
        """Write a batch; say whether it is done with, or was put back because the database cannot take it now."""
        try:
            outcome = write_quotes(ticks=ticks, source=self.source, now=self._clock(), ring=self._ring)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            self._coalescer.put_back(ticks)
            first_line = str(error).strip().partition("\n")[0]
            logger.warning("quotes_wait source=%s count=%d error=%s", self.source, len(ticks), first_line)
            return False
        except Exception:  # a batch that the writer cannot digest must not end it
            connection.close()
            logger.exception("quotes_dropped source=%s count=%d", self.source, len(ticks))
            self.counts["dropped"] += len(ticks)
            return True
        self.counts["ticks"] += len(ticks)
        self.counts["writes"] += 1
        self.counts["quotes"] += len(outcome.accepted_symbols)
        self.counts["refused"] += outcome.refused.total()
        self.counts["unknown"] += len(outcome.unknown_symbols)
        return True


class PriceFollower:
    """Follows the market data of every account, of accounts that are added or changed later too."""

    def __init__(self, *, clock: Callable[[], datetime], ring: Callable[[], object] = ring_scan) -> None:
        self._clock = clock
        self._bell = Bell(ring)
        self._stopping = False
        self._symbols: frozenset[str] = frozenset()
        self._streams: dict[int, tuple[datetime, Stream]] = {}
        self._refused: dict[int, datetime] = {}
        self._reported: dict[int, Counter[str]] = {}

    def stop(self) -> None:
        """Ask to end; takes no lock, so that a signal handler may call it."""
        self._stopping = True

    def run(self) -> None:
        """Follow until told to stop, then write what was read and end."""
        next_look, next_report = time.monotonic(), time.monotonic() + REPORT_SECONDS
        while not self._stopping:
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + LOOK_SECONDS
            if time.monotonic() >= next_report:
                self._report()
                next_report += REPORT_SECONDS
            time.sleep(_POLL_SECONDS)
        streams = [stream for _, stream in self._streams.values()]
        for stream in streams:
            stream.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for stream in streams:
            stream.join(until=deadline)
        self._report()
        self._bell.close()
        connection.close()

    def _look(self) -> None:
        """Read which symbols and accounts there are; without a database everything goes on as it is."""
        try:
            self._symbols = followed_symbols()
            accounts = {account.pk: account for account in Account.objects.defer("credentials")}
            for gone in self._streams.keys() - accounts.keys():
                self._streams.pop(gone)[1].stop()
            for account in accounts.values():
                self._follow(account)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            first_line = str(error).strip().partition("\n")[0]
            logger.warning("accounts_not_read error=%s", first_line)

    def _follow(self, account: Account) -> None:
        running = self._streams.get(account.pk)
        if running is not None and running[0] == account.updated_at and running[1].alive:
            return
        if self._refused.get(account.pk) == account.updated_at:
            return
        try:
            feed = feed_for(account)
        except (UnknownFeedError, UnreadableCredentials, ValueError) as error:
            logger.error("account_not_followed account=%s error=%s", account.name, error)
            self._refused[account.pk] = account.updated_at
            return
        if running is not None:
            running[1].stop()
            running[1].join(until=time.monotonic() + STOP_SECONDS)
        stream = Stream(
            source=f"{account.broker}:{account.name}"[:SOURCE_LENGTH],
            feed=feed,
            symbols=lambda: self._symbols,
            clock=self._clock,
            ring=self._bell.ring,
        )
        self._streams[account.pk] = (account.updated_at, stream)
        logger.info("account_followed account=%s symbols=%d", account.name, len(self._symbols))

    def _report(self) -> None:
        for pk, (_, stream) in self._streams.items():
            total = Counter(stream.counts)
            new = total - self._reported.get(pk, Counter())
            self._reported[pk] = total
            figures = " ".join(f"{name}={new[name]}" for name in FIGURES)
            logger.info("prices source=%s symbols=%d %s", stream.source, len(self._symbols), figures)
