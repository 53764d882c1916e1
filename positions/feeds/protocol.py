"""What every source of market data promises: to follow the wanted symbols until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Tick:
    """What one message said about one symbol; None where it did not say. Prices in the quote currency."""

    symbol: str
    bid: Decimal | None
    ask: Decimal | None
    last: Decimal | None
    source_at: datetime


class Feed(Protocol):
    """One stream of prices."""

    def run(
        self,
        *,
        symbols: Callable[[], frozenset[str]],
        on_ticks: Callable[[Sequence[Tick]], None],
        until: Callable[[], bool],
    ) -> None:
        """Deliver ticks of the wanted symbols, reconnecting by itself, until `until()` is true.

        `symbols()` is read each second and subscriptions follow it. Ticks that arrived together are delivered
        together, in their order; an exception of `on_ticks` is logged and the stream goes on.
        """
        ...
