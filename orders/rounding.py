"""Rounding to an instrument's increments. A stop is never loosened and a quantity never rounded up."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Final

from positions.values import Side

ZERO: Final = Decimal(0)
#: The finest a column holds, and the lot where there is none: else each rung would add digits to the rest.
FINEST: Final = Decimal("1e-18")


def _round_down(value: Decimal, *, step: Decimal) -> Decimal:
    if not step:
        return value
    # a quotient could be rounded up to the next whole number; a remainder is exact, given room for the digits
    with localcontext(prec=80):
        return value - value % step


def _round_up(value: Decimal, *, step: Decimal) -> Decimal:
    down = _round_down(value, step=step)
    return down if down == value else down + step


def round_quantity(quantity: Decimal, *, lot: Decimal) -> Decimal:
    """Return the quantity in whole lots, rounded down so that more is never sold than is held."""
    return _round_down(quantity, step=lot)


def exit_quantity(*, fraction_pct: Decimal, remaining: Decimal, available: Decimal, lot: Decimal) -> Decimal:
    """Return how much to sell for a rung of `fraction_pct` percent of what remains; zero if all is reserved.

    Everything (100 percent) is sold to the last fraction of a lot; a part is rounded down to whole lots, and
    a part too small for one lot sells one lot, or the rest if that is less. Never more than `available`.
    """
    sellable = max(ZERO, min(remaining, available))
    if fraction_pct >= 100:
        return sellable
    step = lot or FINEST
    part = round_quantity(min(remaining * fraction_pct / 100, sellable), lot=step)
    return part or min(step, sellable)


def round_stop(price: Decimal, *, tick: Decimal, side: Side) -> Decimal:
    """Return a stop price on the tick grid, rounded towards the market (up for a long, down for a short)."""
    return _round_up(price, step=tick) if side is Side.LONG else _round_down(price, step=tick)


def round_target(price: Decimal, *, tick: Decimal, side: Side) -> Decimal:
    """Return a target price on the tick grid, rounded towards the market: it fills no later than asked."""
    return _round_down(price, step=tick) if side is Side.LONG else _round_up(price, step=tick)
