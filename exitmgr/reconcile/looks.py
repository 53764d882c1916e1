"""One look at one account: read both sides, compare, book what was missed, and do about the rest what has settled.

One looker an account at a time. Prices are scanned and exits sent whatever comes of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from django.db import InterfaceError, OperationalError, connection
from django.db.models import Q

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.models import Difference as Row
from exitmgr.models import Heartbeat
from exitmgr.reconcile.books import SETTLE, read_nets, read_ours, read_theirs
from exitmgr.reconcile.compare import compare, plain_symbol
from exitmgr.reconcile.differences import Compared, Difference, Kind, Theirs
from exitmgr.reconcile.freezing import release_frozen_for
from exitmgr.reconcile.handling import Case, handle
from exitmgr.reconcile.lost_orders import look_up
from exitmgr.reconcile.sightings import is_settled, note_handled, note_sightings
from exitmgr.sweep import beat
from orders.brokers.protocol import Broker
from orders.brokers.registry import ADAPTERS
from orders.errors import BrokerError, NotSent
from orders.submit import Connect
from positions.doorbells import ring
from positions.models import Account

log = logging.getLogger(__name__)

#: An account is looked at so often by itself, and sooner while a difference is waited with.
EVERY: Final = timedelta(seconds=30)
#: A difference that nothing could be done about for so long does not hasten the next look any more.
HASTY_FOR: Final = timedelta(minutes=2)
_LOCK_CLASS: Final = 0x7265636E
_BOOKED: Final = (Kind.MISSED_NEWS, Kind.NOT_OPEN_THERE)


class LookRefused(Exception):
    """An account was not looked at; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One difference of a look; `done` says what was done about it now, and is empty while it is waited with."""

    difference: Difference
    done: str = ""


def reconcile_account(
    *,
    account_id: int,
    connect: Connect,
    clock: Callable[[], datetime],
    actor: str = "reconcile",
    dry_run: bool = False,
) -> list[Seen]:
    """Compare an account with its broker, do what has settled, and return what differs.

    A `dry_run` only compares: nothing is written, and no order is looked up.

    :raises Account.DoesNotExist: there is no such account.
    :raises LookRefused: somebody else is at it, or the broker did not answer.
    """
    account = Account.objects.defer("credentials").get(pk=account_id)
    with _only_looker(account):
        try:
            broker = connect([account_id])(account_id)
            if dry_run:
                return [Seen(difference=one) for one in _look(account, broker, clock=clock)[0].found]
            seen = _reconcile(account, broker, clock=clock, actor=actor)
        except BrokerError as error:
            if not dry_run:
                _tell_not_compared(account, error, now=clock())
            raise LookRefused(f"the broker of {account.name} did not answer: {error}") from error
    resolve_alerts(dedupe_key=_failure_key(account_id), now=clock())
    return seen


def due_accounts(*, now: datetime) -> list[int]:
    """Return the accounts to be looked at now: those not looked at lately, and those in which something is waited with.

    After a start that is every account.
    """
    ids = list(Account.objects.filter(broker__in=ADAPTERS).order_by("pk").values_list("pk", flat=True))
    lately = dict(Heartbeat.objects.filter(name__startswith=_HEARTBEAT).values_list("name", "at"))
    waiting = set(
        Row.objects.filter(
            Q(seen_at__lte=now - SETTLE, seen_at__gt=now - HASTY_FOR),
            account__in=ids,
            handled_at__isnull=True,
            resolved_at__isnull=True,
        ).values_list("account_id", flat=True)
    )
    return [
        pk
        for pk in ids
        if (at := lately.get(f"{_HEARTBEAT}{pk}")) is None
        or at <= now - EVERY
        or (pk in waiting and at <= now - SETTLE)
    ]


_HEARTBEAT: Final = "reconcile:"


def note_look(*, account_id: int, now: datetime) -> None:
    """Note that an account is being looked at, so that nobody else is sent to it."""
    beat(name=f"{_HEARTBEAT}{account_id}", now=now)


def ring_for_due_accounts(*, now: datetime) -> int:
    """Have each account that is due looked at by a task of its own; return how many."""
    due = due_accounts(now=now)
    for account_id in due:
        ring("exitmgr.reconcile", queue="maintenance", kwargs={"account_id": account_id}, expires=EVERY.total_seconds())
    return len(due)


def look_once(*, account_id: int, connect: Connect, clock: Callable[[], datetime]) -> int:
    """Look at an account unless somebody did so just now; return how many differences it has.

    What keeps it from being looked at is told to people already.
    """
    just_now = Heartbeat.objects.filter(name=f"{_HEARTBEAT}{account_id}", at__gt=clock() - SETTLE)
    if just_now.exists():
        return 0
    try:
        return len(reconcile_account(account_id=account_id, connect=connect, clock=clock))
    except (LookRefused, Account.DoesNotExist) as error:
        log.warning("not_reconciled account_id=%s why=%s", account_id, error)
        return 0


def _reconcile(account: Account, broker: Broker, *, clock: Callable[[], datetime], actor: str) -> list[Seen]:
    note_look(account_id=account.pk, now=clock())
    compared, theirs = _look(account, broker, clock=clock)
    ghosts, _ = look_up(compared.found, account_id=account.pk, broker=broker, now=clock())
    unknown = {one.order_id for one in ghosts}
    booked = [
        Seen(difference=one, done="looked up")
        for one in compared.found
        if one.kind in _BOOKED and one.order_id not in unknown
    ]
    standing = [*(one for one in compared.found if one.kind not in _BOOKED), *ghosts]
    now = clock()
    rows, gone = note_sightings(account_id=account.pk, found=standing, left_out=compared.left_out, now=now)
    for key in gone:
        release_frozen_for(key, account_id=account.pk, now=now, actor=actor)
    return [
        *booked,
        *(
            _settle(Case(difference=one, row=row, account=account, broker=broker, theirs=theirs, now=now, actor=actor))
            for one, row in rows
        ),
    ]


def _look(account: Account, broker: Broker, *, clock: Callable[[], datetime]) -> tuple[Compared, Theirs]:
    """Read both sides and compare them; positions are read one by one only where a symbol does not agree in all."""
    since, before = clock(), read_nets(account.pk)
    theirs = read_theirs(broker)
    nets = read_nets(account.pk)
    there = {plain_symbol(one.symbol): one.quantity for one in theirs.positions}
    agreed = {symbol for symbol, net in nets.items() if there.get(plain_symbol(symbol)) == net}
    plain = {plain_symbol(symbol) for symbol in agreed}
    ours = read_ours(
        account.pk,
        since=since,
        now=clock(),
        agreed=agreed,
        changed={symbol for symbol in {*before, *nets} if before.get(symbol) != nets.get(symbol)},
        reported=theirs.orders,
    )
    rest = tuple(one for one in theirs.positions if plain_symbol(one.symbol) not in plain)
    return compare(ours, replace(theirs, positions=rest)), theirs


def _settle(case: Case) -> Seen:
    """Do about a difference what has to be done; one that cannot be handled calls a person and spares the others.

    :raises OperationalError: the database went away.
    :raises BrokerError: the broker went away.
    """
    one = case.difference
    try:
        done = handle(case)
    except (OperationalError, InterfaceError, BrokerError):
        raise
    except Exception as error:
        log.exception("difference_not_handled account_id=%s key=%s", case.account.pk, one.key)
        _tell_not_handled(case.account, one, error, now=case.now)
        return Seen(difference=one)
    if done and is_settled(case.row, now=case.now):
        note_handled(case.row, one, done=done, actor=case.actor, now=case.now)
    return Seen(difference=one, done=done or "")


@contextmanager
def _only_looker(account: Account) -> Iterator[None]:
    """Hold the account's lock, which lives no longer than the session.

    :raises LookRefused: somebody else holds it.
    """
    key = [_LOCK_CLASS, account.pk % 2**31]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", key)
        if not cursor.fetchone()[0]:
            raise LookRefused(f"{account.name} is being reconciled already; look again in a moment")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", key)


def _failure_key(account_id: int) -> str:
    return f"reconcile_failed:{account_id}"


def _tell_not_compared(account: Account, error: BrokerError, *, now: datetime) -> None:
    severity = Severity.INFO if isinstance(error, NotSent) else Severity.WARNING
    raise_alert(
        kind="reconcile_failed",
        severity=severity,
        title=f"{account.name} cannot be compared with its broker",
        message=f"{error}. What is held is watched and left all the same; the comparison is tried again.",
        dedupe_key=_failure_key(account.pk),
        account_ref=account.pk,
        now=now,
    )


def _tell_not_handled(account: Account, one: Difference, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="reconcile_failed",
        severity=Severity.CRITICAL,
        title=f"A difference in {account.name} cannot be handled: {one}"[:200],
        message=f"{type(error).__name__}: {error}. Compare the account with the broker by hand.",
        dedupe_key=f"reconcile_failed:{account.pk}:{one.key}"[:128],
        requires_action=True,
        account_ref=account.pk,
        position_ref=one.position_ids[0] if one.position_ids else None,
        order_ref=one.order_id,
        now=now,
    )
