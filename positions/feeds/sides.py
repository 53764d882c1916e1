"""What the sides of the book were when a trade was printed: a trade alone says nothing about bid and ask."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from positions.feeds.protocol import Tick

#: Sides that were not quoted again for this long are not known any more.
LONGEST: Final = timedelta(seconds=60)


class Sides:
    """The newest two-sided quote of each symbol of one stream; used from the thread that reads the stream."""

    def __init__(self) -> None:
        self._quotes: dict[str, Tick] = {}

    def complete(self, ticks: Iterable[Tick]) -> list[Tick]:
        """Return the ticks, each trade with the sides it was printed between.

        A trade outside the known sides says that they have moved; it stays as it is, and so does one whose sides
        are not known. Without this a trade at the ask would pass for a bid, and a target would fire that nobody
        could have sold at.
        """
        quotes = self._quotes
        completed = []
        for tick in ticks:
            if tick.bid is None and tick.ask is None and tick.last is not None:
                completed.append(_between(tick, quotes.get(tick.symbol)))
                continue
            if tick.bid is not None and tick.ask is not None:
                quotes[tick.symbol] = tick
            completed.append(tick)
        return completed


def _between(trade: Tick, quote: Tick | None) -> Tick:
    if quote is None or trade.last is None or quote.bid is None or quote.ask is None:
        return trade
    if not (trade.last.is_finite() and quote.bid.is_finite() and quote.ask.is_finite()):
        return trade
    if trade.source_at - quote.source_at > LONGEST or not quote.bid <= trade.last <= quote.ask:
        return trade
    return Tick(trade.symbol, quote.bid, quote.ask, trade.last, trade.source_at)
