"""The scan: quotes in, exit orders out. Set-based: its cost follows what fires, not what is held.

One transaction takes the quotes that changed (rows another scan holds are skipped), probes the armed levels by
index, lets the pure rules decide, writes orders and reservations, and clears the intervals it consumed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.exits import ExitIntent, make_exits
from exitmgr.models import Trigger
from exitmgr.probes import Candidate, probe_levels, snapshots_of, still_armed
from exitmgr.rules.fire import by_precedence, fire_level
from exitmgr.rules.types import Decision, Urgency
from exitmgr.states import TriggerStatus
from orders.models import Order
from positions.belief import MAX_AGE
from positions.locks import lock_positions
from positions.models import Position, Quote
from positions.rows import write_back
from positions.values import Snapshot

log = logging.getLogger(__name__)

#: Symbols one transaction takes, and triggers it fires: small enough that the first exits leave early.
SYMBOLS_AT_ONCE = 10_000
TRIGGERS_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan did."""

    symbols: int = 0
    candidates: int = 0
    orders: int = 0
    more: bool = False

    def __add__(self, other: Scanned) -> Scanned:
        """Return what two scans did together."""
        return Scanned(self.symbols + other.symbols, self.candidates + other.candidates, self.orders + other.orders)


# A price that is too old decides nothing; its interval stays until a fresh one comes.
_TAKE = """
SELECT q.instrument_id
  FROM positions_quote q
 WHERE {which} AND q.received_at >= %(fresh_since)s
 ORDER BY q.instrument_id
 LIMIT %(symbols)s
   FOR UPDATE SKIP LOCKED
"""

_CLEAR = """
UPDATE positions_quote
   SET dirty = false, from_seq = seq, scanned_at = %(now)s,
       bid_low = bid, bid_high = bid, ask_low = ask, ask_high = ask, last_low = last, last_high = last
 WHERE instrument_id = ANY(%(ids)s::bigint[]) AND dirty
"""


def scan(
    *,
    now: datetime,
    instrument_ids: Collection[int] | None = None,
    everything: bool = False,
    after_batch: Callable[[], object] = lambda: None,
) -> Scanned:
    """Fire whatever the latest prices, and their extremes since the last scan, have reached.

    By default the quotes that changed; `instrument_ids` looks at those in any case, `everything` at all of them.
    An instrument that cannot be scanned calls a person and does not hold up the others. `after_batch` is called after
    each committed batch that leaves more to do.

    :raises OperationalError: the database went away.
    """
    try:
        return _scan_together(now=now, instrument_ids=instrument_ids, everything=everything, after_batch=after_batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("scan_failed: one by one from here")
    quotes = Quote.objects.all() if everything else Quote.objects.filter(dirty=True)
    if instrument_ids is not None and not everything:
        quotes = Quote.objects.filter(pk__in=instrument_ids)
    total = Scanned()
    for instrument_id in quotes.order_by("pk").values_list("pk", flat=True):
        try:
            total += _scan_together(now=now, instrument_ids=[instrument_id], everything=False, after_batch=after_batch)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("scan_failed instrument_id=%s", instrument_id)
            _alert_not_scanned(instrument_id, error, now=now)
    return total


def _scan_together(
    *, now: datetime, instrument_ids: Collection[int] | None, everything: bool, after_batch: Callable[[], object]
) -> Scanned:
    total = Scanned()
    while True:
        done = _scan_once(now=now, instrument_ids=instrument_ids, everything=everything)
        total += done
        if not done.more:
            return total
        after_batch()


def _scan_once(*, now: datetime, instrument_ids: Collection[int] | None, everything: bool) -> Scanned:
    with transaction.atomic(durable=True):
        taken = _take(now=now, instrument_ids=instrument_ids, everything=everything)
        if not taken:
            return Scanned()
        candidates = probe_levels(taken, limit=TRIGGERS_AT_ONCE)
        more = len(candidates) == TRIGGERS_AT_ONCE
        orders, idle = _fire(candidates, now=now) if candidates else (0, True)
        # a full batch leaves the intervals in place for the next one, unless it could not fire anything at all
        more = more and not idle
        if not more:
            with connection.cursor() as cursor:
                cursor.execute(_CLEAR, {"ids": taken, "now": now})
        return Scanned(len(taken), len(candidates), orders, more)


def _take(*, now: datetime, instrument_ids: Collection[int] | None, everything: bool) -> list[int]:
    which = "q.dirty"
    if everything:
        which = "true"
    elif instrument_ids is not None:
        which = "q.instrument_id = ANY(%(wanted)s::bigint[])"
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE.format(which=which),
            {"fresh_since": now - MAX_AGE, "symbols": SYMBOLS_AT_ONCE, "wanted": list(instrument_ids or [])},
        )
        return [row[0] for row in cursor.fetchall()]


def _fire(candidates: Sequence[Candidate], *, now: datetime) -> tuple[int, bool]:
    """Make the orders of what really fires; return how many, and whether no trigger left the scan."""
    seen = snapshots_of({candidate.instrument_id for candidate in candidates})
    positions = lock_positions(candidate.position_id for candidate in candidates)
    armed = still_armed(candidates)
    decided: dict[int, list[tuple[Decision, Candidate]]] = defaultdict(list)
    for candidate in armed:
        decision = fire_level(candidate.rule, seen[candidate.instrument_id][0], armed_seq=candidate.armed_seq)
        if decision is not None:
            decided[candidate.position_id].append((decision, candidate))
    ranked = [
        pair for pairs in decided.values() for pair in _in_order(pairs)
    ]  # within a position the most urgent claims first; between positions the sending lanes decide
    intents = [
        _intent(decision, positions[candidate.position_id], seen[candidate.instrument_id])
        for decision, candidate in ranked
    ]
    made = make_exits(intents, now=now, actor="scan")
    fired = _mark(ranked, made, now=now)
    return len(made), fired == 0 and len(armed) == len(candidates)


def _in_order(pairs: list[tuple[Decision, Candidate]]) -> list[tuple[Decision, Candidate]]:
    by_identity = {id(decision): candidate for decision, candidate in pairs}
    return [(decision, by_identity[id(decision)]) for decision in by_precedence(decision for decision, _ in pairs)]


def _intent(decision: Decision, position: Position, seen: tuple[Snapshot, dict[str, Any]]) -> ExitIntent:
    snapshot, evidence = seen
    return ExitIntent(position=position, decision=decision, priced_at=snapshot.received_at, quote=evidence)


def _mark(ranked: Sequence[tuple[Decision, Candidate]], made: dict[int, Order], *, now: datetime) -> int:
    """Move the triggers: with an order they have fired; a stop that found everything claimed waits as breached."""
    changed: list[Trigger] = []
    for index, (decision, candidate) in enumerate(ranked):
        order = made.get(index)
        if order is None and decision.urgency > Urgency.STOP:
            continue  # a target that finds everything claimed stays armed: the price may come again
        changed.append(
            Trigger(
                pk=candidate.trigger_id,
                status=TriggerStatus.FIRED if order else TriggerStatus.BREACHED,
                fired_at=now,
                seen_price=decision.seen_price,
                order=order,
            )
        )
    write_back(changed, fields=["status", "fired_at", "seen_price", "order"])
    return len(changed)


def _alert_not_scanned(instrument_id: int, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="scan_failed",
        severity=Severity.CRITICAL,
        title=f"Instrument {instrument_id} cannot be scanned",
        message=f"{type(error).__name__}: {error}. Its positions are NOT watched: mend its triggers or exit by hand.",
        dedupe_key=f"scan_failed:{instrument_id}",
        requires_action=True,
        now=now,
    )
