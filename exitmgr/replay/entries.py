"""What a plan is compiled on, taken from the bars themselves: ranges as they were at the entry, and session closes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from exitmgr.replay.bars import Series, spell_moment
from exitmgr.replay.errors import InvalidInput
from exitmgr.replay.holdings import Holding
from exitmgr.rules.compile import Entry, Range

#: No calendar has a longer break between two sessions, so the next close lies within it.
_LONGEST_BREAK: Final = timedelta(days=30)
BASIS_POINTS: Final = 10_000
AROUND_THE_CLOCK: Final = "24/7"


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

        :raises InvalidInput: the plan asks for session closes and the calendar is unknown.
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
            self._closes = _closes(self.calendar, min(opened), max(opened) + _LONGEST_BREAK)
        if self._closes == []:
            return None
        index = bisect_right(self._closes, at)
        if index == len(self._closes):
            raise InvalidInput(f"--calendar: {self.calendar} knows no session after {spell_moment(at)}")
        return self._closes[index]


def _closes(calendar: str, first: datetime, last: datetime) -> list[datetime]:
    """Return the ends of the sessions between two moments, none for a venue that never closes."""
    if calendar == AROUND_THE_CLOCK:
        return []
    from positions.calendars import calendar_closes  # pandas is imported only when a plan asks

    try:
        closes = list(calendar_closes(calendar, first, last))
    except ValueError as error:
        raise InvalidInput(f"--calendar: {error}") from None
    if not closes:
        raise InvalidInput(f"--calendar: {calendar} knows no session after {spell_moment(first)}")
    return closes
