"""A spot account at a crypto exchange, by way of ccxt: translate, call, translate back.

No request is ever repeated here, nothing is rounded, and what a venue can do is asked of ccxt, never of its name.
What each error proves is listed in `crypto_refusals`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from orders.brokers.crypto_abilities import capabilities_of, spot_features
from orders.brokers.crypto_checks import objection
from orders.brokers.crypto_holdings import holdings, money
from orders.brokers.crypto_lookups import Asker, now, readable
from orders.brokers.crypto_payloads import (
    filed_id,
    instrument_facts,
    is_the_stop,
    is_whole,
    order_arguments,
    order_report,
    our_id,
    taken_apart,
)
from orders.brokers.crypto_polling import watch_by_asking
from orders.brokers.crypto_refusals import Traffic, is_duplicate, is_not_found, read_error, translating, write_error
from orders.brokers.headers import Heard, note_heard
from orders.brokers.protocol import (
    BrokerAccount,
    BrokerPosition,
    InstrumentFacts,
    OrderRef,
    OrderReport,
    PriceBar,
    Replacement,
    ReportedState,
    SubmitRequest,
)
from orders.errors import BrokerError, LeaseOver, NotSent, OutcomeUnknown, RefusalKind, Refused
from positions.feeds.crypto_venue import VenueSession, load_markets, open_venue

logger = logging.getLogger(__name__)

_QUOTE: Final = "USDT"
_MOST_REMEMBERED: Final = 5_000
#: A lease outlasts one call, so a second one about the same order begins only while there is time.
_SPARE_SECONDS: Final = 1.5
_AT_ONCE: Final = 0.01


def connect(
    *, venue: str, base_url: str = "", key: str = "", secret: str = "", password: str = "", quote: str = _QUOTE
) -> CryptoBroker:
    """Return the adapter of one account; `quote` is the currency its holdings trade against and its money is in.

    :raises ValueError: the venue is unknown, the address is not one, or a credential is missing.
    """
    if base_url and (urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname):
        raise ValueError(f"broker address {base_url!r} must look like https://api.example.com, or be empty")
    if not key or not secret:
        raise ValueError(f"an account at {venue} needs both key and secret")
    began = time.monotonic()
    exchange, session = open_venue(venue=venue, base_url=base_url, key=key, secret=secret, password=password)
    seconds = time.monotonic() - began
    return CryptoBroker(exchange=exchange, session=session, base_url=base_url, quote=quote, opening_seconds=seconds)


class CryptoBroker:
    """One spot account at one exchange. Not shared between threads."""

    def __init__(
        self, *, exchange: Any, session: VenueSession, base_url: str, quote: str, opening_seconds: float = 0.0
    ) -> None:
        self.capabilities = capabilities_of(exchange)
        self._exchange, self._session = exchange, session
        self._base_url, self._quote = base_url, quote
        self._opening_seconds = opening_seconds
        self._asker = Asker(exchange=exchange, traffic=self._traffic, forget=session.forget)
        self._symbols: dict[str, str] = {}  # client order id -> symbol, of what this thread sent
        self._known: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"CryptoBroker({self._exchange.id!r})"

    def know_symbols(self, symbols: Collection[str]) -> None:
        """Take the symbols that an order of ours may be filed under: where none is named, all of them are asked."""
        self._known = frozenset(symbols)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Place one order; the report may be of fills that came at once, then without their executions.

        :raises NotSent: nothing left us.
        :raises Refused: the venue said no and has no such order.
        :raises OutcomeUnknown: it may or may not have arrived.
        """
        # loading the library counts, once: all of it happens while the order is claimed
        subject, began = f"submit {request.client_order_id}", time.monotonic() - self._opening_seconds
        self._opening_seconds = 0.0
        self._check(request, self._market(request.symbol, subject=subject))
        if time.monotonic() - began > _SPARE_SECONDS:
            raise LeaseOver(f"{subject}: reading the markets took too long", retry_after=_AT_ONCE)
        self._remember(request)
        self._session.forget()
        try:
            order = self._exchange.create_order(*order_arguments(request))
        except Exception as error:
            if is_duplicate(error, self._traffic()):
                return self._existing(request)
            refusal = write_error(error, self._traffic(), subject=subject, side=request.side)
            if isinstance(refusal, Refused) and refusal.kind is RefusalKind.HELD_QUANTITY:
                refusal.available = self._available(request.symbol, began=began)
            raise refusal from error
        finally:
            self._hear()
        with translating(subject):
            venue_id = str(order["id"])
            if our_id(order) not in ("", request.client_order_id):
                raise OutcomeUnknown(f"{subject}: the answer is about another order")
        return self._acknowledged(request, order, venue_id, began=began)

    def _available(self, symbol: str, *, began: float) -> Decimal | None:
        """Return what could be sold after all, where there is time to ask; fees taken in coins make it less."""
        if time.monotonic() - began > _SPARE_SECONDS:
            return None
        try:
            free = [holding.available for holding in self.positions() if holding.symbol == symbol]
        except BrokerError:
            return None
        return free[0] if free else Decimal(0)

    def _check(self, request: SubmitRequest, market: Any) -> None:
        """Refuse what this venue would not carry out to the letter; nothing has been sent."""
        wrong = objection(
            request,
            facts=instrument_facts(market, precision_mode=self._exchange.precisionMode),
            capabilities=self.capabilities,
            features=spot_features(self._exchange, "createOrder"),
        )
        if wrong:
            raise Refused(f"{self._exchange.id}: {wrong}", kind=RefusalKind.INVALID, permanent=True)

    def _acknowledged(self, request: SubmitRequest, order: Any, venue_id: str, *, began: float) -> OrderReport:
        """Return the report of an order that the venue has taken; what it left out, or might have, is read back."""
        subject = f"submit {request.client_order_id}"
        is_stop = request.stop_price is not None
        if is_stop or not is_whole(order):
            read = self._read_back(request, venue_id, began=began)
            if read is not None and is_stop and not is_the_stop(read, request):
                return self._undo(request, read)
            order = read or order
        if not is_whole(order):
            return OrderReport(
                client_order_id=request.client_order_id,
                broker_order_id=filed_id(venue_id, request.symbol),
                state=ReportedState.WORKING,
                symbol=request.symbol,
                side=request.side,
                quantity=request.quantity,
                filled_quantity=Decimal(0),
                average_fill_price=None,
                at=now(),
                raw_status="acknowledged",
            )
        with translating(subject):
            return replace(order_report(order, now=now()), client_order_id=request.client_order_id)

    def _read_back(self, request: SubmitRequest, venue_id: str, *, began: float) -> Any:
        """Return the order as the venue has it, or None where there is no time or no answer; it exists all the same."""
        why: object = "too slow"
        if time.monotonic() - began < _SPARE_SECONDS:
            try:
                if (order := self._asker.order(venue_id, request.symbol)) is not None:
                    return order
                why = "not shown yet"
            except BrokerError as error:
                why = error
        logger.warning("order_not_read_back client_order_id=%s why=%s", request.client_order_id, why)
        return None

    def _undo(self, request: SubmitRequest, order: Any) -> OrderReport:
        """Take back an order that does not wait for its trigger; where it has traded, that is what happened.

        :raises Refused: it is gone and nothing traded.
        :raises OutcomeUnknown: nobody knows what became of it.
        """
        said = f"{request.client_order_id} was placed without its stop price"
        logger.error("stop_without_trigger client_order_id=%s type=%s", request.client_order_id, order.get("type"))
        ref = OrderRef(
            client_order_id=request.client_order_id, broker_order_id=filed_id(str(order["id"]), request.symbol)
        )
        try:
            self.cancel(ref)
        except Refused as error:
            logger.info("order_ended_before_cancel client_order_id=%s said=%s", request.client_order_id, error)
        report = self.find_order(ref)
        if report is None or report.state is ReportedState.WORKING:
            raise OutcomeUnknown(said)
        if report.filled_quantity:
            return report
        raise Refused(said, kind=RefusalKind.INVALID, permanent=True)

    def _existing(self, request: SubmitRequest) -> OrderReport:
        """Return the order that a duplicate id points at; it exists, so the worst is not to know it."""
        subject = f"submit {request.client_order_id}: sent before"
        try:
            report = self.find_order(OrderRef(client_order_id=request.client_order_id, symbol=request.symbol))
        except BrokerError as error:
            raise OutcomeUnknown(f"{subject}, and now {error}") from error
        if report is None:
            raise OutcomeUnknown(f"{subject}, but it cannot be found yet")
        return report

    def cancel(self, ref: OrderRef) -> None:
        """Ask for a cancel; its success is only known from a later report.

        :raises NotSent: nothing left us.
        :raises Refused: there is nothing to cancel (any more); re-read the order.
        :raises OutcomeUnknown: the request may or may not have arrived; it may be sent again.
        """
        subject = f"cancel {ref.client_order_id or ref.broker_order_id}"
        order = self._order(ref)
        if order is None:
            raise Refused(f"there is no order {ref.client_order_id}", kind=RefusalKind.NOT_FOUND, permanent=True)
        with translating(subject):
            report = order_report(order, now=now())
            if not readable([order], now=now()):
                raise Refused(f"the order is {report.state} already", kind=RefusalKind.NOT_CANCELABLE)
            venue_id = str(order["id"])
        for book in self._asker.books("fetchOrder"):
            self._session.forget()
            try:
                self._exchange.cancel_order(venue_id, report.symbol, dict(book))
            except Exception as error:
                if not is_not_found(error, self._traffic()):
                    raise write_error(error, self._traffic(), subject=subject) from error
            else:
                return
            finally:
                self._hear()
        raise Refused("the order ended meanwhile", kind=RefusalKind.NOT_CANCELABLE)

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Refuse: what exchanges call an edit is a cancel and a new order, which may leave nothing behind.

        :raises Refused: always; it works on as it was.
        """
        raise Refused(
            f"{self._exchange.id} cannot change {ref.client_order_id} into {change.client_order_id}; cancel it first",
            kind=RefusalKind.NOT_ALLOWED,
            permanent=True,
        )

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Return the order with its executions, or None when the venue itself says that it has none.

        :raises NotSent: the venue could not be asked, or asked us to wait.
        :raises AccountRefused: the venue does not let us ask.
        :raises OutcomeUnknown: the venue did not answer, or does not say without the symbol.
        """
        order = self._order(ref)
        if order is None:
            return None
        with translating(f"find {ref.client_order_id or ref.broker_order_id}"):
            report = order_report(order, now=now())
            if ref.client_order_id:
                report = replace(report, client_order_id=ref.client_order_id)
            if not report.filled_quantity:
                return report
            return replace(report, executions=self._asker.executions_of(order))

    def _order(self, ref: OrderRef) -> Any:
        self._load(subject=f"find {ref.client_order_id or ref.broker_order_id}")
        venue_id, symbol = taken_apart(ref.broker_order_id)
        symbol = symbol or ref.symbol or self._symbols.get(ref.client_order_id, "")
        try:
            if venue_id and (order := self._asker.order(venue_id, symbol)) is not None:
                return order
            if ref.client_order_id and symbol:
                return self._asker.order_of_ours(ref.client_order_id, symbol)
            if not ref.client_order_id:
                return None
            return self._asker.order_of_ours_anywhere(
                ref.client_order_id, open_orders=self._open(), symbols=sorted(self._known)
            )
        finally:
            self._hear()

    def open_orders(self) -> list[OrderReport]:
        """Return every order that is not terminal, without executions; one that cannot be read is logged.

        :raises NotSent: the venue could not be asked, or asked us to wait.
        :raises OutcomeUnknown: the venue did not answer.
        """
        self._load(subject="open orders")
        try:
            return readable(self._open(), now=now())
        finally:
            self._hear()

    def _open(self) -> list[Any]:
        symbols: set[str] = set()
        if self._asker.needs_symbol("fetchOpenOrders"):
            symbols = {position.symbol for position in self.positions()} | set(self._symbols.values())
        return self._asker.open_orders(symbols)

    def positions(self) -> list[BrokerPosition]:
        """Return what is held of each currency that trades against the account's own, which is money."""
        self._load(subject="positions")
        return holdings(self._asker, quote=self._quote)

    def account(self) -> BrokerAccount:
        """Return the account's money in its quote currency; what it holds is worth its last price."""
        self._load(subject="account")
        return money(self._asker, quote=self._quote)

    def instrument(self, symbol: str) -> InstrumentFacts | None:
        """Return the venue's facts on a symbol, or None when it has no such spot market."""
        self._load(subject=f"instrument {symbol}", again_for=symbol)
        market = self._exchange.markets.get(symbol)
        if market is None or not market.get("spot"):
            return None
        with translating(f"instrument {symbol}"):
            return instrument_facts(market, precision_mode=self._exchange.precisionMode)

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars of the given length in seconds, oldest first.

        :raises Refused: the venue has no bars of this length.
        """
        self._load(subject=f"bars {symbol}")
        return self._asker.bars(symbol, start=start, end=end, seconds=seconds)

    def watch_orders(
        self,
        *,
        on_reports: Callable[[Sequence[OrderReport]], None],
        on_connected: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """Follow the open orders by asking from time to time, until `until()` is true."""
        watch_by_asking(self, on_reports=on_reports, on_connected=on_connected, until=until)

    def _market(self, symbol: str, *, subject: str) -> Any:
        """Return the venue's market of a symbol; whatever fails here, no order has left us.

        :raises NotSent: the venue could not be asked for its markets.
        :raises Refused: it has no such spot market.
        """
        try:
            self._load(subject=subject, again_for=symbol)
        except OutcomeUnknown as error:
            raise NotSent(str(error)) from error
        market = self._exchange.markets.get(symbol)
        if market is None or not market.get("spot"):
            said = f"{self._exchange.id} has no spot market {symbol!r}"
            raise Refused(said, kind=RefusalKind.UNKNOWN_SYMBOL, permanent=True)
        return market

    def _load(self, *, subject: str, again_for: str = "") -> None:
        self._session.forget()
        try:
            load_markets(self._exchange, base_url=self._base_url, again_for=again_for)
        except Exception as error:
            raise read_error(error, self._traffic(), subject=subject) from error

    def _remember(self, request: SubmitRequest) -> None:
        while len(self._symbols) >= _MOST_REMEMBERED:
            del self._symbols[next(iter(self._symbols))]
        self._symbols[request.client_order_id] = request.symbol

    def _traffic(self) -> Traffic:
        said = self._session
        return Traffic(sent=said.sent, left=said.left, status=said.status, retry_after=said.retry_after)

    def _hear(self) -> None:
        """Tell whoever keeps the budget what the last answer said."""
        said = self._session
        if said.status is not None:
            turned_away = said.status in (418, 429)
            note_heard(
                Heard(turned_away=turned_away, reset_seconds=said.retry_after, clock_ahead_seconds=said.clock_ahead)
            )
