"""Robinhood behind the broker protocol: translate, call, translate back.

The interface is Robinhood's own app's: not documented, no promise of it kept by anybody. So it is used narrowly, one
request for one thing, nothing is repeated, and what an answer does not prove is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlsplit

from orders.brokers.exact import Unreadable, reading
from orders.brokers.marketable import marketable_limit
from orders.brokers.protocol import (
    BrokerAccount,
    BrokerPosition,
    Capabilities,
    InstrumentFacts,
    OrderClass,
    OrderRef,
    OrderReport,
    OrderSide,
    OrderType,
    PriceBar,
    Replacement,
    SubmitRequest,
    TimeInForce,
)
from orders.brokers.robinhood_instruments import Instruments
from orders.brokers.robinhood_payloads import (
    ENDED,
    MARKET_COLLAR,
    bars_window,
    broker_account,
    broker_position,
    instrument_facts,
    order_payload,
    order_report,
    price_bar,
    ref_id,
)
from orders.brokers.robinhood_refs import client_id_of, remember
from orders.brokers.robinhood_refusals import (
    body_of,
    cancel_error,
    is_duplicate,
    is_not_found,
    translating,
    write_error,
)
from orders.brokers.robinhood_transport import RobinhoodTransport
from orders.brokers.robinhood_watch import poll_changes
from orders.errors import BrokerError, NotSent, OutcomeUnknown, RefusalKind, Refused

logger = logging.getLogger(__name__)

OWN_ADDRESS: Final = "https://api.robinhood.com"
#: An order of which we do not know Robinhood's id was sent a moment ago; one that is open is at most 90 days old.
_LOOKED_BACK: Final = timedelta(days=7)
_OPEN_AT_MOST: Final = timedelta(days=100)


def connect(*, base_url: str, token: str, account_number: str = "") -> RobinhoodBroker:
    """Return the adapter of one account; without its number the first that the token opens.

    :raises ValueError: the address is not one, or there is no token.
    """
    address = base_url or OWN_ADDRESS
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ValueError(f"broker address {base_url!r} must look like {OWN_ADDRESS}")
    if not token:
        raise ValueError("a Robinhood account needs a token; see orders/brokers/robinhood_session.py")
    return RobinhoodBroker(
        transport=RobinhoodTransport(token=token, base_url=address),
        account_number=account_number,
        clock=lambda: datetime.now(UTC),
    )


class RobinhoodBroker:
    """One account at Robinhood. Not shared between threads."""

    def __init__(self, *, transport: RobinhoodTransport, account_number: str, clock: Callable[[], datetime]) -> None:
        self.capabilities = Capabilities(
            order_types=frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}),
            times_in_force=frozenset({TimeInForce.DAY, TimeInForce.GTC}),
            extended_hours=True,
            # parts of shares go through in market orders to six decimals, not in stops or limits
            fractional=False,
            lookup_by_client_id=True,
            settle_after_seconds=10.0,
            # no limit is published: what we allow ourselves
            requests_per_minute=60,
        )
        self._transport = transport
        self._number = account_number
        self._clock = clock
        self._account_url = ""
        self._instruments = Instruments(transport)

    def __repr__(self) -> str:
        return f"RobinhoodBroker({self._transport!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._transport.close()

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Place one order; a ref_id that is taken is the order that took it, whose report is returned.

        :raises NotSent: nothing left us.
        :raises Refused: Robinhood said no and has no such order.
        :raises OutcomeUnknown: it may or may not have arrived.
        """
        subject = f"submit {request.client_order_id}"
        if refusal := self._beyond_abilities(request):
            raise Refused(refusal, kind=RefusalKind.INVALID, permanent=True)
        try:
            payload = self._payload(request)
        except OutcomeUnknown as error:  # of a question: the order itself has not left us
            raise NotSent(str(error)) from error
        remember(request.client_order_id)
        answer = self._transport.send("/orders/", payload)
        if is_duplicate(answer):
            return self._existing(request.client_order_id)
        if not answer.is_success:
            raise write_error(answer, subject=subject)
        with translating(subject):
            if answer.body["ref_id"] != payload["ref_id"]:
                raise OutcomeUnknown(f"{subject}: the answer is about another order")
            return order_report(answer.body, symbol=request.symbol, client_order_id=request.client_order_id)

    def _beyond_abilities(self, request: SubmitRequest) -> str:
        if request.order_class is not OrderClass.SIMPLE:
            return f"Robinhood has no {request.order_class} orders"
        if request.order_type not in self.capabilities.order_types:
            return f"{request.order_type} orders are not sent to Robinhood"
        if request.time_in_force not in self.capabilities.times_in_force:
            return f"Robinhood orders are for the day or till cancelled, not {request.time_in_force}"
        return ""

    def _payload(self, request: SubmitRequest) -> dict[str, object]:
        instrument = self._instruments.find(request.symbol)
        if instrument is None:
            raise Refused(f"there is no {request.symbol}", kind=RefusalKind.UNKNOWN_SYMBOL, permanent=True)
        limit = None
        is_market = request.order_type is OrderType.MARKET
        if is_market and (request.side is OrderSide.BUY or request.extended_hours):
            limit = marketable_limit(
                request.side,
                price=self._instruments.price_at_hand(request.symbol, side=request.side),
                beyond=MARKET_COLLAR,
            )
        elif request.order_type is OrderType.STOP and request.side is OrderSide.BUY and request.stop_price is not None:
            limit = marketable_limit(request.side, price=request.stop_price, beyond=MARKET_COLLAR)
        return order_payload(
            request, account_url=self._own_account(), instrument_url=str(instrument["url"]), limit=limit
        )

    def _own_account(self) -> str:
        if not self._account_url:
            self._account_url = str(self._account()["url"])
        return self._account_url

    def _account(self) -> dict[str, Any]:
        for account in self._transport.pages("/accounts/", {"default_to_all_accounts": "true"}, subject="account"):
            if self._number in ("", account.get("account_number")):
                return account
        raise NotSent(f"the token opens no account {self._number}".rstrip())

    def _existing(self, client_order_id: str) -> OrderReport:
        """Return the order that a taken ref_id points at; it exists, so the worst is not to know it."""
        try:
            report = self.find_order(OrderRef(client_order_id=client_order_id))
        except BrokerError as error:
            raise OutcomeUnknown(f"submit {client_order_id}: sent before, and now {error}") from error
        if report is None:
            raise OutcomeUnknown(f"submit {client_order_id}: sent before, but it cannot be found yet")
        return report

    def cancel(self, ref: OrderRef) -> None:
        """Ask for a cancel; its success is only known from a later report.

        :raises NotSent: nothing left us.
        :raises Refused: there is nothing to cancel (any more); re-read the order.
        :raises OutcomeUnknown: the request may or may not have arrived; it may be sent again.
        """
        broker_order_id = ref.broker_order_id
        if not broker_order_id:
            order = self._order(ref)
            if order is None:
                raise Refused(f"there is no order {ref.client_order_id}", kind=RefusalKind.NOT_FOUND, permanent=True)
            broker_order_id = str(order["id"])
        answer = self._transport.send(f"/orders/{quote(broker_order_id, safe='')}/cancel/")
        if not answer.is_success:
            raise cancel_error(answer, subject=f"cancel {ref.client_order_id or broker_order_id}")

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Refuse: Robinhood has no such request.

        :raises Refused: always; the order works on as it was.
        """
        raise Refused(
            f"Robinhood cannot change {ref.client_order_id} into {change.client_order_id}",
            kind=RefusalKind.NOT_ALLOWED,
            permanent=True,
        )

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Return the order with its executions, or None when Robinhood itself shows none.

        Without its own id it is looked for among the orders of the last week, as there is no other look-up.

        :raises NotSent: Robinhood could not be asked, or asked us to wait.
        :raises AccountRefused: Robinhood does not let us ask.
        :raises OutcomeUnknown: Robinhood did not answer.
        """
        order = self._order(ref)
        if order is None:
            return None
        if ref.client_order_id:
            remember(ref.client_order_id)
        with translating(f"find {ref.client_order_id or ref.broker_order_id}"):
            return self._report(order)

    def _order(self, ref: OrderRef) -> dict[str, Any] | None:
        subject = f"find {ref.client_order_id or ref.broker_order_id}"
        wanted = ref_id(ref.client_order_id) if ref.client_order_id else ""
        if not ref.broker_order_id:
            recent = self._orders_since(self._clock() - _LOOKED_BACK, subject=subject)
            return next((order for order in recent if order.get("ref_id") == wanted), None)
        answer = self._transport.ask(f"/orders/{quote(ref.broker_order_id, safe='')}/")
        if is_not_found(answer):
            return None
        order = body_of(answer, subject=subject)
        if wanted and order.get("ref_id") != wanted:
            raise OutcomeUnknown(f"{subject}: the answer is about another order")
        return order

    def _orders_since(self, moment: datetime, *, subject: str) -> Iterator[dict[str, Any]]:
        params = {"updated_at[gte]": moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}
        if self._number:
            params["account_numbers"] = self._number
        return self._transport.pages("/orders/", params, subject=subject)

    def _report(self, order: dict[str, Any]) -> OrderReport:
        with reading("order"):
            return order_report(
                order, symbol=self._instruments.symbol_of(order), client_order_id=client_id_of(order.get("ref_id"))
            )

    def _reports(self, orders: Iterable[dict[str, Any]]) -> list[OrderReport]:
        """Return the reports of orders; an odd one of somebody else on the account does not hide all others."""
        reports = []
        for order in orders:
            try:
                reports.append(self._report(order))
            except Unreadable:
                logger.exception("order_unreadable broker_order_id=%s", order.get("id"))
        return reports

    def open_orders(self) -> list[OrderReport]:
        """Return every order that is not terminal; one whose client id this process never knew is named by its ref_id.

        :raises NotSent: Robinhood could not be asked, or asked us to wait.
        :raises OutcomeUnknown: Robinhood did not answer.
        """
        rows = self._orders_since(self._clock() - _OPEN_AT_MOST, subject="open orders")
        return [report for report in self._reports(rows) if report.state not in ENDED]

    def positions(self) -> list[BrokerPosition]:
        """Return every holding."""
        params = {"nonzero": "true"} | ({"account_number": self._number} if self._number else {})
        rows = list(self._transport.pages("/positions/", params, subject="positions"))
        with translating("positions"):
            held = [broker_position(row, symbol=self._instruments.symbol_of(row)) for row in rows]
        return [holding for holding in held if holding.quantity]

    def account(self) -> BrokerAccount:
        """Return the account's money."""
        account = self._account()
        number = quote(str(account.get("account_number")), safe="")
        portfolio = body_of(self._transport.ask(f"/portfolios/{number}/"), subject="account")
        with translating("account"):
            return broker_account(account, portfolio)

    def instrument(self, symbol: str) -> InstrumentFacts | None:
        """Return Robinhood's facts on a symbol, or None when it has no such instrument."""
        found = self._instruments.find(symbol, anew=True)
        if found is None:
            return None
        with translating(f"instrument {symbol}"):
            return instrument_facts(found)

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars of the given length in seconds, oldest first; five years back at most.

        :raises Refused: Robinhood has no bars of this length.
        """
        window = bars_window(start=start, now=self._clock(), seconds=seconds)
        if window is None:
            raise Refused(
                f"there are no bars of {seconds} seconds; use 5 or 10 minutes, an hour, a day or a week",
                kind=RefusalKind.INVALID,
                permanent=True,
            )
        params = {"symbols": symbol, "interval": window[0], "span": window[1], "bounds": "regular"}
        subject = f"bars {symbol}"
        body = body_of(self._transport.ask("/quotes/historicals/", params), subject=subject)
        with translating(subject):
            rows = [row for told in body["results"] if told for row in told["historicals"]]
            found = [price_bar(row, symbol=symbol) for row in rows]
        return sorted((bar for bar in found if start <= bar.start <= end), key=lambda bar: bar.start)

    def watch_orders(
        self,
        *,
        on_reports: Callable[[Sequence[OrderReport]], None],
        on_connected: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """Ask each second for the orders that changed, until `until()` is true; there is no stream to follow.

        `on_connected` runs first, and again after each time that Robinhood could not be asked or was not heard.
        """
        poll_changes(
            changed_since=lambda moment: self._reports(self._orders_since(moment, subject="watch orders")),
            clock=self._clock,
            on_reports=on_reports,
            on_connected=on_connected,
            until=until,
        )
