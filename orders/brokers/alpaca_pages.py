"""What Alpaca hands out in pages, read to the end: open orders, the fills of one order, historical bars; and quotes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from orders.brokers.alpaca_payloads import (
    ENDED,
    activity_execution,
    flat_orders,
    order_report,
    price_bar,
    timeframe,
)
from orders.brokers.alpaca_refusals import body_of, translating
from orders.brokers.alpaca_transport import AlpacaTransport
from orders.brokers.exact import Unreadable, to_decimal, to_time
from orders.brokers.protocol import Execution, OrderReport, PriceBar
from orders.errors import NotSent, RefusalKind, Refused

logger = logging.getLogger(__name__)

_ORDERS_A_PAGE: Final = 500
_FILLS_A_PAGE: Final = 100
_MOST_FILL_PAGES: Final = 50
_BARS_A_PAGE: Final = 10_000
#: Clocks of order and fill differ a little; fills are looked for this much around the order's own times.
_SLACK: Final = timedelta(seconds=2)


def executions_of(
    order: Mapping[str, Any], *, report: OrderReport, transport: AlpacaTransport
) -> tuple[Execution, ...]:
    """Return the executions of one order, oldest first, out of the account's fills.

    They cannot be asked for by order, so the newest fills up to the order's last change are read backwards
    until they make up its filled quantity. Fewer come back where Alpaca's activities lag behind its orders.
    """
    window: dict[str, object] = {
        "direction": "desc",
        "page_size": _FILLS_A_PAGE,
        "after": _text(_submitted_at(order) - _SLACK),
        "until": _text(report.at + _SLACK),
    }
    found: dict[str, Execution] = {}
    for _ in range(_MOST_FILL_PAGES):
        page = body_of(
            transport.ask("/account/activities/FILL", window), list, subject=f"fills {report.client_order_id}"
        )
        fills = [activity_execution(fill) for fill in page if fill.get("order_id") == report.broker_order_id]
        found |= {fill.execution_id: fill for fill in fills}
        if len(page) < _FILLS_A_PAGE or sum(f.quantity for f in found.values()) >= report.filled_quantity:
            break
        window["page_token"] = page[-1]["id"]
    return tuple(sorted(found.values(), key=lambda fill: (fill.at, fill.execution_id)))


def all_open_orders(transport: AlpacaTransport) -> list[OrderReport]:
    """Return every order that is not terminal, legs included."""
    params: dict[str, object] = {
        "status": "open",
        "nested": "true",
        "direction": "asc",
        "limit": _ORDERS_A_PAGE,
    }
    found: dict[str, OrderReport] = {}
    seen: set[str] = set()
    while True:
        page = body_of(transport.ask("/orders", params), list, subject="open orders")
        with translating("open orders"):
            for order in flat_orders(page):
                _take_open(order, into=found)
            fresh = {order["id"] for order in page} - seen
            if len(page) < _ORDERS_A_PAGE or not fresh:
                return list(found.values())
            seen |= fresh
            # orders of one instant may lie on both sides of the page's end: start again just before it
            params["after"] = _text(_submitted_at(page[-1]) - timedelta(microseconds=1))


def _take_open(order: Mapping[str, Any], *, into: dict[str, OrderReport]) -> None:
    try:
        report = order_report(order)
    except Unreadable:
        logger.exception("order_unreadable broker_order_id=%s", order.get("id"))
        return
    if report.state not in ENDED:
        into[report.broker_order_id] = report


def all_bars(
    transport: AlpacaTransport, *, symbol: str, start: datetime, end: datetime, seconds: int
) -> list[PriceBar]:
    """Return historical bars, oldest first, adjusted for splits.

    :raises Refused: Alpaca has no bars of this length.
    """
    if (length := timeframe(seconds)) is None:
        raise Refused(
            f"there are no bars of {seconds} seconds; use 1 to 59 minutes, 1 to 23 hours, a day or a week",
            kind=RefusalKind.INVALID,
            permanent=True,
        )
    params: dict[str, object] = {
        "symbols": symbol,
        "timeframe": length,
        "start": _text(start),
        "end": _text(end),
        "limit": _BARS_A_PAGE,
    }
    path, version = "/crypto/us/bars", "v1beta3"
    if not is_crypto(symbol):
        path, version = "/stocks/bars", "v2"
        params |= {"adjustment": "split", "feed": "iex"}
    found: list[PriceBar] = []
    while True:
        subject = f"bars {symbol}"
        body = body_of(transport.ask_data(path, params, version=version), dict, subject=subject)
        with translating(subject):
            found += [price_bar(symbol, bar) for bar in (body.get("bars") or {}).get(symbol) or ()]
        if not body.get("next_page_token"):
            return found
        params["page_token"] = body["next_page_token"]


def is_crypto(symbol: str) -> bool:
    """Return whether a symbol is a pair of currencies, which trades at all hours."""
    return "/" in symbol


def latest_quote(transport: AlpacaTransport, symbol: str) -> tuple[Decimal, Decimal]:
    """Return the best bid and ask.

    :raises NotSent: there is none on both sides.
    """
    subject = f"quote {symbol}"
    answer = transport.ask_data("/stocks/quotes/latest", {"symbols": symbol, "feed": "iex"})
    body = body_of(answer, dict, subject=subject)
    with translating(subject):
        quote = (body.get("quotes") or {}).get(symbol) or {}
        bid, ask = to_decimal(quote.get("bp") or 0), to_decimal(quote.get("ap") or 0)
    if bid <= 0 or ask <= 0:
        raise NotSent(f"{subject}: nobody bids and asks now")
    return bid, ask


def _submitted_at(order: Mapping[str, Any]) -> datetime:
    return to_time(order.get("submitted_at") or order["created_at"])


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
