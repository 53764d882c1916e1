"""The row in which an account's losses are watched: read, locked, written, and told to people."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.rules.loss_limits import Breach, LossLimits, Marks, move_marks
from exitmgr.rules.types import ExitReason
from positions.fields import plain
from positions.models import Account, LossWatch
from positions.values import LossAction, TradingState

_NO_BREACH: Final = {"hit_at": None, "reason": "", "action": "", "state_before": ""}


def limits_of(account: Account) -> LossLimits:
    """Return an account's limits as the rules want them."""
    return LossLimits(max_daily_loss=account.max_daily_loss, max_drawdown=account.max_drawdown)


def watch_of(account: Account) -> LossWatch | None:
    """Return the watch of an account that was read with it."""
    watch: LossWatch | None = getattr(account, "loss_watch", None)
    return watch


def is_latched(account: Account) -> bool:
    """Return whether an account, read with its watch, has a breach nobody has reset."""
    watch = watch_of(account)
    return watch is not None and watch.hit_at is not None


def clear_breach(watch: LossWatch) -> None:
    """Take the breach off a watch, in memory."""
    for name, value in _NO_BREACH.items():
        setattr(watch, name, value)


def lock_watch(account_id: int) -> LossWatch | None:
    """Lock an account's watch until the transaction ends; None where there is none, or somebody else is at it."""
    watches = LossWatch.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
    return watches.filter(pk=account_id).first()


def moved_marks(watch: LossWatch, *, pnl: Decimal, limits: LossLimits, now: datetime) -> Marks:
    """Return what losses are measured from after a look at the P&L."""
    return move_marks(marks_of(watch), pnl=pnl, last_pnl=watch.pnl, today=utc_day(now), limits=limits)


def marks_of(watch: LossWatch) -> Marks | None:
    """Return what losses are measured from, None before the first look."""
    if watch.day is None or watch.day_start_pnl is None:
        return None
    return Marks(day=watch.day, day_start=watch.day_start_pnl, best=watch.best_pnl)


def note_pnl(watch: LossWatch, marks: Marks, *, pnl: Decimal, now: datetime) -> None:
    """Write a locked watch with the P&L of this look."""
    watch.day, watch.day_start_pnl, watch.best_pnl = marks.day, marks.day_start, marks.best
    watch.pnl, watch.noted_at = pnl, now
    watch.save(update_fields=["since", "day", "day_start_pnl", "best_pnl", "pnl", "noted_at", *_NO_BREACH])


def utc_day(now: datetime) -> date:
    """Return the day losses at this moment count in: UTC's, which no session of a western exchange crosses."""
    return now.astimezone(UTC).date()


def told(watch: LossWatch) -> dict[str, str | None]:
    """Return the figures of a watch as the journal and the orders keep them."""
    numbers = {"pnl": watch.pnl, "day_start_pnl": watch.day_start_pnl, "best_pnl": watch.best_pnl}
    return {
        "reason": watch.reason,
        "hit_at": watch.hit_at.isoformat() if watch.hit_at else None,
        "day": watch.day.isoformat() if watch.day else None,
        **{name: None if number is None else f"{plain(number):f}" for name, number in numbers.items()},
    }


def hit_key(account_id: int) -> str:
    """Return the key of the alert that tells of a breach."""
    return f"loss_limit_hit:{account_id}"


_SINCE: Final = {ExitReason.DAILY_LOSS: "since the day began", ExitReason.DRAWDOWN: "from its best"}
_FOLLOWS: Final = {
    LossAction.REDUCE_ONLY: "Positions keep their plans.",
    LossAction.FLATTEN: "Every position is being left.",
}


def alert_hit(account: Account, watch: LossWatch, breach: Breach, *, now: datetime) -> None:
    """Call a person: a limit was reached, and what follows from it."""
    follows = _FOLLOWS[LossAction(watch.action)]
    if account.trading_state == TradingState.HALTED and watch.action == LossAction.FLATTEN:
        follows = "It is halted, so NOTHING is left by itself; every position will be once it is not."
    raise_alert(
        kind="loss_limit_hit",
        severity=Severity.CRITICAL,
        title=f"Account {account} has reached its {breach.reason} limit",
        message=f"It has lost {plain(breach.loss):f} {_SINCE[breach.reason]}; its limit is {plain(breach.limit):f}. "
        f"No entries are taken. {follows} This lasts until `manage.py limits reset {account} --note WHY`.",
        dedupe_key=hit_key(account.pk),
        requires_action=True,
        account_ref=account.pk,
        now=now,
    )


def alert_not_watched(account: Account, error: Exception, *, now: datetime) -> None:
    """Call a person: nobody watches what this account loses."""
    raise_alert(
        kind="loss_limits_not_watched",
        severity=Severity.CRITICAL,
        title=f"The loss limits of account {account} cannot be watched",
        message=f"{type(error).__name__}: {error}. What it loses stops nothing: mend the cause, or halt it by hand.",
        dedupe_key=f"loss_limits_not_watched:{account.pk}",
        requires_action=True,
        account_ref=account.pk,
        now=now,
    )
