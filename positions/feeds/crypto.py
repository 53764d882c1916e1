"""Prices of a crypto exchange as ticks, asked for in one request for all symbols from time to time.

A ticker is a snapshot: bid, ask and last of one moment, the venue's where it names one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from positions.feeds.connection import pause_until, waits
from positions.feeds.crypto_venue import load_markets, open_venue
from positions.feeds.protocol import Tick

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
_SYMBOLS_A_REQUEST: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CryptoFeed:
    """The tickers of one exchange; no credentials are needed."""

    def __init__(self, *, venue: str, base_url: str = "", poll_seconds: float = POLL_SECONDS) -> None:
        self._exchange, self._session = open_venue(venue=venue, base_url=base_url)
        self._base_url, self._poll_seconds = base_url, poll_seconds
        self._told: dict[str, Tick] = {}

    def __repr__(self) -> str:
        return f"CryptoFeed({self._exchange.id!r})"

    def run(
        self,
        *,
        symbols: Callable[[], frozenset[str]],
        on_ticks: Callable[[Sequence[Tick]], None],
        until: Callable[[], bool],
    ) -> None:
        """Deliver ticks of the wanted symbols that this venue has, until `until()` is true."""
        pauses = waits()
        while not until():
            began = time.monotonic()
            try:
                ticks = self._look(symbols())
                pauses = waits()
                pause = began + self._poll_seconds
            except Exception as error:  # noqa: BLE001 - a feed outlives whatever it was sent
                logger.warning("prices_not_read venue=%s error=%s", self._exchange.id, type(error).__name__)
                ticks, pause = [], time.monotonic() + max(next(pauses), self._session.retry_after or 0.0)
            if ticks:
                try:
                    on_ticks(ticks)
                except Exception:
                    logger.exception("ticks_failed count=%d", len(ticks))
            pause_until(pause, until=until)
        self._session.close()

    def _look(self, wanted: frozenset[str]) -> list[Tick]:
        load_markets(self._exchange, base_url=self._base_url)
        names = sorted(name for name in wanted if (self._exchange.markets.get(name) or {}).get("spot"))
        tickers: list[Mapping[str, Any]] = []
        for first in range(0, len(names), _SYMBOLS_A_REQUEST):
            some = names[first : first + _SYMBOLS_A_REQUEST]
            if self._exchange.has.get("fetchTickers") is True:
                tickers += self._exchange.fetch_tickers(some).values()
            else:
                tickers += [self._exchange.fetch_ticker(name) for name in some]
        fresh = [tick for tick in read_tickers(tickers, now=datetime.now(UTC)) if self._told.get(tick.symbol) != tick]
        self._told |= {tick.symbol: tick for tick in fresh}
        return fresh


def read_tickers(tickers: Iterable[Mapping[str, Any]], *, now: datetime) -> list[Tick]:
    """Return the ticks of ccxt's ticker structures; one that cannot be read is logged and left out."""
    ticks = []
    for ticker in tickers:
        try:
            stamp = ticker.get("timestamp")
            at = now if stamp is None else _EPOCH + timedelta(milliseconds=int(stamp))
            bid, ask, last = (_price(ticker.get(name)) for name in ("bid", "ask", "last"))
            ticks.append(Tick(str(ticker["symbol"]), bid, ask, last, at))
        except (KeyError, TypeError, ValueError, ArithmeticError):
            logger.exception("ticker_unreadable symbol=%s", ticker.get("symbol"))
    return ticks


def _price(text: object) -> Decimal | None:
    """Return a price given as text; zero and nothing are a side without quotes."""
    if text is None:
        return None
    if not isinstance(text, str | int):
        raise ValueError(f"{text!r} is not exact")
    price = Decimal(text)
    if not price.is_finite():
        raise ValueError(f"{text!r} is not a price")
    return price or None
