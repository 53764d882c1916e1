"""What has to be asked before some requests to Alpaca leave. Where that fails, nothing has left: NotSent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Final
from urllib.parse import quote

from orders.brokers.alpaca_pages import latest_quote
from orders.brokers.alpaca_payloads import order_report
from orders.brokers.alpaca_refusals import body_of, is_not_found, translating
from orders.brokers.alpaca_transport import AlpacaTransport
from orders.brokers.marketable import marketable_limit
from orders.brokers.protocol import OrderSide, OrderType, Replacement, SubmitRequest, TimeInForce
from orders.errors import NotSent, OutcomeUnknown, RefusalKind, Refused

#: How far beyond the quote a market order may trade that has to be a limit, because no session is open.
MOST_BEYOND_QUOTE: Final = Decimal("0.01")


@contextmanager
def _before_anything_left() -> Iterator[None]:
    try:
        yield
    except OutcomeUnknown as error:
        raise NotSent(str(error)) from error


def for_this_hour(request: SubmitRequest, *, transport: AlpacaTransport) -> SubmitRequest:
    """Return a market order for all hours as it can trade now: outside the session as a limit beyond the quote.

    :raises NotSent: there is no quote, or Alpaca did not say whether the session is open.
    """
    with _before_anything_left():
        clock = body_of(transport.ask("/clock"), dict, subject=f"submit {request.client_order_id}")
        if clock.get("is_open") is True:
            return replace(request, extended_hours=False)
        bid, ask = latest_quote(transport, request.symbol)
    price = bid if request.side is OrderSide.SELL else ask
    limit = marketable_limit(request.side, price=price, beyond=MOST_BEYOND_QUOTE)
    return replace(request, order_type=OrderType.LIMIT, limit_price=limit, time_in_force=TimeInForce.DAY)


def for_the_rest(change: Replacement, *, broker_order_id: str, transport: AlpacaTransport) -> Replacement:
    """Return a change that names what is left of an order in part filled.

    Alpaca was seen to take the whole quantity anew where none is named, and to trade it once more.

    :raises NotSent: Alpaca did not say how much is left.
    :raises Refused: there is no such order.
    """
    subject = f"replace {broker_order_id}"
    with _before_anything_left():
        answer = transport.ask(f"/orders/{quote(broker_order_id, safe='')}")
        if is_not_found(answer):
            raise Refused(f"there is no order {broker_order_id}", kind=RefusalKind.NOT_FOUND, permanent=True)
        order = body_of(answer, dict, subject=subject)
        with translating(subject):
            report = order_report(order)
    left = report.quantity - report.filled_quantity
    return replace(change, quantity=left) if report.filled_quantity and left else change
