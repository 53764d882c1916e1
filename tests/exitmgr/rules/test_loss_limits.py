"""When an account has lost too much: exact at the limit, the daily loss first, days that begin where the last ended."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from exitmgr.rules.loss_limits import LossLimits, Marks, breach_of, move_marks

D = Decimal
MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def limits(daily: str | None, drawdown: str | None) -> LossLimits:
    return LossLimits(
        max_daily_loss=D(daily) if daily else None,
        max_drawdown=D(drawdown) if drawdown else None,
    )


@pytest.mark.parametrize(
    ("_case", "pnl", "day_start", "best", "daily", "drawdown", "expected"),
    [
        ("nothing lost", "0", "0", "0", "100", "100", None),
        ("a hair within both", "-99.99999999", "0", "0", "100", "100", None),
        ("exactly the daily loss", "-100", "0", None, "100", None, ("daily_loss", "100", "0")),
        ("exactly the drawdown", "400", "400", "500", None, "100", ("drawdown", "100", "500")),
        ("beyond", "-100.01", "0", "0", None, "100", ("drawdown", "100.01", "0")),
        ("both at once: the daily loss gives the reason", "-100", "0", "0", "100", "100", ("daily_loss", "100", "0")),
        ("the drawdown alone, on a quiet day", "300", "310", "500", "100", "200", ("drawdown", "200", "500")),
        ("the daily loss alone, from a day that began high", "900", "1000", "1000", "100", "500",
         ("daily_loss", "100", "1000")),
        ("a loss that the day began with is not of the day", "-500", "-500", "0", "100", None, None),
        ("in profit all the same: half of it was given back", "50", "0", "100", None, "50", ("drawdown", "50", "100")),
        ("no limits", "-1000000", "0", "0", None, None, None),
        ("a drawdown limit without a best yet", "-1000", "0", None, None, "100", None),
    ],
)  # fmt: skip
def test_a_limit_is_hit_exactly_or_beyond(_case, pnl, day_start, best, daily, drawdown, expected):
    marks = Marks(day=MONDAY, day_start=D(day_start), best=D(best) if best else None)
    breach = breach_of(pnl=D(pnl), marks=marks, limits=limits(daily, drawdown))
    if expected is None:
        assert breach is None
        return
    reason, loss, measured_from = expected
    assert breach is not None
    assert (str(breach.reason), breach.loss, breach.measured_from) == (reason, D(loss), D(measured_from))
    assert breach.limit == D(daily if reason == "daily_loss" else drawdown)


@pytest.mark.parametrize(
    ("_case", "marks", "pnl", "last", "today", "drawdown", "expected"),
    [
        ("the first look begins everything", None, "7", None, MONDAY, "1", (MONDAY, "7", "7")),
        ("without a drawdown limit nothing is best", None, "7", None, MONDAY, None, (MONDAY, "7", None)),
        ("a new best", (MONDAY, "0", "5"), "7", "5", MONDAY, "1", (MONDAY, "0", "7")),
        ("a fall keeps the best", (MONDAY, "0", "5"), "3", "5", MONDAY, "1", (MONDAY, "0", "5")),
        ("a day begins with what was noted last", (MONDAY, "0", "5"), "-3", "2", TUESDAY, "1", (TUESDAY, "2", "5")),
        ("a limit that is new begins with its best now", (MONDAY, "0", None), "3", "9", MONDAY, "1", (MONDAY, "0", "3")),
        ("a limit taken away forgets its best", (MONDAY, "0", "5"), "3", "9", MONDAY, None, (MONDAY, "0", None)),
        ("a clock set back starts no day", (TUESDAY, "0", "5"), "3", "2", MONDAY, "1", (TUESDAY, "0", "5")),
    ],
)  # fmt: skip
def test_what_losses_are_measured_from(_case, marks, pnl, last, today, drawdown, expected):
    before = None
    if marks:
        day, day_start, best = marks
        before = Marks(day=day, day_start=D(day_start), best=D(best) if best else None)
    after = move_marks(
        before, pnl=D(pnl), last_pnl=D(last) if last else None, today=today, limits=limits(None, drawdown)
    )
    day, day_start, best = expected
    assert after == Marks(day=day, day_start=D(day_start), best=D(best) if best else None)
