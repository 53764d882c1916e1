"""What a plan is compiled on, taken from the bars themselves: ranges as they were at the entry, and session closes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from exitmgr.replay.bars import Series
from exitmgr.replay.errors import InvalidInput
from exitmgr.replay.holdings import Holding
from exitmgr.rules.compile import Entry, Range

#: A position opened at the very end of a session belongs to the next one.
_NEXT: Final = timedelta(microseconds=1)
BASIS_POINTS: Final = 10_000


@dataclass(slots=True, kw_only=True)
class Entries:
    """The entries of many positions over one file of bars; what several positions share is measured once."""

    holdings: Sequence[Holding]
    series: Mapping[str, Series]
    calendar: str
    fee_bps: Decimal
    _ranges: dict[tuple[str, int, datetime], Range] = field(default_factory=dict)
    _closes: list[datetime] | None = None

    def entry_of(self, holding: Holding) -> Entry:
        """Return what the plan of a holding is compiled on.

        :raises InvalidInput: the plan asks for a session close and the calendar knows none so late.
        """
        return Entry(
            side=holding.side,
            price=holding.entry_price,
            opened_at=holding.opened_at,
            ranges={period: self._range(holding, period) for period in holding.plan.atr_periods},
            closes_at=self._close_after(holding.opened_at) if holding.plan.session_close is not None else None,
            fee_per_unit=holding.entry_price * self.fee_bps / BASIS_POINTS,
        )

    def _range(self, holding: Holding, period: int) -> Range:
        key = (holding.symbol, period, holding.opened_at)
        if key not in self._ranges:
            self._ranges[key] = self._measured(self.series[holding.symbol], period, at=holding.opened_at)
        return self._ranges[key]

    def _measured(self, series: Series, period: int, *, at: datetime) -> Range:
        from exitmgr.rules.atr import MOST_BARS, measure_range

        seconds = series.bar_seconds
        if seconds is None:
            return Range(None, "the file has one bar of it")
        end = series.first_at(at - timedelta(seconds=seconds) + timedelta(microseconds=1))
        return measure_range(series.candles(max(0, end - MOST_BARS), end), period=period, at=at, bar_seconds=seconds)

    def _close_after(self, at: datetime) -> datetime | None:
        """Return the end of the session a moment lies in or before; None where trading never ends."""
        if self._closes is None:
            opened = [holding.opened_at for holding in self.holdings if holding.plan.session_close is not None]
            self._closes = _closes(self.calendar, min(opened), max(opened) + _NEXT)
        return self._closes[bisect_right(self._closes, at)] if self._closes else None


def _closes(calendar: str, first: datetime, last: datetime) -> list[datetime]:
    """Return the ends of the sessions from one moment to the first one after another; none for one that never ends."""
    from positions.trading_days import CalendarUnavailable, calendar_closes  # loads pandas, so only if a plan asks

    try:
        return calendar_closes(calendar, first, last)
    except CalendarUnavailable as error:
        raise InvalidInput(f"--calendar: {error}") from None
