"""The ground benchmarks stand on: a running stack, its simulator's controls, and rows made for the occasion."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from config.simulator import Simulator
from config.stack import Stack
from exitmgr.entries import enter, register_position
from orders.models import Order
from orders.states import LIVE
from positions.models import Account, Instrument, Quote
from positions.values import Side

PATIENCE = 120.0
#: A crowd of equal entries in one symbol is what is measured here; read by this process alone.
os.environ["EXITMGR_TRADING__TRADE_EXIT__BRACKET_ORDERS__MAX_ACTIVE_BRACKETS"] = "1000000"
os.environ["EXITMGR_TRADING__EXIT_MANAGER__EXIT_COOLDOWN_SECONDS"] = "0"


@dataclass(slots=True)
class Ground:
    """A running stack and the means to trade on it."""

    stack: Stack
    simulator: Simulator

    @property
    def account(self) -> Account:
        """Return the paper account."""
        return Account.objects.get(name="paper")

    def instrument(self, prefix: str) -> Instrument:
        """Return a new instrument; its first price makes it known to the simulator."""
        symbol = f"{prefix}{uuid.uuid4().hex[:6].upper()}"
        return Instrument.objects.create(symbol=symbol)

    def price(self, symbol: str, bid: str, ask: str) -> float:
        """Push a price through the simulator's market data and return the monotonic time it was pushed at."""
        pushed = time.monotonic()
        self.simulator.quote(symbol, bid, ask)
        return pushed

    def settle_price(self, symbol: str, bid: str, ask: str) -> None:
        """Push a price until the feed has written it; the feed needs a moment to subscribe a new symbol."""
        pushed = 0.0
        written = Quote.objects.filter(instrument__symbol=symbol, bid=Decimal(bid))

        def stored() -> bool:
            nonlocal pushed
            if time.monotonic() - pushed > 0.5:
                pushed = self.price(symbol, bid, ask)
            return written.exists()

        self.until(stored)

    def hold(self, instrument: Instrument, count: int, *, plan: dict[str, Any]) -> list[int]:
        """Make the simulator hold `count` x 10 units bought at 100 and return the ids of a position for each 10."""
        self.simulator.call(
            "POST",
            "positions",
            {"symbol": instrument.symbol, "qty": str(10 * count), "avg_entry_price": "100"},
        )
        now = datetime.now(UTC)
        return [
            register_position(
                account=self.account,
                symbol=instrument.symbol,
                side=Side.LONG,
                quantity=Decimal(10),
                entry_price=Decimal(100),
                opened_at=now,
                now=now,
                actor="bench",
                plan=plan,
            )[0].pk
            for _ in range(count)
        ]

    def enter(self, instrument: Instrument, count: int) -> list[int]:
        """Write `count` market entries down and return their order ids."""
        now = datetime.now(UTC)
        return [
            enter(
                account=self.account,
                symbol=instrument.symbol,
                side=Side.LONG,
                quantity=Decimal(1),
                request_id=uuid.uuid4().hex,
                now=now,
                actor="bench",
                allow_duplicate=True,
            ).pk
            for _ in range(count)
        ]

    def await_exits(self, position_ids: Sequence[int], *, accepted: bool = True) -> list[Order]:
        """Return the exit order of each position once all exist, and by default are accepted by the broker."""
        orders = Order.objects.filter(position_id__in=position_ids, intent="exit")
        wanted = orders.filter(accepted_at__isnull=False) if accepted else orders
        self.until(lambda: wanted.count() >= len(position_ids))
        return list(wanted.order_by("pk"))

    def await_calm(self) -> None:
        """Return once nothing is on its way any more."""
        self.until(lambda: not Order.objects.filter(state__in=LIVE).exists())

    def until(self, condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        """Poll until a condition holds.

        :raises TimeoutError: it does not within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the stack did not get there in time; see its logs")
            time.sleep(0.01)


def milliseconds(later: datetime, earlier: datetime) -> float:
    """Return the span between two times in milliseconds."""
    return (later - earlier).total_seconds() * 1000


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile by linear interpolation between neighbours."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
