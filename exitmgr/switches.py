"""The kill switch, of one account and over all: set by people with a reason, read in the claim of every order.

An account does what the stricter of both allows. Whatever is not active takes no entries, and those on their way are
called off; `hold_back_entries` repeats that each second, so that nothing slips through and a crash changes nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.account_models import Flatten
from exitmgr.rules.risk_checks import strictest
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Order
from orders.states import LIVE, OrderState
from positions.models import Account, LossWatch, TradingSwitch
from positions.states import PositionStatus
from positions.values import LossAction, TradingState

log = logging.getLogger(__name__)

#: Entries one look asks to end; the next look goes on.
CANCELS_AT_ONCE: Final = 100
_FOLLOWS: Final = {
    TradingState.REDUCE_ONLY: "No entries are taken and those on their way are called off; exits go on.",
    TradingState.HALTED: "No entries are taken, those on their way are called off, and NOTHING is left by itself: "
    "only emergency exits that a person asks for are sent.",
}


class SwitchRefused(Exception):
    """A switch was not set; the message says why and what would be right."""


def overall_state() -> TradingState:
    """Return what the switch over all accounts says."""
    found = TradingSwitch.objects.values_list("state", flat=True).first()
    return TradingState(found or TradingState.ACTIVE)


def effective_state(account_id: int) -> TradingState:
    """Return what an account may do: the stricter of its own switch and the one over all.

    :raises Account.DoesNotExist: there is no such account.
    """
    return strictest(Account.objects.values_list("trading_state", flat=True).get(pk=account_id), overall_state())


def switch_account(*, account_id: int, state: TradingState, note: str, now: datetime, actor: str) -> Account:
    """Set what one account may do; setting it back to active ends a flatten that is under way there.

    :raises Account.DoesNotExist: there is no such account.
    :raises SwitchRefused: the note is empty, or a loss limit that was hit has not been reset.
    """
    note = required_note(note)
    with transaction.atomic(durable=True):
        account = Account.objects.select_for_update(no_key=True).defer("credentials").get(pk=account_id)
        if state is TradingState.ACTIVE:
            _require_no_breach(account)
            _end_flatten(account_id, now=now, why=f"{actor} set the account back to active")
        before, account.trading_state = account.trading_state, state
        if before != state:
            account.updated_at = now
            account.save(update_fields=["trading_state", "updated_at"])
        _tell(account, before=before, after=state, note=note, now=now, actor=actor)
    return account


def switch_all(*, state: TradingState, note: str, now: datetime, actor: str) -> TradingSwitch:
    """Set what all accounts may do at most; their own switches stay as they are.

    :raises SwitchRefused: the note is empty.
    """
    note = required_note(note)
    with transaction.atomic(durable=True):
        switch = lock_switch()
        if state is TradingState.ACTIVE:
            _end_flatten(None, now=now, why=f"{actor} set the switch back to active")
        before, switch.state = switch.state, state
        switch.note, switch.set_by, switch.set_at = note, actor, now
        switch.save(update_fields=["state", "note", "set_by", "set_at"])
        _tell(None, before=before, after=state, note=note, now=now, actor=actor)
    return switch


def lock_switch() -> TradingSwitch:
    """Lock the switch over all accounts until the transaction ends."""
    TradingSwitch.objects.bulk_create([TradingSwitch(id=1)], ignore_conflicts=True)
    return TradingSwitch.objects.select_for_update().get(pk=1)


def shown_switch() -> TradingSwitch:
    """Return the switch over all accounts; one that nobody ever touched is active."""
    return TradingSwitch.objects.first() or TradingSwitch()


def standing_wishes(account_id: int | None) -> QuerySet[Flatten]:
    """Return the wish that an account, or with None all of them, hold nothing; there is at most one."""
    whose = Q(account__isnull=True) if account_id is None else Q(account_id=account_id)
    return Flatten.objects.filter(whose, ended_at__isnull=True)


def is_being_left(account_id: int) -> bool:
    """Return whether everything in an account is to leave: on a person's word, or because of a loss limit.

    Nothing may rest for its positions then, or it would bind again what was called off to let it leave.
    """
    wished = Flatten.objects.filter(Q(account__isnull=True) | Q(account_id=account_id), ended_at__isnull=True)
    if wished.exists():
        return True
    return LossWatch.objects.filter(pk=account_id, hit_at__isnull=False, action=LossAction.FLATTEN).exists()


def flatten_key(account_id: int | None) -> str:
    """Return the key of the alert that an account, or with None all of them, is being left."""
    return f"flatten:{account_id or 'all'}"


def required_note(note: str) -> str:
    """Return the note without blanks around it.

    :raises SwitchRefused: nothing is left of it.
    """
    if not note.strip():
        raise SwitchRefused("say why in a note; it is kept in the journal")
    return note.strip()


def hold_back_entries(*, now: datetime) -> int:
    """Call off entries of accounts that take none, and unsent ones in a symbol that is being left; return how many."""
    overall = overall_state()
    stopped = Q(account__in=Account.objects.exclude(trading_state=TradingState.ACTIVE).values("pk"))
    if overall is not TradingState.ACTIVE:
        stopped = Q(pk__isnull=False)
    leaving = Order.objects.filter(
        position__account=OuterRef("account"), position__instrument=OuterRef("instrument"),
        intent=Intent.EXIT, state__in=LIVE, resting=False,
    ).exclude(position__status=PositionStatus.CLOSED)  # fmt: skip
    entries = Order.objects.filter(intent=Intent.ENTRY).order_by("pk")
    # what was never sent and what works at the broker: each has an index of its own
    unsent = entries.filter(stopped | Exists(leaving), state=OrderState.PENDING)
    working = entries.filter(stopped, state__in=[OrderState.PARTIALLY_FILLED, OrderState.SUBMITTED])
    found = [order_id for some in (unsent, working) for order_id in some.values_list("pk", flat=True)[:CANCELS_AT_ONCE]]
    why = "its account takes no entries, or an exit in its symbol goes first"
    return sum(_call_off(order_id, why=why, now=now) for order_id in found)


def _call_off(order_id: int, *, why: str, now: datetime) -> int:
    try:
        request_cancel(order_id=order_id, now=now, actor="safety", why=why)
    except NotCancellable as error:
        log.info("entry_not_called_off order_id=%s why=%s", order_id, error)
        return 0
    return 1


def _require_no_breach(account: Account) -> None:
    """Refuse to go round a loss limit.

    :raises SwitchRefused: one was hit and nobody has reset it.
    """
    hit = LossWatch.objects.filter(pk=account.pk, hit_at__isnull=False).values_list("reason", flat=True).first()
    if hit is not None:
        raise SwitchRefused(
            f"{account} has hit its {hit} limit; `manage.py limits reset {account} --note WHY` ends that and gives the "
            "account back"
        )


def _end_flatten(account_id: int | None, *, now: datetime, why: str) -> None:
    if standing_wishes(account_id).update(ended_at=now, ended_why=why[:200]):
        write_events([Happening(kind="flatten_ended", account_ref=account_id, data={"why": why})], now=now)
        resolve_alerts(dedupe_key=flatten_key(account_id), now=now)


def _tell(account: Account | None, *, before: str, after: TradingState, note: str, now: datetime, actor: str) -> None:
    """Write the change into the journal, and let an alert stand for as long as trading is not active."""
    account_ref = account.pk if account else None
    data = {"before": {"trading_state": before}, "after": {"trading_state": after}, "note": note}
    kind = "account_switched" if account else "all_accounts_switched"
    write_events([Happening(kind=kind, actor=actor, account_ref=account_ref, data=data)], now=now)
    key = f"trading_state:{account_ref or 'all'}"
    if after is TradingState.ACTIVE:
        resolve_alerts(dedupe_key=key, now=now)
        return
    raise_alert(
        kind="trading_stopped",
        severity=Severity.CRITICAL if after is TradingState.HALTED else Severity.WARNING,
        title=f"{f'Account {account} is' if account else 'All accounts are'} {after}"[:200],
        message=f"{actor}: {note} {_FOLLOWS[after]} This lasts until a person sets it back to active.",
        dedupe_key=key,
        account_ref=account_ref,
        now=now,
    )
