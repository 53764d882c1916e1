"""Claim, call, settle: how an order reaches its broker once. No transaction is open while the broker is called.

The claim is a compare-and-swap with an epoch and a lease on the database's clock. Whoever claims an order that was
claimed before looks it up by its client order id first. What the broker says is booked by `orders.updates`.
Breaker and budget (`orders.gate`) are asked before the claim: what may not go yet burns no lease.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from django.db import connection

from alerts.notices import resolve_alerts
from orders import gate
from orders.brokers.headers import Heard, take_heard
from orders.brokers.protocol import OrderClass, OrderRef, OrderReport, OrderSide, OrderType, SubmitRequest, TimeInForce
from orders.errors import (
    BrokerError,
    LeaseOver,
    NeverProven,
    NotSent,
    OutcomeUnknown,
    RefusalKind,
    Refused,
    StillUnknown,
)
from orders.gate import admit, heard_with, learn, note_answers, note_clocks, put_off_error
from orders.limits import CALL_SECONDS, LEASE_SECONDS
from orders.outcomes import outcome_unknown_key, settle_failure, unreachable_key
from orders.states import CLAIMABLE, LIVE
from orders.updates import apply_reports
from positions.fields import plain

log = logging.getLogger(__name__)

#: Orders of one doorbell that are at the broker at the same time.
CONCURRENCY = 8
#: How long the first answer of several waits for the next ones before they are settled.
LINGER_SECONDS = 0.004

_TOO_MUCH = RefusalKind.HELD_QUANTITY
_AT_ONCE = 0.01


BrokerFor = gate.BrokerFor
Connect = gate.Connect
Clock = gate.Clock


@lru_cache(maxsize=1)
def _pool(_process_id: int) -> ThreadPoolExecutor:
    """Return this process's threads; a fork must not inherit an executor whose threads stayed behind."""
    return ThreadPoolExecutor(max_workers=CONCURRENCY, thread_name_prefix="broker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An order this worker may send until its lease ends."""

    order_id: int
    account_id: int
    epoch: int
    #: Latest moment at which a former try may have left us, None when every former one provably did not.
    maybe_sent_at: datetime | None
    #: Whether the position still holds what an exit is to sell; an entry always is.
    covered: bool
    #: `time.monotonic()` after which no call may begin; the wall clock may be stepped.
    call_before: float
    request: SubmitRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one claimed order: a report, or why there is none."""

    claimed: Claimed
    report: OrderReport | None
    error: BrokerError | None
    #: What the broker said beside it of its limits and its clock.
    heard: Heard | None = None


def submit(*, order_ids: Sequence[int], worker: str, connect: Connect, clock: Clock) -> int:
    """Send the orders that this worker may send and can claim, and return how many it claimed.

    A second delivery of the same ids finds them claimed and sends nothing.
    """
    admitted = admit(order_ids=order_ids, connect=connect, now=clock())
    claimed = claim(order_ids=admitted.order_ids, worker=worker) if admitted.order_ids else []
    admitted.give_back_unclaimed({one.order_id for one in claimed})
    if not claimed:
        return 0
    broker_for = admitted.broker_for
    pool = _pool(os.getpid())
    # the pool starts them in this order, so the most urgent leaves first
    pending: set[Future[Answer]] = {pool.submit(send, one, broker_for, clock) for one in claimed}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        if pending:  # answers of a burst come close together, and settling them together costs far less
            later, pending = wait(pending, timeout=LINGER_SECONDS)
            done |= later
        answers = [future.result() for future in done]
        heard = _heard_by_account(answers)
        learn(heard)
        settle(answers, clock=clock)
        note_clocks(heard, database_ahead=admitted.database_ahead, now=clock())
    return len(claimed)


def _heard_by_account(answers: Sequence[Answer]) -> dict[int, list[Heard]]:
    heard: dict[int, list[Heard]] = {}
    for answer in answers:
        if answer.heard is not None:
            heard.setdefault(answer.claimed.account_id, []).append(answer.heard)
    return heard


_CLAIM = """
WITH due AS (
    SELECT o.id, o.position_id, GREATEST(o.maybe_sent_at, o.lease_until) AS maybe_sent_at
      FROM orders_order o JOIN positions_account a ON a.id = o.account_id,
           (SELECT COALESCE(min(state), 'active') AS state FROM positions_tradingswitch) s
     WHERE o.id = ANY(%(ids)s::bigint[]) AND o.state = ANY(%(claimable)s) AND NOT o.waits
       AND (o.lease_until IS NULL OR o.lease_until < clock_timestamp())
       AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= clock_timestamp())
       AND (o.lane = 'emergency'
            OR o.intent = 'exit' AND 'halted' NOT IN (a.trading_state, s.state)
            OR a.trading_state = 'active' AND s.state = 'active'
               AND NOT EXISTS (
                   SELECT 1 FROM positions_position h JOIN orders_order x ON x.position_id = h.id
                    WHERE h.account_id = o.account_id AND h.instrument_id = o.instrument_id AND h.status <> 'closed'
                      AND x.intent = 'exit' AND NOT x.resting AND x.state = ANY(%(live)s)))
     ORDER BY o.urgency, o.id
       FOR UPDATE OF o SKIP LOCKED
)
UPDATE orders_order o
   SET state = 'submitting', epoch = o.epoch + 1, claimed_by = %(worker)s, next_attempt_at = NULL,
       lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
       submitted_at = COALESCE(o.submitted_at, clock_timestamp()),
       maybe_sent_at = due.maybe_sent_at
  FROM due LEFT JOIN positions_position p ON p.id = due.position_id, positions_instrument i
 WHERE o.id = due.id AND i.id = o.instrument_id
RETURNING o.id, o.account_id, o.epoch, o.maybe_sent_at, o.urgency, o.client_order_id, i.symbol, o.side, o.quantity,
          o.order_type, o.time_in_force, o.limit_price, o.stop_price, o.trail_price, o.trail_percent,
          o.intent = 'entry' OR p.quantity - p.exited >= o.quantity - o.filled_quantity, o.order_class
"""


def claim(*, order_ids: Sequence[int], worker: str) -> list[Claimed]:
    """Take the lease of every order that is due and may be sent now, the most urgent first.

    A halted account sends only emergencies, a reduce-only one only exits, and so does the switch over all accounts.
    An entry waits while its account is leaving anything in the same symbol. All of that is read in the same statement.
    """
    call_before = time.monotonic() + LEASE_SECONDS - CALL_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM,
            {
                "ids": list(order_ids),
                "claimable": [str(state) for state in CLAIMABLE],
                "live": [str(state) for state in LIVE],
                "worker": worker,
                "lease": LEASE_SECONDS,
            },
        )
        rows = sorted(cursor.fetchall(), key=lambda row: (row[4], row[0]))
    return [
        Claimed(
            order_id=row[0],
            account_id=row[1],
            epoch=row[2],
            maybe_sent_at=row[3],
            covered=row[15],
            call_before=call_before,
            request=SubmitRequest(
                client_order_id=row[5],
                symbol=row[6],
                side=OrderSide(row[7]),
                quantity=plain(row[8]),
                order_type=OrderType(row[9]),
                time_in_force=TimeInForce(row[10]),
                limit_price=_trimmed(row[11]),
                # the row of an OCO is its target; its stop price is that of the other leg
                stop_price=None if row[16] == OrderClass.OCO else _trimmed(row[12]),
                stop_leg_stop=_trimmed(row[12]) if row[16] == OrderClass.OCO else None,
                order_class=OrderClass(row[16]),
                trail_price=_trimmed(row[13]),
                trail_percent=_trimmed(row[14]),
            ),
        )
        for row in rows
    ]


def _trimmed(number: Decimal | None) -> Decimal | None:
    return None if number is None else plain(number)


def send(claimed: Claimed, broker_for: BrokerFor, clock: Clock) -> Answer:
    """Place one claimed order at its broker; runs in a pool thread and touches no database.

    Whoever is not the first to claim it asks first whether it is already there.
    """
    take_heard()
    report, error = _place(claimed, broker_for, clock)
    return Answer(claimed, report, error, heard_with(error))


def _place(
    claimed: Claimed, broker_for: BrokerFor, clock: Clock
) -> tuple[OrderReport, None] | tuple[None, BrokerError]:
    try:
        found = _look_up(claimed, broker_for, clock) if claimed.epoch > 1 else None
        if found is not None:
            return found, None
        if not claimed.covered:
            raise Refused("the position holds less than this order would sell", kind=_TOO_MUCH, permanent=True)
        if time.monotonic() > claimed.call_before:
            raise LeaseOver("the broker is slow; the lease may end before its answer", retry_after=_AT_ONCE)
        return broker_for(claimed.account_id).submit(claimed.request), None
    except BrokerError as error:
        return None, error
    except Exception as error:
        # an adapter's own defect must not lose the order: its outcome is unknown
        log.exception("adapter_failed order_id=%s", claimed.order_id)
        return None, OutcomeUnknown(f"{type(error).__name__}: {error}")


def _look_up(claimed: Claimed, broker_for: BrokerFor, clock: Clock) -> OrderReport | None:
    """Return what the broker knows of a former try, or None once it is certain that there is nothing.

    :raises NotSent: the broker cannot be reached, and no former try can have left us either.
    :raises StillUnknown: the lookup failed, or the venue may yet show a try that is on its way.
    :raises NeverProven: it shows none, which proves nothing where the same order is taken twice.
    """
    try:
        broker = broker_for(claimed.account_id)
        found = broker.find_order(
            OrderRef(client_order_id=claimed.request.client_order_id, symbol=claimed.request.symbol)
        )
    except BrokerError as error:
        if isinstance(error, NotSent) and claimed.maybe_sent_at is None:
            raise
        raise StillUnknown(f"the lookup before another try failed: {error}") from error
    if found is None and claimed.maybe_sent_at is not None:
        settled_at = claimed.maybe_sent_at + timedelta(seconds=broker.capabilities.settle_after_seconds)
        if clock() < settled_at:
            raise StillUnknown("not found yet; a former try may still be on its way")
        if not broker.capabilities.durable_dedupe:
            raise NeverProven("not found, and this venue would take it a second time if it arrived after all")
    return found


def settle(answers: Sequence[Answer], *, clock: Clock) -> None:
    """Book what came back: reports through the one function for updates, failures under the claim's epoch."""
    now = clock()
    by_account: dict[int, list[OrderReport]] = {}
    for answer in answers:
        if answer.report is not None:
            by_account.setdefault(answer.claimed.account_id, []).append(answer.report)
    for account_id, reports in by_account.items():
        apply_reports(account_id=account_id, reports=reports, now=now)
    for answer in answers:
        if answer.report is not None and answer.claimed.epoch > 1:
            resolve_alerts(dedupe_key=unreachable_key(answer.claimed.account_id), now=now)
            resolve_alerts(dedupe_key=outcome_unknown_key(answer.claimed.order_id), now=now)
        if answer.error is not None:
            error = put_off_error(answer.error)
            settle_failure(order_id=answer.claimed.order_id, epoch=answer.claimed.epoch, error=error, now=now)
    errors: dict[int, list[BrokerError | None]] = {}
    for answer in answers:
        errors.setdefault(answer.claimed.account_id, []).append(answer.error)
    note_answers(errors, now=now)
