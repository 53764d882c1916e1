"""Venues that keep stops in a book of their own: what is asked of one book alone is not found, and that proves nothing."""

from __future__ import annotations

import ccxt
import pytest

from orders.brokers.crypto_lookups import Asker
from orders.brokers.crypto_refusals import Traffic

SYMBOL = "BTC/USDT"


class TwoBooks:
    """An exchange that answers for stops only when it is told that it is asked about triggers."""

    markets = (SYMBOL,)

    def __init__(self, *, has_stops_book: bool) -> None:
        self.features = {"spot": {"fetchOrder": {"trigger": has_stops_book}}}
        self.asked: list[dict[str, bool]] = []

    def fetch_order(self, venue_id: str, symbol: str | None, params: dict[str, bool]) -> dict[str, str]:
        """Return the stop, from its own book alone."""
        self.asked.append(params)
        if not params.get("trigger"):
            raise ccxt.OrderNotFound(f"no order {venue_id} in {symbol}")
        return {"id": venue_id}


@pytest.mark.parametrize(
    ("_case", "has_stops_book", "found", "asked"),
    [
        ("stops have a book of their own", True, {"id": "7"}, [{}, {"trigger": True}]),
        ("one book for all", False, None, [{}]),
    ],
)
def test_a_stop_is_looked_for_in_every_book_of_its_venue(_case, has_stops_book, found, asked):
    exchange = TwoBooks(has_stops_book=has_stops_book)
    asker = Asker(exchange=exchange, traffic=lambda: Traffic(sent=1, left=True, status=400), forget=lambda: None)
    assert asker.order("7", SYMBOL) == found
    assert exchange.asked == asked
