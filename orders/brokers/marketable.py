"""The limit at which an order trades at once, for venues and hours that take no market orders; US equity ticks."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from orders.brokers.protocol import OrderSide

_DOLLAR: Final = Decimal(1)
_CENT, _SUB_CENT = Decimal("0.01"), Decimal("0.0001")


def marketable_limit(side: OrderSide, *, price: Decimal, beyond: Decimal) -> Decimal:
    """Return a limit that lies a fraction beyond a price, rounded outward to the tick.

    Ticks are a cent from one dollar on, a hundredth of a cent below.
    """
    limit = price * (1 + side.sign * beyond)
    tick = _CENT if limit >= _DOLLAR else _SUB_CENT
    rounding = ROUND_FLOOR if side is OrderSide.SELL else ROUND_CEILING
    return max((limit / tick).to_integral_value(rounding=rounding) * tick, tick)
