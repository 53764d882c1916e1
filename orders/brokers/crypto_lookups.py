"""Questions about orders at a crypto exchange: where one is, what filled of it, which are open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orders.brokers.crypto_abilities import spot_features, takes_client_ids
from orders.brokers.crypto_payloads import executions, order_report, our_id, price_bar, to_milliseconds, to_time
from orders.brokers.crypto_refusals import Traffic, is_not_found, read_error, translating
from orders.brokers.exact import Unreadable
from orders.brokers.protocol import Execution, OrderReport, PriceBar, ReportedState
from orders.errors import OutcomeUnknown, RefusalKind, Refused

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]
_OPEN: Final = frozenset({ReportedState.WORKING, ReportedState.CANCELLING, ReportedState.UNRECOGNISED})
_SLACK: Final = timedelta(seconds=2)
_SEARCH_SECONDS: Final = 4.0
_BARS_A_PAGE: Final = 500
_MOST_PAGES: Final = 200
#: Venues that keep stops in a book of their own are asked twice, the second time for that book.
_PLAIN: Final[tuple[dict[str, bool], ...]] = ({},)
_BOTH: Final[tuple[dict[str, bool], ...]] = ({}, {"trigger": True})


class Asker:
    """Asks one exchange questions, and turns what fails into the errors of questions."""

    def __init__(self, *, exchange: Any, traffic: Callable[[], Traffic], forget: Callable[[], None]) -> None:
        self.exchange = exchange
        self._traffic, self._forget = traffic, forget
        self._by_client_id = takes_client_ids(exchange)

    def ask(self, subject: str, verb: str, *arguments: Any, missing: bool = False) -> Any:
        """Return the answer to one question; with `missing`, None where the venue has no such order.

        :raises BrokerError: see `read_error`.
        """
        self._forget()
        try:
            return getattr(self.exchange, verb)(*arguments)
        except Exception as error:
            if missing and is_not_found(error, self._traffic()):
                return None
            raise read_error(error, self._traffic(), subject=subject) from error

    def books(self, verb: str) -> tuple[dict[str, bool], ...]:
        """Return the parameters to ask with, one for each book of orders."""
        return _BOTH if spot_features(self.exchange, verb).get("trigger") else _PLAIN

    def needs_symbol(self, verb: str) -> bool:
        """Say whether a question has to name a symbol."""
        return bool(spot_features(self.exchange, verb).get("symbolRequired"))

    def order(self, venue_id: str, symbol: str) -> Json | None:
        """Return an order by the venue's id."""
        if not symbol and self.needs_symbol("fetchOrder"):
            raise OutcomeUnknown(f"find {venue_id}: this venue does not say without the symbol")
        return self._in_any_book(f"find {venue_id}", venue_id, symbol, {})

    def order_of_ours(self, client_order_id: str, symbol: str) -> Json | None:
        """Return an order by our id, in the words of the venue or else out of its lists."""
        subject = f"find {client_order_id}"
        if symbol not in self.exchange.markets:
            return None  # nothing could be placed there
        if self._by_client_id:
            order = self._in_any_book(subject, "", symbol, {"clientOrderId": client_order_id})
            if order is None or our_id(order) == client_order_id:
                return order
        for order in self._lists(subject, symbol):
            if our_id(order) == client_order_id:
                return order
        return None

    def order_of_ours_anywhere(
        self, client_order_id: str, *, open_orders: Iterable[Json], symbols: Sequence[str]
    ) -> Json | None:
        """Return an order by our id alone: it is open, or filed under one of the symbols.

        :raises OutcomeUnknown: no symbols are known, or too many to ask about; that it was not found proves nothing.
        """
        for order in open_orders:
            if our_id(order) == client_order_id:
                return order
        began = time.monotonic()
        for symbol in symbols:
            if time.monotonic() - began > _SEARCH_SECONDS:
                raise OutcomeUnknown(f"find {client_order_id}: too many symbols to ask about; name its own")
            if (found := self.order_of_ours(client_order_id, symbol)) is not None:
                return found
        if not symbols:
            raise OutcomeUnknown(f"find {client_order_id}: it is not open, and without its symbol that is all")
        return None

    def _in_any_book(self, subject: str, venue_id: str, symbol: str, parameters: dict[str, str]) -> Json | None:
        for book in self.books("fetchOrder"):
            arguments = (venue_id, symbol or None, {**parameters, **book})
            order: Json | None = self.ask(subject, "fetch_order", *arguments, missing=True)
            if order is not None:
                return order
        return None

    def _lists(self, subject: str, symbol: str) -> Iterator[Json]:
        for verb, name in (
            ("fetch_open_orders", "fetchOpenOrders"),
            ("fetch_orders", "fetchOrders"),
            ("fetch_closed_orders", "fetchClosedOrders"),
            ("fetch_canceled_orders", "fetchCanceledOrders"),
            ("fetch_canceled_and_closed_orders", "fetchCanceledAndClosedOrders"),
        ):
            if self.exchange.has.get(name) is True:
                for book in self.books(name):
                    yield from self.ask(subject, verb, symbol, None, None, dict(book))

    def open_orders(self, symbols: Iterable[str]) -> list[Json]:
        """Return the open orders of the account; of the given symbols only where the venue will not tell all."""
        wanted = list(symbols) if self.needs_symbol("fetchOpenOrders") else [None]
        found: dict[str, Json] = {}
        for symbol in wanted:
            for book in self.books("fetchOpenOrders"):
                page = self.ask("open orders", "fetch_open_orders", symbol, None, None, dict(book))
                with translating("open orders"):
                    found |= {str(order["id"]): order for order in page}
        return list(found.values())

    def executions_of(self, order: Json) -> tuple[Execution, ...]:
        """Return the executions of one order, oldest first, as far as the venue tells them yet."""
        venue_id, symbol = str(order["id"]), str(order["symbol"])
        subject = f"fills of {venue_id}"
        if self.exchange.has.get("fetchOrderTrades") is True:
            trades = self.ask(subject, "fetch_order_trades", venue_id, symbol)
        elif order.get("timestamp") is not None:
            since = to_milliseconds(to_time(order["timestamp"]) - _SLACK)
            most = spot_features(self.exchange, "fetchMyTrades").get("limit")
            trades = [
                trade
                for trade in self.ask(subject, "fetch_my_trades", symbol, since, most)
                if str(trade.get("order")) == venue_id
            ]
        else:
            trades = order.get("trades") or []
        with translating(subject):
            return executions(trades, order_id=venue_id, symbol=symbol)

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars, oldest first.

        :raises Refused: the venue has no bars of this length.
        """
        exchange, subject = self.exchange, f"bars {symbol}"
        length = next((word for word in exchange.timeframes or () if exchange.parse_timeframe(word) == seconds), None)
        if length is None or not exchange.has.get("fetchOHLCV"):
            said = f"there are no bars of {seconds} seconds; this venue has {', '.join(exchange.timeframes or ())}"
            raise Refused(said, kind=RefusalKind.INVALID, permanent=True)
        most = spot_features(exchange, "fetchOHLCV").get("limit") or _BARS_A_PAGE
        found: dict[datetime, PriceBar] = {}
        since = start
        for _ in range(_MOST_PAGES):
            page = self.ask(subject, "fetch_ohlcv", symbol, length, to_milliseconds(since), most)
            with translating(subject):
                fresh = [bar for row in page if start <= (bar := price_bar(symbol, row)).start <= end]
            fresh = [bar for bar in fresh if bar.start not in found]
            found |= {bar.start: bar for bar in fresh}
            if not fresh:
                break
            since = max(found) + timedelta(seconds=seconds)
            if since > end:
                break
        return [found[moment] for moment in sorted(found)]


def readable(orders: Iterable[Json], *, now: datetime) -> list[OrderReport]:
    """Return the reports of orders that are not terminal; one that cannot be read is logged and left out."""
    reports = []
    for order in orders:
        try:
            report = order_report(order, now=now)
        except Unreadable:
            logger.exception("order_unreadable broker_order_id=%s", order.get("id"))
            continue
        if report.state in _OPEN:
            reports.append(report)
    return reports


def now() -> datetime:
    """Return the time, for answers that name none."""
    return datetime.now(UTC)
