"""Stock splits: telling one by what it does to quantity and cost, and what it does to figures. Pure arithmetic."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Final

#: A broker keeps what was paid and divides it anew; what it rounds to the cent must not hide a split.
COST_TOLERANCE: Final = Decimal("0.02")
#: Splits that happen: n for 1 and 1 for n up to 100, and the usual odd ones.
_ODD: Final = tuple(Fraction(*pair) for pair in ((3, 2), (4, 3), (5, 2), (5, 3), (5, 4), (6, 5), (7, 2), (7, 4)))
FACTORS: Final[tuple[Fraction, ...]] = tuple(
    sorted({*(Fraction(n) for n in range(2, 101)), *(Fraction(1, n) for n in range(2, 101)), *_ODD,
            *(1 / odd for odd in _ODD)})
)  # fmt: skip
_RATIO: Final = re.compile(r"(\d{1,3})(?::(\d{1,3}))?", re.ASCII)


def split_factor(
    *, held: Decimal, price: Decimal, held_now: Decimal, price_now: Decimal, lot: Decimal = Decimal(1)
) -> Fraction | None:
    """Return the factor a quantity was multiplied by, if both sides look like a split, else None.

    `held` units were bought at `price`; the broker says `held_now` at `price_now`. A trade changes what was paid in
    all, a split does not; a fraction of a unit may have been paid out in cash.
    """
    if min(held, price, held_now, price_now) <= 0:
        return None
    room = max(lot, Decimal(1))
    found = []
    for factor in FACTORS:
        wanted = scaled(held, factor)
        if wanted >= 1 and wanted - room < held_now <= wanted:
            error = abs(scaled(price_now, factor) / price - 1)
            if error <= COST_TOLERANCE:
                found.append((error, factor))
    return min(found)[1] if found else None


def is_whole_multiple(*, held: Decimal, held_now: Decimal) -> bool:
    """Return whether a quantity is exactly what some split would make of another one, whatever it cost."""
    return held > 0 and any(scaled(held, factor) == held_now for factor in FACTORS)


def parse_ratio(text: str) -> Fraction:
    """Return the factor written as 4:1, 1:10, 3:2 or 4.

    :raises ValueError: it is no ratio, or none that changes anything.
    """
    match = _RATIO.fullmatch(text.strip())
    new, old = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if not new or not old or new == old:
        raise ValueError(f"{text!r} is no ratio; write 4:1 for four new shares for one old, 1:10 for the reverse")
    return Fraction(new, old)


def spell_ratio(factor: Fraction) -> str:
    """Return a factor as new:old."""
    return f"{factor.numerator}:{factor.denominator}"


def scaled(quantity: Decimal, factor: Fraction) -> Decimal:
    """Return a quantity after a split, to the last digit a column holds."""
    return _times(quantity, factor)


def price_after(price: Decimal, factor: Fraction) -> Decimal:
    """Return a price, a distance or a range after a split."""
    return _times(price, 1 / factor)


def _times(number: Decimal, factor: Fraction) -> Decimal:
    with localcontext(prec=80):
        product = number * factor.numerator / factor.denominator
        return product.quantize(Decimal("1e-18"), rounding=ROUND_HALF_EVEN)
