"""Alpaca, and whatever speaks its dialect, behind the broker protocol: translate, call, translate back.

No request is ever repeated here. Whatever an answer does not prove is unknown; what each answer proves is
listed in `alpaca_refusals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from orders.brokers import alpaca_stream
from orders.brokers.alpaca_groups import group_report, may_have_legs, missing_stop
from orders.brokers.alpaca_pages import all_bars, all_open_orders, executions_of, is_crypto
from orders.brokers.alpaca_payloads import (
    broker_account,
    broker_position,
    instrument_facts,
    order_report,
)
from orders.brokers.alpaca_preparing import for_the_rest, for_this_hour
from orders.brokers.alpaca_refusals import (
    body_of,
    cancel_error,
    is_duplicate,
    is_not_found,
    replace_error,
    translating,
    write_error,
)
from orders.brokers.alpaca_requests import order_payload, replacement_payload
from orders.brokers.alpaca_transport import AlpacaTransport
from orders.brokers.protocol import (
    BrokerAccount,
    BrokerPosition,
    Capabilities,
    InstrumentFacts,
    OrderClass,
    OrderRef,
    OrderReport,
    OrderType,
    PriceBar,
    Replacement,
    SubmitRequest,
    TimeInForce,
)
from orders.errors import BrokerError, OutcomeUnknown, RefusalKind, Refused

_OWN_DOMAIN: Final = "alpaca.markets"


def data_url(base_url: str) -> str:
    """Return the address of market data that belongs to a trading address; a simulator serves both."""
    return "https://data.alpaca.markets" if _is_alpacas_own(base_url) else base_url.rstrip("/")


def stream_url(base_url: str) -> str:
    """Return the address of the order updates stream that belongs to a trading address."""
    return f"ws{base_url.rstrip('/').removeprefix('http')}/stream"


def connect(*, base_url: str, key: str, secret: str) -> AlpacaBroker:
    """Return the adapter of one account, its other addresses derived from the trading address.

    :raises ValueError: the address is not one, or a credential is missing.
    """
    if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
        raise ValueError(f"broker address {base_url!r} must look like https://paper-api.alpaca.markets")
    return AlpacaBroker(
        key=key,
        secret=secret,
        base_url=base_url.rstrip("/"),
        data_url=data_url(base_url),
        stream_url=stream_url(base_url),
    )


def _is_alpacas_own(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == _OWN_DOMAIN or host.endswith(f".{_OWN_DOMAIN}")


class AlpacaBroker:
    """One account at Alpaca. Not shared between threads."""

    def __init__(self, key: str, secret: str, base_url: str, data_url: str, stream_url: str) -> None:
        if not key or not secret:
            raise ValueError("an Alpaca account needs both key and secret")
        self.capabilities = Capabilities(
            order_types=frozenset(OrderType),
            times_in_force=frozenset(TimeInForce),
            native_bracket=True,
            native_oco=True,
            order_classes=frozenset(OrderClass),
            replace=True,
            extended_hours=True,
            shorting=True,
            fractional=True,
            durable_dedupe=True,
            lookup_by_client_id=True,
            update_stream=True,
            requests_per_minute=200 if _is_alpacas_own(base_url) else None,
        )
        self._key, self._secret = key, secret
        self._base_url, self._stream_url = base_url, stream_url
        self._transport = AlpacaTransport(key=key, secret=secret, base_url=base_url, data_url=data_url)

    def __repr__(self) -> str:
        return f"AlpacaBroker({self._base_url!r})"

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._transport.close()

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Place one order or group; the same client order id twice is one order, whose report is returned.

        A group of which the stop is not there as asked for is called off again, and its outcome is unknown.

        :raises NotSent: nothing left us.
        :raises Refused: Alpaca said no and has no such order.
        :raises OutcomeUnknown: it may or may not have arrived.
        """
        client_order_id = request.client_order_id
        if request.extended_hours and request.order_type is OrderType.MARKET and not is_crypto(request.symbol):
            request = for_this_hour(request, transport=self._transport)
        answer = self._transport.send("/orders", order_payload(request))
        if is_duplicate(answer):
            return self._existing(client_order_id)
        if not answer.is_success:
            raise write_error(answer, subject=f"submit {client_order_id}")
        with translating(f"submit {client_order_id}"):
            report = order_report(answer.body)
        if report.client_order_id != client_order_id:
            raise OutcomeUnknown(f"submit {client_order_id}: the answer is about another order")
        return report if request.order_class is OrderClass.SIMPLE else self._placed_group(request, answer.body)

    def _placed_group(self, request: SubmitRequest, order: dict[str, Any]) -> OrderReport:
        """Return the report of a group once its stop is seen to be there."""
        subject = f"submit {request.client_order_id}"
        with translating(subject):
            if missing_stop(order, request=request):
                order = self._with_legs(order, subject=subject)
            if not (fault := missing_stop(order, request=request)):
                return group_report(order)
        try:
            self.cancel(OrderRef(client_order_id=request.client_order_id, broker_order_id=str(order["id"])))
        except BrokerError as error:
            raise OutcomeUnknown(f"{subject}: {fault}, and it cannot be called off: {error}") from error
        raise OutcomeUnknown(f"{subject}: {fault}, and it was called off")

    def _with_legs(self, order: dict[str, Any], *, subject: str) -> dict[str, Any]:
        path = f"/orders/{quote(str(order['id']), safe='')}"
        nested: dict[str, Any] = body_of(self._transport.ask(path, {"nested": "true"}), dict, subject=subject)
        return nested

    def _existing(self, client_order_id: str) -> OrderReport:
        """Return the order that a duplicate id points at; it exists, so the worst is not to know it."""
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
        broker_order_id = ref.broker_order_id or self._broker_order_id(ref)
        answer = self._transport.remove(f"/orders/{quote(broker_order_id, safe='')}")
        if not answer.is_success:
            raise cancel_error(answer, subject=_subject("cancel", ref))

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Ask for a working order to be changed, and return the report of its successor.

        The old order is reported as replaced, with its successor's id, once Alpaca has done it. Where it fills
        first the successor is rejected.

        :raises NotSent: nothing left us.
        :raises Refused: it cannot be changed (now); it works on as it was, or has ended.
        :raises OutcomeUnknown: it may or may not have been changed; the successor's client id tells.
        """
        broker_order_id = ref.broker_order_id or self._broker_order_id(ref)
        if change.quantity is None:
            change = for_the_rest(change, broker_order_id=broker_order_id, transport=self._transport)
        answer = self._transport.change(f"/orders/{quote(broker_order_id, safe='')}", replacement_payload(change))
        subject = _subject("replace", ref)
        if is_duplicate(answer):
            return self._existing(change.client_order_id)
        if not answer.is_success:
            raise replace_error(answer, subject=subject)
        with translating(subject):
            report = order_report(answer.body)
        if report.client_order_id != change.client_order_id:
            raise OutcomeUnknown(f"{subject}: the answer is about another order")
        return report

    def _broker_order_id(self, ref: OrderRef) -> str:
        order = self._order(ref)
        if order is None:
            raise Refused(f"there is no order {ref.client_order_id}", kind=RefusalKind.NOT_FOUND, permanent=True)
        return str(order["id"])

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Return the order with its executions, or None when Alpaca itself says that it has none.

        :raises NotSent: Alpaca could not be asked, or asked us to wait.
        :raises AccountRefused: Alpaca does not let us ask.
        :raises OutcomeUnknown: Alpaca did not answer.
        """
        order = self._order(ref)
        if order is None:
            return None
        subject = _subject("find", ref)
        if may_have_legs(order) and order.get("legs") is None:
            order = self._with_legs(order, subject=subject)
        with translating(subject):
            report = group_report(order)
            legs = tuple(
                self._with_executions(leg, told) for leg, told in zip(order.get("legs") or (), report.legs, strict=True)
            )
            return replace(self._with_executions(order, report), legs=legs)

    def _with_executions(self, order: dict[str, Any], report: OrderReport) -> OrderReport:
        if not report.filled_quantity:
            return report
        return replace(report, executions=executions_of(order, report=report, transport=self._transport))

    def _order(self, ref: OrderRef) -> dict[str, Any] | None:
        if ref.client_order_id:
            answer = self._transport.ask("/orders:by_client_order_id", {"client_order_id": ref.client_order_id})
        else:
            answer = self._transport.ask(f"/orders/{quote(ref.broker_order_id, safe='')}")
        if is_not_found(answer):
            return None
        order = body_of(answer, dict, subject=_subject("find", ref))
        if ref.client_order_id and order.get("client_order_id") != ref.client_order_id:
            raise OutcomeUnknown(f"{_subject('find', ref)}: the answer is about another order")
        return order

    def open_orders(self) -> list[OrderReport]:
        """Return every order that is not terminal, legs included, without executions.

        An order that cannot be read is logged and left out, so that one odd order of somebody else on the
        account does not hide all others.

        :raises NotSent: Alpaca could not be asked, or asked us to wait.
        :raises OutcomeUnknown: Alpaca did not answer.
        """
        return all_open_orders(self._transport)

    def positions(self) -> list[BrokerPosition]:
        """Return every holding."""
        page = body_of(self._transport.ask("/positions"), list, subject="positions")
        with translating("positions"):
            return [broker_position(position) for position in page]

    def account(self) -> BrokerAccount:
        """Return the account's money."""
        body = body_of(self._transport.ask("/account"), dict, subject="account")
        with translating("account"):
            return broker_account(body)

    def instrument(self, symbol: str) -> InstrumentFacts | None:
        """Return Alpaca's facts on a symbol, or None when it has no such instrument."""
        answer = self._transport.ask(f"/assets/{quote(symbol, safe='')}")
        if is_not_found(answer):
            return None
        body = body_of(answer, dict, subject=f"instrument {symbol}")
        with translating(f"instrument {symbol}"):
            return instrument_facts(body)

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars of the given length in seconds, oldest first, in today's terms after splits.

        :raises Refused: Alpaca has no bars of this length.
        """
        return all_bars(self._transport, symbol=symbol, start=start, end=end, seconds=seconds)

    def watch_orders(
        self,
        *,
        on_reports: Callable[[Sequence[OrderReport]], None],
        on_connected: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """Follow the order updates stream, reconnecting by itself, until `until()` is true.

        `on_connected` runs after each (re)connect: nothing missed is replayed, the caller takes a snapshot.
        """
        alpaca_stream.watch(
            url=self._stream_url,
            key=self._key,
            secret=self._secret,
            on_reports=on_reports,
            on_connected=on_connected,
            until=until,
        )


def _subject(verb: str, ref: OrderRef) -> str:
    return f"{verb} {ref.client_order_id or ref.broker_order_id}"
