"""The opening and the close of the market, which only control brings about."""

from __future__ import annotations

from datetime import datetime

from .exchange import Exchange
from .records import stamp


def open_session(exchange: Exchange, *, now: datetime) -> None:
    """Open the market: what was accepted becomes new; on-open orders fill or are canceled."""
    if exchange.book.is_open:
        return
    at = stamp(now)
    _set_open(exchange, value=True)
    for order in sorted(exchange.book.open.values(), key=lambda order: order.seq):
        if order.status == "accepted" and order.time_in_force == "opg":
            exchange.work(order, at=at)
            exchange.fills.close(order, status="canceled", at=at)
        elif order.status == "accepted":
            exchange.activate(order.id, at=at)
        else:
            exchange.fills.match(order, at=at)


def close_session(exchange: Exchange, *, now: datetime) -> None:
    """Close the market: on-close orders fill or are canceled, day orders expire."""
    if not exchange.book.is_open:
        return
    at = stamp(now)
    orders = sorted(exchange.book.open.values(), key=lambda order: order.seq)
    for order in orders:
        if order.status == "accepted" and order.time_in_force == "cls":
            exchange.work(order, at=at)
            exchange.fills.close(order, status="canceled", at=at)
    _set_open(exchange, value=False)
    for order in orders:
        if order.is_open and order.time_in_force == "day" and order.parent_id is None:
            legs = exchange.book.group(order) if order.role else []
            exchange.fills.close(order, status="expired", at=at)
            for leg in legs:
                exchange.fills.close(leg, status="expired" if leg.armed else "canceled", at=at)
    for order in orders:
        if order.is_open and order.time_in_force == "day":
            exchange.fills.close(order, status="expired", at=at)


def _set_open(exchange: Exchange, *, value: bool) -> None:
    exchange.book.is_open = value
    exchange.book.set_setting("is_open", "1" if value else "0")
