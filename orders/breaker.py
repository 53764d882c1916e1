"""The circuit breaker of an account's broker: pure steps from answer to answer, and the row they are kept in.

While it is open stops are sent all the same; of everything else one request at a time finds out whether the broker is
back. Refused keys hold everything, until they are changed or one request a minute is let in again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from django.db import transaction
from django.db.models import Q

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from orders.budget import Need
from orders.errors import AccountRefused, BrokerError, LeaseOver, NotSent, OutcomeUnknown, StillUnknown
from orders.models import Breaker, BrokerHealth
from orders.outcomes import unreachable_key

log = logging.getLogger(__name__)

#: Failures in a row that open it.
FAILURES_TO_OPEN: Final = 5
#: Seconds to the first probe, doubled with each that fails up to the longest.
PROBE_SECONDS: Final = 2.0
LONGEST_PROBE_SECONDS: Final = 10.0
REFUSED_PROBE_SECONDS: Final = 60.0
#: How often a success is written down while nothing is wrong.
NOTED_EVERY: Final = timedelta(seconds=30)

#: Never read here: an account whose keys nobody can open has a breaker like any other.
_KEYS: Final = "account__credentials"


class Verdict(StrEnum):
    """What one call says about its broker."""

    ANSWERED = "answered"
    FAILED = "failed"
    KEYS_REFUSED = "keys_refused"
    NOTHING = "nothing"  # nobody was asked, or only to be told to wait


class Way(StrEnum):
    """Whether a request may go."""

    GO = "go"
    PROBE = "probe"  # one may, if it takes the probe
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The breaker of one account; `keys_changed` is whether its account was changed since its keys were refused."""

    breaker: Breaker = Breaker.CLOSED
    failures: int = 0
    opened_at: datetime | None = None
    probe_at: datetime | None = None
    keys_changed: bool = False


def judge(error: BrokerError | None) -> Verdict:
    """Return what an answer, or the error in its place, says about the broker itself. A refusal is an answer."""
    if isinstance(error, AccountRefused):
        return Verdict.KEYS_REFUSED
    if isinstance(error, StillUnknown):
        cause = error.__cause__
        return judge(cause) if isinstance(cause, BrokerError) else Verdict.ANSWERED
    if isinstance(error, LeaseOver) or (isinstance(error, NotSent) and error.retry_after is not None):
        return Verdict.NOTHING
    if isinstance(error, NotSent | OutcomeUnknown):
        return Verdict.FAILED
    return Verdict.ANSWERED


def way_for(health: Health, need: Need, *, now: datetime) -> Way:
    """Return whether a request may go to a broker of this health."""
    if health.breaker == Breaker.CLOSED:
        return Way.GO
    due = health.probe_at is None or health.probe_at <= now
    if health.breaker == Breaker.REFUSED:
        return Way.PROBE if due or health.keys_changed else Way.WAIT
    if need is Need.STOP:
        return Way.GO
    return Way.PROBE if due else Way.WAIT


def after(health: Health, verdicts: Collection[Verdict], *, now: datetime) -> Health:
    """Return the health after a few calls that were made at the same time."""
    failed = sum(verdict is Verdict.FAILED for verdict in verdicts)
    if Verdict.KEYS_REFUSED in verdicts:
        return replace(
            health,
            breaker=Breaker.REFUSED,
            failures=health.failures + 1,
            opened_at=health.opened_at if health.breaker == Breaker.REFUSED else now,
            probe_at=now + timedelta(seconds=REFUSED_PROBE_SECONDS),
            keys_changed=False,
        )
    if Verdict.ANSWERED in verdicts:
        return Health()
    if not failed:
        return health
    failures = health.failures + failed
    if health.breaker == Breaker.CLOSED and failures < FAILURES_TO_OPEN:
        return replace(health, failures=failures)
    opened_at = health.opened_at if health.breaker in (Breaker.OPEN, Breaker.HALF_OPEN) else None
    doublings = min(max(failures - FAILURES_TO_OPEN, 0), 10)
    wait = min(PROBE_SECONDS * 2**doublings, LONGEST_PROBE_SECONDS)
    return Health(
        breaker=Breaker.OPEN, failures=failures, opened_at=opened_at or now, probe_at=now + timedelta(seconds=wait)
    )


def read_health(row: BrokerHealth | None, *, account_changed_at: datetime) -> Health:
    """Return the pure view of a row."""
    if row is None:
        return Health()
    return Health(
        breaker=Breaker(row.breaker),
        failures=row.failures,
        opened_at=row.opened_at,
        probe_at=row.probe_at,
        keys_changed=row.breaker == Breaker.REFUSED and row.refused_account_at != account_changed_at,
    )


def healths_of(account_ids: Collection[int]) -> dict[int, Health]:
    """Return the health of accounts by their ids; nothing heard yet is healthy."""
    rows = BrokerHealth.objects.filter(account_id__in=account_ids).select_related("account").defer(_KEYS)
    known = {row.account_id: read_health(row, account_changed_at=row.account.updated_at) for row in rows}
    return {account_id: known.get(account_id, Health()) for account_id in account_ids}


def take_probe(*, account_id: int, now: datetime) -> bool:
    """Return whether this caller may send the one request that finds out; whoever else asks meanwhile waits."""
    due = Q(probe_at__isnull=True) | Q(probe_at__lte=now)
    rows = BrokerHealth.objects.filter(account_id=account_id)
    if rows.filter(due, breaker__in=[Breaker.OPEN, Breaker.HALF_OPEN]).update(
        breaker=Breaker.HALF_OPEN, probe_at=now + timedelta(seconds=LONGEST_PROBE_SECONDS)
    ):
        return True
    with transaction.atomic():
        row = _locked(account_id)
        if row is None or row.breaker != Breaker.REFUSED:
            return False
        changed_at = row.account.updated_at
        if row.probe_at is not None and row.probe_at > now and row.refused_account_at == changed_at:
            return False
        row.probe_at, row.refused_account_at = now + timedelta(seconds=REFUSED_PROBE_SECONDS), changed_at
        row.save(update_fields=["probe_at", "refused_account_at"])
        return True


def note_verdicts(*, account_id: int, verdicts: Collection[Verdict], why: str, now: datetime) -> Health | None:
    """Keep what calls said about an account's broker; opening, closing and refused keys are told to people.

    Return the health if it changed. `why` is the last error.
    """
    told = set(verdicts) - {Verdict.NOTHING}
    if not told or (told == {Verdict.ANSWERED} and not _is_news(account_id, now=now)):
        return None
    with transaction.atomic():
        BrokerHealth.objects.bulk_create([BrokerHealth(account_id=account_id)], ignore_conflicts=True)
        row = _locked(account_id)
        assert row is not None  # noqa: S101 - written above, and never deleted
        before = read_health(row, account_changed_at=row.account.updated_at)
        health = after(before, verdicts, now=now)
        row.breaker, row.failures = health.breaker, health.failures
        row.opened_at, row.probe_at = health.opened_at, health.probe_at
        if Verdict.ANSWERED in told:
            row.last_ok_at = now
        row.why = "" if health.breaker == Breaker.CLOSED and not health.failures else why[:500]
        row.refused_account_at = row.account.updated_at if health.breaker == Breaker.REFUSED else None
        row.save(
            update_fields=[
                "breaker",
                "failures",
                "opened_at",
                "probe_at",
                "last_ok_at",
                "why",
                "refused_account_at",
            ]
        )
        _tell(account_id, name=row.account.name, before=before.breaker, health=health, why=why, now=now)
    return health


def _locked(account_id: int) -> BrokerHealth | None:
    rows = BrokerHealth.objects.select_for_update(of=("self",)).select_related("account").defer(_KEYS)
    return rows.filter(account_id=account_id).first()


def refused_key(account_id: int) -> str:
    """Return the key of the alert that the keys of an account are refused."""
    return f"account_refused:{account_id}"


def _is_news(account_id: int, *, now: datetime) -> bool:
    """Return whether a success has anything to change."""
    calm = Q(breaker=Breaker.CLOSED, failures=0, last_ok_at__gt=now - NOTED_EVERY)
    return not BrokerHealth.objects.filter(calm, account_id=account_id).exists()


def _tell(account_id: int, *, name: str, before: Breaker, health: Health, why: str, now: datetime) -> None:
    if health.breaker == before:
        return
    log.warning("breaker_moved account_id=%s from=%s to=%s why=%s", account_id, before, health.breaker, why)
    if health.breaker != Breaker.REFUSED:
        resolve_alerts(dedupe_key=refused_key(account_id), now=now)
    if health.breaker == Breaker.CLOSED:
        resolve_alerts(dedupe_key=unreachable_key(account_id), now=now)
    elif health.breaker == Breaker.REFUSED:
        raise_alert(
            kind="account_refused",
            severity=Severity.CRITICAL,
            title=f"The broker refuses the keys of account {name}",
            message=f"{why}. Nothing of this account is sent, its stops neither: correct the account's credentials. "
            "Its orders wait and go out by themselves then.",
            dedupe_key=refused_key(account_id),
            requires_action=True,
            account_ref=account_id,
            now=now,
        )
    elif before not in (Breaker.OPEN, Breaker.HALF_OPEN):
        raise_alert(
            kind="broker_unreachable",
            severity=Severity.CRITICAL,
            title=f"The broker of account {name} fails again and again",
            message=f"{health.failures} failures in a row, the last: {why}. Stops are still tried, of everything else "
            "one request at a time; check the broker's address and status.",
            dedupe_key=unreachable_key(account_id),
            requires_action=True,
            account_ref=account_id,
            now=now,
        )


def note_clock_skew(*, account_id: int, skew_ms: int, warn_above_ms: int, now: datetime) -> None:
    """Keep how far the broker's clock is ahead of ours, and warn while that is too far."""
    far = abs(skew_ms) > warn_above_ms
    was_far = Q(clock_skew_ms__gt=warn_above_ms) | Q(clock_skew_ms__lt=-warn_above_ms)
    rows = BrokerHealth.objects.filter(account_id=account_id)
    if not far and not rows.filter(was_far | Q(clock_skew_ms__isnull=True)).exists():
        return
    if far and rows.filter(was_far, clock_skew_ms__range=(skew_ms - 1000, skew_ms + 1000)).exists():
        return
    rows.update(clock_skew_ms=skew_ms)
    key = f"clock_skew:{account_id}"
    if not far:
        resolve_alerts(dedupe_key=key, now=now)
        return
    raise_alert(
        kind="clock_skew",
        severity=Severity.WARNING,
        title=f"The clocks of account {account_id}'s broker and of the database differ by {skew_ms / 1000:.0f} s",
        message="Sessions, time limits and settle windows are read from these clocks: check the time service (NTP) of "
        "the database's machine.",
        dedupe_key=key,
        data={"skew_ms": skew_ms},
        account_ref=account_id,
        now=now,
    )
