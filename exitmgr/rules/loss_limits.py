"""When an account has lost too much, in one day or from its best. Pure; every P&L is its cumulative one, in money."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from exitmgr.rules.types import ExitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLimits:
    """What an account may lose, each a positive amount of money; None is no limit."""

    max_daily_loss: Decimal | None = None
    max_drawdown: Decimal | None = None

    @property
    def any(self) -> bool:
        """Return whether there is anything to watch."""
        return self.max_daily_loss is not None or self.max_drawdown is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What losses are measured from: the P&L the day began with, and the best one since there is a drawdown limit."""

    day: date
    day_start: Decimal
    best: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A limit that was reached: what was lost, measured from which P&L."""

    reason: ExitReason
    loss: Decimal
    limit: Decimal
    measured_from: Decimal


def move_marks(
    marks: Marks | None, *, pnl: Decimal, last_pnl: Decimal | None, today: date, limits: LossLimits
) -> Marks:
    """Return the marks after a look at the P&L.

    A new day begins with the P&L noted last (`last_pnl`), so what was lost while nobody looked counts in it. The first
    look begins everything with the P&L of that moment. A day that is over does not come back when a clock is set back.
    """
    if marks is None:
        marks = Marks(day=today, day_start=pnl)
    elif today > marks.day:
        marks = replace(marks, day=today, day_start=pnl if last_pnl is None else last_pnl)
    if limits.max_drawdown is None:
        return replace(marks, best=None)
    return replace(marks, best=pnl if marks.best is None else max(marks.best, pnl))


def breach_of(*, pnl: Decimal, marks: Marks, limits: LossLimits) -> Breach | None:
    """Return the limit that the P&L has reached, exactly or beyond, else None; of both the daily loss."""
    if limits.max_daily_loss is not None and marks.day_start - pnl >= limits.max_daily_loss:
        return _breach(ExitReason.DAILY_LOSS, pnl=pnl, limit=limits.max_daily_loss, measured_from=marks.day_start)
    if limits.max_drawdown is not None and marks.best is not None and marks.best - pnl >= limits.max_drawdown:
        return _breach(ExitReason.DRAWDOWN, pnl=pnl, limit=limits.max_drawdown, measured_from=marks.best)
    return None


def _breach(reason: ExitReason, *, pnl: Decimal, limit: Decimal, measured_from: Decimal) -> Breach:
    return Breach(reason=reason, loss=measured_from - pnl, limit=limit, measured_from=measured_from)
