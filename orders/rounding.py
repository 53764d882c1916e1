"""Rounding to an instrument's increments. A stop is never loosened, more is never sold than is held, and no rest is
left that could not be sold."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, localcontext
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


def exit_quantity(
    *,
    fraction_pct: Decimal,
    remaining: Decimal,
    available: Decimal,
    lot: Decimal,
    dust: Decimal = ZERO,
    min_notional: Decimal = ZERO,
    price: Decimal | None = None,
) -> Decimal:
    """Return how much to sell for a rung of `fraction_pct` percent of what remains; zero if all is reserved.

    Everything (100 percent) is sold to the last fraction of a lot, however small: what protects is never refused here.
    A part is rounded down to whole lots; one that is smaller than a lot, or worth less than `min_notional` at `price`,
    is raised to the smallest number of lots that the venue takes. Where the rest would be less than `dust`, or worth
    less than `min_notional`, the part takes it along. Without a price nothing is known of worth. Never more than
    `available`.
    """
    sellable = max(ZERO, min(remaining, available))
    if fraction_pct >= 100:
        return sellable
    step = lot or FINEST
    smallest = smallest_order(lot=lot, min_notional=min_notional, price=price)
    part = max(round_quantity(min(remaining * fraction_pct / 100, sellable), lot=step), smallest)
    rest = sellable - part
    if rest < dust or (price is not None and rest * price < min_notional):
        return sellable
    return min(part, sellable)


def smallest_order(*, lot: Decimal, min_notional: Decimal, price: Decimal | None) -> Decimal:
    """Return the smallest quantity the venue takes, in whole lots; without a price that is one lot."""
    step = lot or FINEST
    if price is None or not min_notional:
        return step
    with localcontext(prec=80, rounding=ROUND_CEILING):  # a quotient rounded down would be worth a hair too little
        return max(step, _round_up(min_notional / price, step=step))


def round_stop(price: Decimal, *, tick: Decimal, side: Side) -> Decimal:
    """Return a stop price on the tick grid, rounded towards the market (up for a long, down for a short)."""
    return _round_up(price, step=tick) if side is Side.LONG else _round_down(price, step=tick)


def round_target(price: Decimal, *, tick: Decimal, side: Side) -> Decimal:
    """Return a target price on the tick grid, rounded towards the market: it fills no later than asked."""
    return _round_down(price, step=tick) if side is Side.LONG else _round_up(price, step=tick)


def limit_for_exit(
    *, level: Decimal, side: Side, tick: Decimal, protective: bool, max_slippage_bps: int = 0
) -> Decimal:
    """Return the limit price of an exit that a level has fired, on the tick grid and at least one tick.

    A target's is the level, rounded towards the market: it asks for no more than the plan did. A protective one gives
    way by `max_slippage_bps` hundredths of a percent of the level, and is rounded so that it fills: down for a sale
    (`side` is the position's: a long sells), up for a purchase.
    """
    if protective:
        level *= 1 - side * Decimal(max_slippage_bps) / 10_000
    return max(round_target(level, tick=tick, side=side), tick)
