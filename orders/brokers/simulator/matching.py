"""The fill model: one order against one quote, and what becomes of it. Pure; the quote has no depth.

Buys trade at the ask, sells at the bid. docs/simulator.md says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from .records import BUY, Order

HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Quote:
    """The best prices of a symbol and its last trade, at a wall-clock time."""

    symbol: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    at: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a quote does to an order: its stop is touched, its trail moves, it executes at a price."""

    elected: bool
    hwm: Decimal | None
    stop_price: Decimal | None
    price: Decimal | None


def tradable_price(*, side: str, quote: Quote) -> Decimal:
    """Return the price that an order of this side would get now."""
    return quote.ask if side == BUY else quote.bid


def is_touched(*, side: str, stop_price: Decimal, price: Decimal) -> bool:
    """Return whether a stop of this side is reached: a sell from above, a buy from below."""
    return price >= stop_price if side == BUY else price <= stop_price


def is_marketable(*, side: str, limit_price: Decimal, price: Decimal) -> bool:
    """Return whether the tradable price is the limit or better."""
    return price <= limit_price if side == BUY else price >= limit_price


def follow(
    *,
    side: str,
    price: Decimal,
    hwm: Decimal | None,
    trail_price: Decimal | None,
    trail_percent: Decimal | None,
) -> tuple[Decimal, Decimal]:
    """Return the high water mark (for a buy the low) and the stop of a trailing order at this price."""
    best = price if hwm is None else min(hwm, price) if side == BUY else max(hwm, price)
    distance = trail_price if trail_price is not None else best * (trail_percent or Decimal(0)) / HUNDRED
    return best, best + distance if side == BUY else best - distance


def decide(order: Order, quote: Quote) -> Decision:
    """Return what this quote does to this order.

    A stop that is gapped through executes at the gapped quote; a limit executes at the quote when
    that is the limit or better, so always at the better of the two.
    """
    price = tradable_price(side=order.side, quote=quote)
    hwm, stop_price, elected = order.hwm, order.stop_price, order.elected
    if order.type == "trailing_stop" and not elected:
        hwm, stop_price = follow(
            side=order.side,
            price=price,
            hwm=hwm,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
        )
    if not elected and stop_price is not None:
        elected = is_touched(side=order.side, stop_price=stop_price, price=price)
        if not elected:
            return Decision(elected=False, hwm=hwm, stop_price=stop_price, price=None)
    if order.limit_price is not None and not is_marketable(side=order.side, limit_price=order.limit_price, price=price):
        return Decision(elected=elected, hwm=hwm, stop_price=stop_price, price=None)
    return Decision(elected=elected, hwm=hwm, stop_price=stop_price, price=price)


def average_in(
    *, held_qty: Decimal, held_price: Decimal, traded_qty: Decimal, price: Decimal
) -> tuple[Decimal, Decimal]:
    """Return the signed quantity and average entry price after a signed trade.

    The average moves when the position grows, stays when it shrinks, and starts anew when it turns.
    """
    qty = held_qty + traded_qty
    if qty == 0:
        return qty, Decimal(0)
    if held_qty == 0 or (held_qty > 0) != (qty > 0):
        return qty, price
    if (held_qty > 0) == (traded_qty > 0):
        return qty, (held_qty * held_price + traded_qty * price) / qty
    return qty, held_price
