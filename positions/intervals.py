"""What a run of prints comes to: the newest believable price and the extremes of all believable ones. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from operator import le
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from positions.belief import SMALLEST, TOO_LARGE, Limits, Refusal, Suspect, View, is_too_wide, judge
from positions.feeds.protocol import Tick


class Interval(NamedTuple):
    """The newest accepted price and the extremes of all accepted ones; `opening` is the first last price.

    The mid's are those of bid and ask of one print: the lowest bid and the lowest ask may belong to different ones.
    """

    bid: Decimal
    ask: Decimal
    last: Decimal
    source_at: datetime
    bid_low: Decimal
    bid_high: Decimal
    ask_low: Decimal
    ask_high: Decimal
    last_low: Decimal
    last_high: Decimal
    mid_low: Decimal
    mid_high: Decimal
    opening: Decimal


class Summary(NamedTuple):
    """What one instrument's prints came to; no interval when none was believed. Refusals are counted by reason."""

    interval: Interval | None
    suspect: Suspect | None
    refused: Mapping[Refusal, int]
    refused_prices: Mapping[Refusal, str]  # the last one of each reason, as bid/ask/last


#: Room for the sum of two prices of a column's 38 digits, and for its half.
_EXACT: Final = Context(prec=40)
_HALF: Final = Decimal("0.5")
_NOTHING: Final[Mapping[Refusal, Any]] = MappingProxyType({})


def sum_up(ticks: Sequence[Tick], *, seen: View | None, suspect: Suspect | None, limits: Limits) -> Summary:
    """Judge one instrument's prints in their order and sum up the believable ones."""
    interval = _all_plain(ticks, seen=seen, limits=limits)
    if interval is not None:
        return Summary(interval, None, _NOTHING, _NOTHING)
    return _one_by_one(ticks, seen=seen, suspect=suspect, limits=limits)


def interval_of(view: View) -> Interval:
    """Return the interval of a single accepted print."""
    return _interval([view.bid], [view.ask], [view.last], view.source_at)


def _all_plain(ticks: Sequence[Tick], *, seen: View | None, limits: Limits) -> Interval | None:
    """Return the interval if every print is plainly believable, else None, which says nothing yet.

    Whole columns are compared at C speed. Prices that all lie, with the last accepted ones, in a span no
    wider than the collar allows from its bottom are within the collar of each other, whatever their order.
    """
    times = [tick.source_at for tick in ticks]
    # a price that is missing after all makes a comparison below raise TypeError
    bids = cast(list[Decimal], [tick.bid for tick in ticks])
    asks = cast(list[Decimal], [tick.ask for tick in ticks])
    lasts = cast(list[Decimal], [tick.last for tick in ticks])
    try:
        if bids.count(None) == len(ticks) == asks.count(None):  # type: ignore[arg-type]
            bids = asks = lasts
        told = [price for price in lasts if price is not None]
        compared = bids + asks + told
        lasts = told
        if ticks[0].last is None:  # the one before it still stood
            lasts = [seen.last if seen is not None else (bids[0] + asks[0]) / 2, *told]
        if seen is not None:
            compared += [seen.bid, seen.ask]
        low, high = min(compared), max(compared)
        plain = (
            low >= SMALLEST
            and high < TOO_LARGE
            and (high - low) * 100 <= low * limits.collar_pct
            and all(map(le, bids, asks))
            and all(map(le, times, times[1:]))
            and limits.oldest <= times[0]
            and times[-1] <= limits.newest
            and (seen is None or seen.source_at <= times[0])
            and (limits.max_spread_pct is None or _all_narrow(bids, asks, max_spread_pct=limits.max_spread_pct))
        )
    except (InvalidOperation, TypeError):  # a price that is not a number, or not there
        return None
    if not plain:
        return None
    return _interval(bids, asks, lasts, times[-1])


def _all_narrow(bids: Sequence[Decimal], asks: Sequence[Decimal], *, max_spread_pct: Decimal) -> bool:
    return not any(is_too_wide(bid, ask, max_spread_pct=max_spread_pct) for bid, ask in zip(bids, asks, strict=True))


def _interval(bids: Sequence[Decimal], asks: Sequence[Decimal], lasts: Sequence[Decimal], at: datetime) -> Interval:
    sums = list(map(_EXACT.add, bids, asks))
    return Interval(
        bids[-1], asks[-1], lasts[-1], at,
        min(bids), max(bids), min(asks), max(asks), min(lasts), max(lasts),
        _EXACT.multiply(min(sums), _HALF), _EXACT.multiply(max(sums), _HALF), lasts[0],
    )  # fmt: skip


def _one_by_one(ticks: Sequence[Tick], *, seen: View | None, suspect: Suspect | None, limits: Limits) -> Summary:
    accepted: list[View] = []
    refused: Counter[Refusal] = Counter()
    refused_prices: dict[Refusal, str] = {}
    for tick in ticks:
        verdict = judge(tick, seen=seen, suspect=suspect, limits=limits)
        suspect = verdict.suspect
        if verdict.view is not None:
            seen = verdict.view
            accepted.append(seen)
        elif verdict.refusal is not None:
            refused[verdict.refusal] += 1
            refused_prices[verdict.refusal] = f"{tick.bid}/{tick.ask}/{tick.last}"
    if not accepted:
        return Summary(None, suspect, refused, refused_prices)
    interval = _interval(
        [view.bid for view in accepted],
        [view.ask for view in accepted],
        [view.last for view in accepted],
        accepted[-1].source_at,
    )
    return Summary(interval, suspect, refused, refused_prices)
