"""The loss limits of accounts: looked at each second, latched in the database until a person resets them.

What a breach brings about is repeated at each look as long as it is latched, so a crash half way changes nothing.
Locks: the account's watch, then the account, or then positions and orders in their usual order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet

from alerts.events import Happening, write_events
from alerts.notices import resolve_alerts
from exitmgr.flatten import call_off_orders, leave_some
from exitmgr.loss_watches import (
    alert_hit,
    alert_not_watched,
    clear_breach,
    hit_key,
    is_latched,
    limits_of,
    lock_watch,
    marks_of,
    moved_marks,
    note_pnl,
    told,
    utc_day,
    watch_of,
)
from exitmgr.rules.loss_limits import Breach, breach_of, move_marks
from exitmgr.switches import effective_state
from positions.account_pnl import begin_watches, pnl_of_accounts, settle_closed
from positions.models import Account, LossWatch
from positions.values import LossAction, TradingState

log = logging.getLogger(__name__)

#: A new mark or a breach is written at once, the P&L in between only so often.
NOTE_EVERY: Final = timedelta(seconds=10)


class ResetRefused(Exception):
    """A reset was not done; the message says why and what would be right."""


def watch_limits(*, now: datetime, after_batch: Callable[[], object] = lambda: None) -> int:
    """Look at every account that has a loss limit, act on those that are at one, and return how many exits were made.

    Without a limit anywhere this is one small query. An account that cannot be looked at calls a person and does not
    hold up the others. `after_batch` is called after each committed batch of exits.
    """
    accounts = list(_watched())
    if not accounts:
        return 0
    pnl = _pnl_of([account for account in accounts if not is_latched(account)], now=now)
    exits = 0
    for account in accounts:
        try:
            if is_latched(account) or _look(account, pnl=pnl.get(account.pk), now=now):
                exits += _hold_down(account.pk, now=now, after_batch=after_batch)
        except Exception as error:
            log.exception("loss_limits_not_watched account_id=%s", account.pk)
            alert_not_watched(account, error, now=now)  # where the database itself is away, this raises
    return exits


def reset_limits(*, account_id: int, now: datetime, actor: str, note: str) -> LossWatch:
    """End a breach on a person's word and measure losses anew from the P&L now; return the watch as it is then.

    The account gets back the trading state the breach took from it, unless it was changed since. Without a breach only
    the measuring starts anew.

    :raises Account.DoesNotExist: there is no such account.
    :raises ResetRefused: nothing is watched there, or the note is empty.
    """
    if not note.strip():
        raise ResetRefused("say why in a note; it is kept in the journal")
    with transaction.atomic(durable=True):
        watch = LossWatch.objects.select_for_update(of=("self",), no_key=True).filter(pk=account_id).first()
        account = _lock_account(account_id)
        if watch is None:
            raise ResetRefused(f"account {account} has no loss limit, or nothing has looked at it yet")
        before = told(watch)
        pnl = pnl_of_accounts([account_id])[account_id]
        gives_back = watch.state_before == TradingState.ACTIVE and account.trading_state == TradingState.REDUCE_ONLY
        state = TradingState.ACTIVE if gives_back else TradingState(account.trading_state)
        if gives_back:
            _set_state(account, state, now=now)
        marks = move_marks(None, pnl=pnl, last_pnl=None, today=utc_day(now), limits=limits_of(account))
        clear_breach(watch)
        watch.since = now
        note_pnl(watch, marks, pnl=pnl, now=now)
        write_events(
            [
                Happening(
                    kind="loss_limits_reset",
                    actor=actor,
                    account_ref=account_id,
                    data={"note": note.strip(), "before": before, "after": told(watch), "trading_state": state},
                )
            ],
            now=now,
        )
        resolve_alerts(dedupe_key=hit_key(account_id), now=now)
    return watch


def _watched() -> QuerySet[Account]:
    limited = Q(max_daily_loss__isnull=False) | Q(max_drawdown__isnull=False)
    accounts = Account.objects.filter(limited | Q(loss_watch__isnull=False))
    return accounts.select_related("loss_watch").defer("credentials").order_by("pk")


def _pnl_of(accounts: Sequence[Account], *, now: datetime) -> dict[int, Decimal]:
    """Return the P&L of those that have a limit; where it cannot be had a person is called, and there is none."""
    limited = [account for account in accounts if limits_of(account).any]
    new = [account.pk for account in limited if watch_of(account) is None]
    if not limited:
        return {}
    try:
        if new:
            begin_watches(new, now=now)
        return pnl_of_accounts([account.pk for account in limited], certain=True)
    except Exception as error:
        log.exception("loss_limits_not_watched account_ids=%s", [account.pk for account in limited])
        for account in limited:
            alert_not_watched(account, error, now=now)
        return {}


def _look(account: Account, *, pnl: Decimal | None, now: datetime) -> bool:
    """Note what there is to note about an account that is not latched, and return whether it is from now on."""
    if not limits_of(account).any:
        LossWatch.objects.filter(pk=account.pk, hit_at=None).delete()
        return False
    if pnl is None:
        return False
    watch = watch_of(account)
    if watch is not None and watch.noted_at is not None and watch.noted_at > now - NOTE_EVERY:
        marks = moved_marks(watch, pnl=pnl, limits=limits_of(account), now=now)
        if marks == marks_of(watch) and breach_of(pnl=pnl, marks=marks, limits=limits_of(account)) is None:
            return False
    return _judge(account.pk, pnl=pnl, now=now)


def _judge(account_id: int, *, pnl: Decimal, now: datetime) -> bool:
    """Move the marks under the watch's lock and latch a breach; return whether there is one."""
    with transaction.atomic(durable=True):
        watch = lock_watch(account_id)
        if watch is None or watch.hit_at is not None:
            return watch is not None
        limits = limits_of(Account.objects.defer("credentials").get(pk=account_id))
        marks = moved_marks(watch, pnl=pnl, limits=limits, now=now)
        breach = breach_of(pnl=pnl, marks=marks, limits=limits)
        if breach is not None:
            account = _lock_account(account_id)
            breach = breach_of(pnl=pnl, marks=marks, limits=limits_of(account))  # a person may just have raised it
            if breach is not None:
                _latch(watch, account, breach, pnl=pnl, now=now)
        note_pnl(watch, marks, pnl=pnl, now=now)
        settle_closed(account_id, now=now)
    return breach is not None


def _lock_account(account_id: int) -> Account:
    return Account.objects.select_for_update(no_key=True).defer("credentials").get(pk=account_id)


def _latch(watch: LossWatch, account: Account, breach: Breach, *, pnl: Decimal, now: datetime) -> None:
    """Write the breach down, tighten the locked account, call a person."""
    watch.hit_at, watch.reason, watch.action = now, breach.reason, account.loss_action
    watch.state_before = account.trading_state
    _tighten(account, now=now)
    figures = {
        "reason": breach.reason,
        "pnl": pnl,
        "loss": breach.loss,
        "limit": breach.limit,
        "measured_from": breach.measured_from,
        "action": watch.action,
        "before": {"trading_state": watch.state_before},
        "after": {"trading_state": account.trading_state},
    }
    write_events([Happening(kind="loss_limit_hit", account_ref=account.pk, data=figures)], now=now)
    log.critical("loss_limit_hit account_id=%s reason=%s loss=%s", account.pk, breach.reason, breach.loss)
    alert_hit(account, watch, breach, now=now)


def _hold_down(account_id: int, *, now: datetime, after_batch: Callable[[], object]) -> int:
    """Bring about, or keep up, what the latched breach of an account asks for; return how many exits were made.

    While it, or all accounts, are halted nothing is done: its exits wait until that is over.
    """
    with transaction.atomic(durable=True):
        watch = lock_watch(account_id)
        if watch is None or watch.hit_at is None:
            return 0
        if _state_of(account_id) == TradingState.ACTIVE:
            account = _lock_account(account_id)
            data = {"before": {"trading_state": "active"}, "after": {"trading_state": _tighten(account, now=now)}}
            write_events([Happening(kind="loss_limit_held", account_ref=account_id, data=data)], now=now)
    flatten = watch.action == LossAction.FLATTEN
    exits = _leave_all(account_id, now=now, after_batch=after_batch) if flatten else 0
    if effective_state(account_id) is not TradingState.HALTED:
        call_off_orders(account_id, exits_too=flatten, now=now, why=f"the account has reached its {watch.reason} limit")
    return exits


def _leave_all(account_id: int, *, now: datetime, after_batch: Callable[[], object]) -> int:
    exits, after = 0, 0
    while True:
        with transaction.atomic(durable=True):
            watch = lock_watch(account_id)
            if watch is None or watch.hit_at is None or effective_state(account_id) is TradingState.HALTED:
                return exits  # another looks after it, or a person has just reset or halted it
            left = leave_some(
                account_id, reason=watch.reason, evidence={"loss_limit": told(watch)}, after=after, now=now
            )
        exits += left.exits
        if left.last is None:
            return exits
        after = left.last
        after_batch()


def _state_of(account_id: int) -> str:
    return str(Account.objects.values_list("trading_state", flat=True).get(pk=account_id))


def _tighten(account: Account, *, now: datetime) -> str:
    """Take entries from a locked account that has them and return its trading state; a halt is never loosened."""
    if account.trading_state == TradingState.ACTIVE:
        _set_state(account, TradingState.REDUCE_ONLY, now=now)
    return str(account.trading_state)


def _set_state(account: Account, state: TradingState, *, now: datetime) -> None:
    account.trading_state, account.updated_at = state, now
    account.save(update_fields=["trading_state", "updated_at"])
