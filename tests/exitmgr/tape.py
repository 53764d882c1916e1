"""Prices played to the live scan one after the other, on a clock of the test's own, with every exit filled at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from exitmgr.advance import advance
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.states import LIVE
from orders.updates import apply_reports
from positions.feeds.protocol import Tick
from positions.quotes import write_quotes
from tests import factories as f


class Tape:
    """A market of one symbol that trades at one price at a time."""

    def __init__(self, symbol: str = "AAPL", *, spread: str = "0", collar_pct: str = "1000") -> None:
        f.make_instrument(symbol, collar_pct=Decimal(collar_pct), lot=Decimal("0.000001"))
        self.symbol, self.spread = symbol, Decimal(spread)
        self.now = f.utc_now()

    def at(self, seconds: int) -> datetime:
        """Move the clock on and return it."""
        self.now += timedelta(seconds=seconds)
        return self.now

    def quote(self, *prices: str) -> None:
        """Tell prices in one batch, a millisecond apart, without a scan."""
        ticks = []
        for price in prices:
            self.now += timedelta(milliseconds=1)
            ticks.append(
                Tick(
                    symbol=self.symbol,
                    bid=Decimal(price),
                    ask=Decimal(price) + self.spread,
                    last=Decimal(price),
                    source_at=self.now,
                )
            )
        assert write_quotes(ticks=ticks, source="test", now=self.now, ring=lambda: None).accepted_symbols

    def look(self) -> int:
        """Scan everything, and fill what it sold at the price it saw; return how many exits were made."""
        made = scan(now=self.now, everything=True).orders
        for order in Order.objects.filter(instrument__symbol=self.symbol, intent="exit", state__in=LIVE):
            price = f"{order.expected_price:f}"
            fill = f.fill_of(f"{order.quantity:f}", price)
            report = f.report_of(order, ReportedState.FILLED, executions=[fill])
            apply_reports(account_id=order.account_id, reports=[report], now=self.now)
        advance(now=self.now)
        return made

    def trade(self, *prices: str, every: int = 1) -> None:
        """Tell each price and look after it."""
        for price in prices:
            self.at(every)
            self.quote(price)
            self.look()


def exits_of(position) -> list[tuple[str, Decimal, Decimal]]:
    """Return reason, quantity and decided price of each exit of a position, in the order they were made."""
    orders = Order.objects.filter(position=position, intent="exit").order_by("pk")
    return [(order.reason, order.quantity, order.expected_price) for order in orders]
