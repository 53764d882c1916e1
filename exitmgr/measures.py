"""What a plan is compiled on: gathered for a position from its bars, its sessions and its fees.

Missing data is never an error here: a range that cannot be measured carries its reason, a calendar that has run out is
stood in for by the usual hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, TypeVar

from exitmgr.rules.atr import LONGEST_CLOSE, MOST_BARS
from exitmgr.rules.compile import FALLBACK_PCT, Entry, Range
from exitmgr.rules.plan import Plan
from exitmgr.rules.regime import Reading, read_regime
from exitmgr.rules.volatility import Relative, estimator_named, measure_relative
from positions.bars import bars_of_minutes, recent_bars
from positions.calendars import ALWAYS_OPEN, UnknownCalendar, usual_close
from positions.models import Instrument, Position
from positions.sessions import NoSessions, next_close
from positions.values import Candle, Side

log = logging.getLogger(__name__)

#: Daily bars: what a stop by range usually means.
BAR_SECONDS: Final = 86_400
_MINUTE_SECONDS: Final = 60
_Measure = TypeVar("_Measure", Range, Reading, Relative)


def entry_of(
    *,
    position: Position,
    plan: Plan,
    now: datetime,
    bar_seconds: int = BAR_SECONDS,
    estimator: str = "atr",
    fallback_pct: Decimal = FALLBACK_PCT,
    closes_after: datetime | None = None,
) -> Entry:
    """Return what a position's plan is compiled on.

    Ranges are measured on the bars that were finished when the position was opened, so that compiling again says the
    same. The session is the one the position was opened in or before; for a plan that is given later, `closes_after`
    names another moment.

    :raises ValueError: there is no such estimator.
    """
    opened_at, instrument = position.opened_at, position.instrument
    return Entry(
        side=Side(position.side),
        price=position.average_entry,
        opened_at=opened_at,
        ranges=_ranges(instrument, plan, at=opened_at, bar_seconds=bar_seconds, estimator=estimator),
        closes_at=close_of(instrument, after=closes_after or opened_at) if plan.session_close else None,
        fee_per_unit=position.fees / position.quantity,
        fallback_pct=fallback_pct,
        now=now,
    )


def expected_entry(
    *,
    instrument: Instrument,
    side: Side,
    price: Decimal,
    plan: Plan,
    now: datetime,
    bar_seconds: int = BAR_SECONDS,
    estimator: str = "atr",
    fallback_pct: Decimal = FALLBACK_PCT,
) -> Entry:
    """Return what a plan would be compiled on if its entry filled now.

    :raises ValueError: there is no such estimator.
    """
    return Entry(
        side=side,
        price=price,
        opened_at=now,
        ranges=_ranges(instrument, plan, at=now, bar_seconds=bar_seconds, estimator=estimator),
        closes_at=close_of(instrument, after=now) if plan.session_close else None,
        fallback_pct=fallback_pct,
    )


def read_market(
    *, instrument: Instrument, now: datetime, period: int = 14, bar_seconds: int = BAR_SECONDS
) -> tuple[Reading, Relative]:
    """Return the kind of market an instrument is in and how volatile it is, from its stored bars."""
    bars = _Bars(instrument, at=now, seconds=bar_seconds)
    where: Any = {"at": now, "bar_seconds": bar_seconds, "closed_for": _closed_for(instrument)}
    reading = _best(bars, lambda some: read_regime(some, adx_period=max(period, 2), **where))
    return reading, _best(bars, lambda some: measure_relative(some, period=period, **where))


def close_of(instrument: Instrument, *, after: datetime) -> datetime | None:
    """Return when the session of an instrument's exchange ends next, None where it never closes.

    Where the table of sessions does not reach, the exchange's usual hours stand in, or New York's for an unknown one.
    """
    calendar = instrument.calendar
    try:
        return next_close(calendar, after)
    except NoSessions as error:
        log.warning("sessions_missing symbol=%s error=%s", instrument, error)
    try:
        return usual_close(calendar, after=after)
    except UnknownCalendar as error:
        log.warning("calendar_unknown symbol=%s error=%s", instrument, error)
        return usual_close("XNYS", after=after)


def _ranges(instrument: Instrument, plan: Plan, *, at: datetime, bar_seconds: int, estimator: str) -> dict[int, Range]:
    estimate = estimator_named(estimator)
    bars = _Bars(instrument, at=at, seconds=bar_seconds)
    where: Any = {"at": at, "bar_seconds": bar_seconds, "closed_for": _closed_for(instrument)}

    def measure(period: int) -> Range:
        return _best(bars, lambda some: estimate(some, period=period, **where))

    return {period: measure(period) for period in plan.atr_periods}


class _Bars:
    """The bars of one instrument that were finished at a moment, read once and only if somebody asks."""

    def __init__(self, instrument: Instrument, *, at: datetime, seconds: int) -> None:
        self._asked: Any = {"instrument_id": instrument.pk, "seconds": seconds, "until": at, "limit": MOST_BARS}

    @cached_property
    def told(self) -> list[Candle]:
        """Return the stored bars of this length, usually of a broker's history."""
        return recent_bars(**self._asked)

    @cached_property
    def built(self) -> list[Candle]:
        """Return bars built from our own minutes."""
        return bars_of_minutes(**self._asked) if self._asked["seconds"] > _MINUTE_SECONDS else []


def _best(bars: _Bars, measure: Callable[[list[Candle]], _Measure]) -> _Measure:
    """Return what the stored bars say, or else our own minutes; where neither do, the reason of the longer history."""
    said = measure(bars.told)
    if said.value is not None or not bars.built:
        return said
    other = measure(bars.built)
    return other if other.value is not None or len(bars.built) > len(bars.told) else said


def _closed_for(instrument: Instrument) -> timedelta:
    return timedelta(0) if instrument.calendar == ALWAYS_OPEN else LONGEST_CLOSE
