"""What stands between an order and its broker: breaker and budget, asked before it is claimed.

What may not go yet is put off until it may, most urgent first; that costs no try, no claim and no lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from orders import breaker
from orders.breaker import Health, Way, judge, note_verdicts, take_probe, way_for
from orders.brokers.headers import Heard, take_heard
from orders.brokers.protocol import Broker
from orders.budget import UNLIMITED, Budget, Level, Need, shared_budget
from orders.errors import BrokerError, LeaseOver, RefusalKind, Refused
from orders.models import Breaker, Lane, lane_for
from orders.states import CLAIMABLE

log = logging.getLogger(__name__)

BrokerFor = Callable[[int], Broker]
Connect = Callable[[Collection[int]], BrokerFor]
Clock = Callable[[], datetime]

MAX_CLOCK_SKEW_MS: Final = 5000
#: How long what the breaker holds back waits before it asks again; a broker that is back is told to nobody.
BREAKER_WAIT_SECONDS: Final = 5.0
SKEW_NOTED_EVERY: Final = timedelta(minutes=1)
_STORE_AWAY: Final = "budget_store_away"

#: Requests a minute as brokers named them to this process, by account.
_told_limits: dict[int, int] = {}
#: The clock skews this process has noted, by account, and until when it need not look again.
_noted_skews: dict[int, tuple[int, datetime]] = {}


class HeldBack(LeaseOver):
    """The broker was not asked: its budget has nothing left for this, or its breaker is open. `retry_after` says
    when to try again."""


def need_of(urgency: int) -> Need:
    """Return what an order of this urgency may spend."""
    return {Lane.EMERGENCY: Need.STOP, Lane.STOP_LOSS: Need.STOP, Lane.TAKE_PROFIT: Need.EXIT}.get(
        lane_for(urgency), Need.REST
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    order_id: int
    account_id: int
    need: Need
    cost: int


@dataclass(slots=True)
class Admission:
    """The orders that may be claimed now, and what was taken from budgets for each."""

    broker_for: BrokerFor
    order_ids: list[int] = field(default_factory=list)
    #: What each order took from its account's budget.
    taken: dict[int, tuple[int, int]] = field(default_factory=dict)
    #: The database's clock less this machine's, in seconds.
    database_ahead: float = 0.0

    def give_back_unclaimed(self, claimed: Collection[int], *, budget: Budget | None = None) -> None:
        """Return what was taken for orders that somebody else claimed, or that a switch holds back."""
        unspent: dict[int, int] = {}
        for order_id, (account_id, cost) in self.taken.items():
            if order_id not in claimed:
                unspent[account_id] = unspent.get(account_id, 0) + cost
        for account_id, cost in unspent.items():
            (budget or shared_budget()).give_back(account_id=account_id, cost=cost)


_DUE = """
SELECT o.id, o.account_id, o.urgency, o.epoch, extract(epoch FROM clock_timestamp()),
       COALESCE(h.breaker, 'closed'), COALESCE(h.failures, 0), h.opened_at, h.probe_at,
       h.refused_account_at IS DISTINCT FROM a.updated_at
  FROM orders_order o JOIN positions_account a ON a.id = o.account_id
       LEFT JOIN orders_brokerhealth h ON h.account_id = o.account_id
 WHERE o.id = ANY(%(ids)s::bigint[]) AND o.state = ANY(%(claimable)s) AND NOT o.waits
   AND (o.lease_until IS NULL OR o.lease_until < clock_timestamp())
   AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= clock_timestamp())
 ORDER BY o.urgency, o.id
"""

_PUT_OFF = """
WITH later AS (
    SELECT o.id, l.wait
      FROM unnest(%(ids)s::bigint[], %(waits)s::float8[]) AS l(id, wait) JOIN orders_order o ON o.id = l.id
     WHERE o.state = ANY(%(claimable)s) AND (o.lease_until IS NULL OR o.lease_until < clock_timestamp())
       AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= clock_timestamp())
     ORDER BY o.id FOR UPDATE OF o SKIP LOCKED
)
UPDATE orders_order o
   SET next_attempt_at = clock_timestamp() + make_interval(secs => later.wait), last_error = %(why)s
  FROM later WHERE o.id = later.id
"""


def admit(*, order_ids: Sequence[int], connect: Connect, now: datetime, budget: Budget | None = None) -> Admission:
    """Return those of the due orders whose brokers may be called now, and put the others off.

    The budget is spent here; the caller gives back what it could not claim.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"ids": list(order_ids), "claimable": [str(state) for state in CLAIMABLE]})
        rows = cursor.fetchall()
    # whoever is not the first to claim an order looks it up before it is sent
    due = [_Due(order_id=row[0], account_id=row[1], need=need_of(row[2]), cost=2 if row[3] else 1) for row in rows]
    healths = {
        row[1]: Health(
            breaker=Breaker(row[5]),
            failures=row[6],
            opened_at=row[7],
            probe_at=row[8],
            keys_changed=row[5] == Breaker.REFUSED and row[9],
        )
        for row in rows
    }
    admission = Admission(broker_for=connect(set(healths)))
    if rows:
        admission.database_ahead = float(rows[0][4]) - time.time()
    for account_id, health in healths.items():
        mine = [one for one in due if one.account_id == account_id]
        mine = _past_breaker(account_id, mine, health, now=now)
        _past_budget(account_id, mine, admission, budget=budget or shared_budget(), now=now)
    chosen = set(admission.order_ids)
    admission.order_ids = [one.order_id for one in due if one.order_id in chosen]
    return admission


def _past_breaker(account_id: int, due: Sequence[_Due], health: Health, *, now: datetime) -> list[_Due]:
    passed: list[_Due] = []
    held: dict[int, float] = {}
    for one in due:
        way = way_for(health, one.need, now=now)
        if way is Way.GO or (way is Way.PROBE and not held and take_probe(account_id=account_id, now=now)):
            passed.append(one)
        else:
            held[one.order_id] = BREAKER_WAIT_SECONDS
    _put_off(held, why=f"held back: the breaker of the account's broker is {health.breaker}")
    return passed


def _past_budget(account_id: int, due: Sequence[_Due], admission: Admission, *, budget: Budget, now: datetime) -> None:
    limit = limit_of(account_id, admission.broker_for) if due else None
    if limit is None:
        admission.order_ids += [one.order_id for one in due]
        return
    waits = budget.take(account_id=account_id, limit=limit, needs=[(one.need, one.cost) for one in due])
    was_alone = budget.is_away
    for one, wait in zip(due, waits, strict=True):
        if not wait:
            admission.order_ids.append(one.order_id)
            if not was_alone:
                admission.taken[one.order_id] = (account_id, one.cost)
    _put_off(
        {one.order_id: wait for one, wait in zip(due, waits, strict=True) if wait},
        why=f"held back: the broker takes {limit} requests a minute, and what is left of them is for more urgent ones",
    )
    _tell_of_store(budget, now=now)


def limit_of(account_id: int, broker_for: BrokerFor) -> int | None:
    """Return the requests a minute an account has, as its broker told or its adapter knows; None is no limit."""
    if (told := _told_limits.get(account_id)) is not None:
        return told
    try:
        return broker_for(account_id).capabilities.requests_per_minute
    except BrokerError:  # whoever sends it meets the same, and says so
        return None


def _put_off(waits: Mapping[int, float], *, why: str) -> None:
    if not waits:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _PUT_OFF,
            {
                "ids": list(waits),
                "waits": list(waits.values()),
                "why": why,
                "claimable": [str(state) for state in CLAIMABLE],
            },
        )


#: Whether this process has told people of a Redis that is away, by its address.
_told_of_store: dict[str, bool] = {}


def _tell_of_store(budget: Budget, *, now: datetime) -> None:
    """Tell people once that Redis is away, and once that it is back; each process knows what it has told."""
    if _told_of_store.get(budget.url, False) == budget.is_away:
        return
    _told_of_store[budget.url] = budget.is_away
    if not budget.is_away:
        resolve_alerts(dedupe_key=_STORE_AWAY, now=now)
        return
    raise_alert(
        kind=_STORE_AWAY,
        severity=Severity.WARNING,
        title="Redis is away: brokers' request budgets are not shared",
        message="Each process keeps to a small share of its own, and stops always go; check Redis.",
        dedupe_key=_STORE_AWAY,
        now=now,
    )


def learn(heard: Mapping[int, Sequence[Heard]], *, budget: Budget | None = None) -> None:
    """Correct the budgets of accounts by what their brokers said, given by account; touches no database."""
    for account_id, said in heard.items():
        limits = [one.limit for one in said if one.limit is not None]
        turned_away = [one for one in said if one.turned_away]
        if limits and limits[-1] < UNLIMITED:
            _told_limits[account_id] = limits[-1]
        elif limits:
            _told_limits.pop(account_id, None)
        if not turned_away and (not limits or limits[-1] >= UNLIMITED):
            continue
        windows = [one for one in said if one.remaining is not None and one.reset_seconds is not None]
        # answers of one burst come in any order: the one that knows of most requests is right
        least = min(windows, key=lambda one: (-(one.reset_seconds or 0) // 5, one.remaining or 0), default=None)
        (budget or shared_budget()).learn(account_id=account_id, heard=(turned_away or [least or said[-1]])[0])


def heard_with(failure: BrokerError | None) -> Heard | None:
    """Return what this thread's last call has heard, also of a venue whose limit is told by its errors alone."""
    heard = take_heard()
    if isinstance(failure, Refused) and failure.kind is RefusalKind.RATE_LIMITED and not (heard and heard.turned_away):
        return Heard(turned_away=True, reset_seconds=failure.retry_after)
    return heard


def note_answers(errors: Mapping[int, Sequence[BrokerError | None]], *, now: datetime) -> None:
    """Keep what calls said about each account's broker: None for an answer, else the error in its place."""
    for account_id, said in errors.items():
        why = next((str(error) for error in reversed(said) if error is not None), "")
        note_verdicts(account_id=account_id, verdicts=[judge(error) for error in said], why=why, now=now)


def note_clocks(heard: Mapping[int, Sequence[Heard]], *, database_ahead: float, now: datetime) -> None:
    """Keep how far the clocks of brokers are from the database's, in whole seconds."""
    for account_id, said in heard.items():
        ahead = [one.clock_ahead_seconds for one in said if one.clock_ahead_seconds is not None]
        if not ahead:
            continue
        skew = round(ahead[-1] - database_ahead) * 1000
        noted, until = _noted_skews.get(account_id, (None, now))
        if noted is None or abs(skew - noted) > 1000 or now > until:
            _noted_skews[account_id] = (skew, now + SKEW_NOTED_EVERY)
            breaker.note_clock_skew(account_id=account_id, skew_ms=skew, warn_above_ms=MAX_CLOCK_SKEW_MS, now=now)


def put_off_error(error: BrokerError) -> BrokerError:
    """Return the error an order is settled by: refused keys say nothing against it, so it waits until they are right.

    A broker that turned us away is not asked sooner than it said.
    """
    if judge(error) is breaker.Verdict.KEYS_REFUSED and isinstance(error, Refused):
        return HeldBack(f"held back: the broker refuses the account's keys: {error}", retry_after=BREAKER_WAIT_SECONDS)
    return error


def levels(connect: Connect, account_ids: Collection[int], *, budget: Budget | None = None) -> dict[int, Level | None]:
    """Return what is left of each account's budget; an account without a limit is left out, None is untold."""
    broker_for = connect(account_ids)
    limits = {account_id: limit_of(account_id, broker_for) for account_id in account_ids}
    return {
        account_id: (budget or shared_budget()).level(account_id=account_id, limit=limit)
        for account_id, limit in limits.items()
        if limit is not None
    }
