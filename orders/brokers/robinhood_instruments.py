"""Instruments at Robinhood, which orders and holdings name by a link alone; each is asked for once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

from orders.brokers.exact import to_decimal
from orders.brokers.protocol import OrderSide
from orders.brokers.robinhood_refusals import body_of, translating
from orders.brokers.robinhood_transport import RobinhoodTransport
from orders.errors import NotSent


class Instruments:
    """What one connection has learned of instruments."""

    def __init__(self, transport: RobinhoodTransport) -> None:
        self._transport = transport
        self._by_symbol: dict[str, dict[str, Any]] = {}
        self._symbols: dict[str, str] = {}  # by instrument id

    def find(self, symbol: str, *, anew: bool = False) -> dict[str, Any] | None:
        """Return the instrument of a symbol, or None when there is none; `anew` asks even where it is known."""
        if anew or symbol not in self._by_symbol:
            self._by_symbol.pop(symbol, None)
            subject = f"instrument {symbol}"
            for found in self._transport.pages("/instruments/", {"symbol": symbol}, subject=subject):
                with translating(subject):
                    if found["symbol"] == symbol:
                        self._by_symbol[symbol] = found
                        self._symbols[str(found["id"])] = symbol
        return self._by_symbol.get(symbol)

    def symbol_of(self, row: Mapping[str, Any]) -> str:
        """Return the symbol of an order or a holding; of its link only the id is used, the host is ours.

        :raises LookupError: it names no instrument.
        """
        named = row.get("instrument_id") or urlsplit(row["instrument"]).path.rstrip("/").rpartition("/")[2]
        instrument_id = str(named)
        if instrument_id not in self._symbols:
            path = f"/instruments/{quote(instrument_id, safe='')}/"
            found = body_of(self._transport.ask(path), subject=f"instrument {instrument_id}")
            self._symbols[instrument_id] = str(found["symbol"])
        return self._symbols[instrument_id]

    def price_at_hand(self, symbol: str, *, side: OrderSide) -> Decimal:
        """Return the price at which an order of this side would trade now.

        :raises NotSent: there is none.
        """
        subject = f"quote {symbol}"
        body = body_of(self._transport.ask(f"/quotes/{quote(symbol, safe='')}/"), subject=subject)
        with translating(subject):
            price = to_decimal(body["ask_price" if side is OrderSide.BUY else "bid_price"] or 0)
        if price <= 0:
            raise NotSent(f"{subject}: nobody quotes it now")
        return price
