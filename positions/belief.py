"""Whether a price may be believed. Pure: the last accepted price, a new print and limits in, a verdict out.

A price that is not believed never reaches a row, so it can never trigger an exit.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple, Self

from positions.feeds.protocol import Tick

MAX_AGE: Final = timedelta(seconds=60)
MAX_AHEAD: Final = timedelta(seconds=5)
#: What the price columns can hold: 20 digits before the point, 18 after it.
SMALLEST: Final = Decimal("1e-18")
TOO_LARGE: Final = Decimal("1e20")


class Refusal(StrEnum):
    """Why a print was not believed; the words under which it is counted."""

    NO_PRICE = "no_price"
    NOT_A_NUMBER = "not_a_number"
    NOT_POSITIVE = "not_positive"
    OUT_OF_RANGE = "out_of_range"  # smaller or larger than a price column can hold
    CROSSED = "crossed"
    SPREAD_TOO_WIDE = "spread_too_wide"
    OLDER_THAN_LAST = "older_than_last"
    STALE = "stale"
    AHEAD_OF_CLOCK = "ahead_of_clock"
    OUTSIDE_COLLAR = "outside_collar"


class View(NamedTuple):
    """The last accepted price of one instrument."""

    bid: Decimal
    ask: Decimal
    last: Decimal
    source_at: datetime


class Limits(NamedTuple):
    """How old, how far ahead of our clock, how far from the last price and how wide a believable print may be."""

    oldest: datetime
    newest: datetime
    collar_pct: Decimal
    max_spread_pct: Decimal | None = None  # of the mid; None means any spread is believed

    @classmethod
    def at(
        cls,
        now: datetime,
        *,
        collar_pct: Decimal,
        max_age: timedelta = MAX_AGE,
        max_spread_pct: Decimal | None = None,
    ) -> Self:
        """Return the limits that hold at a moment."""
        return cls(now - max_age, now + MAX_AHEAD, collar_pct, max_spread_pct)


class Suspect(NamedTuple):
    """A print outside the collar that waits for a second one: the price that strayed, and the print whole."""

    price: Decimal
    view: View


class Verdict(NamedTuple):
    """The accepted `view` or the `refusal`; `suspect` is what now waits for a second print."""

    view: View | None
    refusal: Refusal | None
    suspect: Suspect | None


def judge(tick: Tick, *, seen: View | None, suspect: Suspect | None, limits: Limits) -> Verdict:
    """Return whether a print is accepted, refused, or held as suspect until a second print confirms it.

    `seen` is the last accepted price, None before the first one, which has no collar to stay in. A later print near
    the suspect confirms it (the same one told twice does not), an ordinary one clears it.
    """
    refusal = _malformed(tick)
    if refusal is None:
        view = complete(tick, seen=seen)
        refusal = (
            (Refusal.CROSSED if view.bid > view.ask else None)
            or _untimely(tick.source_at, seen=seen, limits=limits)
            or _too_wide(tick, limits=limits)
        )
    if refusal is not None:
        return Verdict(None, refusal, suspect)
    if seen is None:
        return Verdict(view, None, None)
    strayed = _strayed(tick, view, seen=seen, collar_pct=limits.collar_pct)
    if strayed is None or _confirms(strayed, tick.source_at, suspect=suspect, collar_pct=limits.collar_pct):
        return Verdict(view, None, None)
    return Verdict(None, Refusal.OUTSIDE_COLLAR, Suspect(strayed, view))


def complete(tick: Tick, *, seen: View | None) -> View:
    """Return the print with its missing sides filled in.

    A missing bid or ask is the last price, this print's or the one before it, held back so that it does not cross
    the known side. A missing last price stays what it was, and is the mid before there was one.
    """
    bid, ask, last = tick.bid, tick.ask, tick.last
    if last is None and seen is not None:
        last = seen.last
    if bid is None:
        stand_in = ask if last is None else last
        assert stand_in is not None  # noqa: S101 - a print without any price is refused before
        bid = stand_in if ask is None else min(stand_in, ask)
    if ask is None:
        ask = bid if last is None else max(last, bid)
    if last is None:
        last = (bid + ask) / 2
    return View(bid, ask, last, tick.source_at)


def _malformed(tick: Tick) -> Refusal | None:
    prices = [price for price in (tick.bid, tick.ask, tick.last) if price is not None]
    if not prices:
        return Refusal.NO_PRICE
    if not all(price.is_finite() for price in prices):
        return Refusal.NOT_A_NUMBER
    if min(prices) <= 0:
        return Refusal.NOT_POSITIVE
    if min(prices) < SMALLEST or max(prices) >= TOO_LARGE:
        return Refusal.OUT_OF_RANGE
    return None


def _untimely(at: datetime, *, seen: View | None, limits: Limits) -> Refusal | None:
    if seen is not None and at < seen.source_at:
        return Refusal.OLDER_THAN_LAST
    if at < limits.oldest:
        return Refusal.STALE
    if at > limits.newest:
        return Refusal.AHEAD_OF_CLOCK
    return None


def is_too_wide(bid: Decimal, ask: Decimal, *, max_spread_pct: Decimal) -> bool:
    """Return whether a spread is more than so many percent of the mid."""
    return (ask - bid) * 200 > (ask + bid) * max_spread_pct


def _too_wide(tick: Tick, *, limits: Limits) -> Refusal | None:
    """Return a refusal of a spread that was quoted; a side that was filled in says nothing about it."""
    if limits.max_spread_pct is None or tick.bid is None or tick.ask is None:
        return None
    too_wide = is_too_wide(tick.bid, tick.ask, max_spread_pct=limits.max_spread_pct)
    return Refusal.SPREAD_TOO_WIDE if too_wide else None


def _strayed(tick: Tick, view: View, *, seen: View, collar_pct: Decimal) -> Decimal | None:
    """Return the price that is outside the collar, the most distant if several are.

    Each side of the book is compared with itself, the last price with the book: a book that has moved on,
    confirmed, carries the next trade with it.
    """
    compared = [(view.bid, seen.bid), (view.ask, seen.ask)]
    if tick.last is not None:
        compared.append((view.last, min(max(view.last, seen.bid), seen.ask)))
    strayed = [
        (abs(price - reference) / reference, price)
        for price, reference in compared
        if _beyond(price, reference, collar_pct)
    ]
    return max(strayed)[1] if strayed else None


def _confirms(price: Decimal, at: datetime, *, suspect: Suspect | None, collar_pct: Decimal) -> bool:
    if suspect is None or at <= suspect.view.source_at:
        return False
    return not _beyond(price, suspect.price, collar_pct)


def _beyond(price: Decimal, reference: Decimal, collar_pct: Decimal) -> bool:
    return abs(price - reference) * 100 > reference * collar_pct
