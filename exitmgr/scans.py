"""The scan: quotes in, exit orders out. Set-based: its cost follows what fires, not what is held.

One transaction takes the quotes that changed (rows another scan holds are skipped), probes the armed levels by
index, lets the pure rules decide, writes orders and reservations, and clears the intervals it consumed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from exitmgr.exits import ExitIntent, make_exits
from exitmgr.models import Trigger
from exitmgr.rules.fire import by_precedence, fire_level
from exitmgr.rules.types import Decision, Direction, LevelTrigger, Urgency
from exitmgr.states import TriggerStatus
from orders.models import Order
from positions.fields import plain
from positions.locks import lock_positions
from positions.models import Position
from positions.rows import write_back
from positions.values import Basis, Range, Snapshot

log = logging.getLogger(__name__)

#: Symbols one transaction takes, and triggers it fires: small enough that the first exits leave early.
SYMBOLS_AT_ONCE = 10_000
TRIGGERS_AT_ONCE = 1_000
#: A price older than this decides nothing; the interval stays until a fresh one comes.
MAX_AGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan did."""

    symbols: int = 0
    candidates: int = 0
    orders: int = 0
    more: bool = False


@dataclass(slots=True)
class _Candidate:
    trigger_id: int
    position_id: int
    rule: LevelTrigger
    armed_seq: int
    instrument_id: int


_TAKE = """
SELECT q.instrument_id
  FROM positions_quote q
 WHERE {which} AND q.received_at >= %(fresh_since)s
 ORDER BY q.instrument_id
 LIMIT %(symbols)s
   FOR UPDATE SKIP LOCKED
"""

# Each probe is a range of the partial index (instrument, basis, direction, level) that is empty unless something
# fires; LIMIT inside the lateral keeps the planner from turning four probes a symbol into one pass over all triggers.
# What the rules would not fire is left out, or it would crowd out what they would: triggers armed after the interval's
# extremes, and targets of positions that are wholly claimed.
_ONE_PROBE = """
       (SELECT t.* FROM exitmgr_trigger t
         WHERE t.status = 'armed' AND t.kind = 'level' AND t.instrument_id = q.instrument_id
           AND t.basis = '{basis}' AND t.direction = '{direction}' AND t.level {comparison} q.{extreme}
           AND (t.armed_seq <= q.from_seq OR t.level {comparison} q.{basis})
           AND (t.urgency <= {stop} OR EXISTS (SELECT FROM positions_position p
                                                WHERE p.id = t.position_id AND p.quantity > p.exited + p.reserved))
         LIMIT %(triggers)s)"""
_SIDES = (
    ("bid", "fall", ">=", "bid_low"),
    ("ask", "rise", "<=", "ask_high"),
    ("bid", "rise", "<=", "bid_high"),
    ("ask", "fall", ">=", "ask_low"),
)
_PROBE = """
SELECT hit.id, hit.position_id, hit.basis, hit.direction, hit.level, hit.fraction_pct, hit.reason, hit.rung,
       hit.armed_seq, q.instrument_id
  FROM positions_quote q
 CROSS JOIN LATERAL ({probes}
       ) AS hit
 WHERE q.instrument_id = ANY(%(ids)s)
 ORDER BY hit.urgency, hit.id
 LIMIT %(triggers)s
""".format(
    probes="\n       UNION ALL".join(
        _ONE_PROBE.format(
            basis=basis, direction=direction, comparison=comparison, extreme=extreme, stop=int(Urgency.STOP)
        )
        for basis, direction, comparison, extreme in _SIDES
    )
)

_CLEAR = """
UPDATE positions_quote
   SET dirty = false, from_seq = seq, scanned_at = %(now)s,
       bid_low = bid, bid_high = bid, ask_low = ask, ask_high = ask, last_low = last, last_high = last
 WHERE instrument_id = ANY(%(ids)s) AND dirty
"""


def scan(*, now: datetime, instrument_ids: Collection[int] | None = None, everything: bool = False) -> Scanned:
    """Fire whatever the latest prices, and their extremes since the last scan, have reached.

    By default the quotes that changed; `instrument_ids` looks at those in any case, `everything` at all of them.
    """
    total = Scanned()
    while True:
        done = _scan_once(now=now, instrument_ids=instrument_ids, everything=everything)
        total = Scanned(total.symbols + done.symbols, total.candidates + done.candidates, total.orders + done.orders)
        if not done.more:
            return total


def _scan_once(*, now: datetime, instrument_ids: Collection[int] | None, everything: bool) -> Scanned:
    with transaction.atomic(durable=True):
        taken = _take(now=now, instrument_ids=instrument_ids, everything=everything)
        if not taken:
            return Scanned()
        candidates = _probe(taken)
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
        which = "q.instrument_id = ANY(%(wanted)s)"
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE.format(which=which),
            {"fresh_since": now - MAX_AGE, "symbols": SYMBOLS_AT_ONCE, "wanted": list(instrument_ids or [])},
        )
        return [row[0] for row in cursor.fetchall()]


def _probe(instrument_ids: Sequence[int]) -> list[_Candidate]:
    with connection.cursor() as cursor:
        cursor.execute(_PROBE, {"ids": list(instrument_ids), "triggers": TRIGGERS_AT_ONCE})
        return [
            _Candidate(
                trigger_id=row[0],
                position_id=row[1],
                rule=LevelTrigger(
                    basis=Basis(row[2]),
                    direction=Direction(row[3]),
                    level=plain(row[4]),
                    fraction_pct=row[5],
                    reason=row[6],
                    rung=row[7],
                ),
                armed_seq=row[8],
                instrument_id=row[9],
            )
            for row in cursor.fetchall()
        ]


def _snapshots(instrument_ids: Collection[int]) -> dict[int, tuple[Snapshot, dict[str, Any]]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT q.instrument_id, i.symbol, q.bid, q.bid_low, q.bid_high, q.ask, q.ask_low, q.ask_high,
                   q.last, q.last_low, q.last_high, q.seq, q.from_seq, q.source_at, q.received_at, q.source
              FROM positions_quote q JOIN positions_instrument i ON i.id = q.instrument_id
             WHERE q.instrument_id = ANY(%s)
            """,
            [list(instrument_ids)],
        )
        return {row[0]: (_snapshot(row), _evidence(row)) for row in cursor.fetchall()}


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    return Snapshot(
        symbol=row[1],
        bid=Range(*map(plain, row[2:5])),
        ask=Range(*map(plain, row[5:8])),
        last=Range(*map(plain, row[8:11])),
        seq=row[11],
        from_seq=row[12],
        source_at=row[13],
        received_at=row[14],
    )


def _evidence(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("bid", "bid_low", "bid_high", "ask", "ask_low", "ask_high", "last")
    figures = {name: f"{plain(value):f}" for name, value in zip(names, row[2:9], strict=True)}
    return {**figures, "seq": row[11], "source": row[15], "source_at": row[13].isoformat()}


def _fire(candidates: Sequence[_Candidate], *, now: datetime) -> tuple[int, bool]:
    """Make the orders of what really fires; return how many, and whether no trigger left the scan."""
    seen = _snapshots({candidate.instrument_id for candidate in candidates})
    positions = lock_positions(candidate.position_id for candidate in candidates)
    decided: dict[int, list[tuple[Decision, _Candidate]]] = defaultdict(list)
    for candidate in candidates:
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
    return len(made), fired == 0


def _in_order(pairs: list[tuple[Decision, _Candidate]]) -> list[tuple[Decision, _Candidate]]:
    by_identity = {id(decision): candidate for decision, candidate in pairs}
    return [(decision, by_identity[id(decision)]) for decision in by_precedence(decision for decision, _ in pairs)]


def _intent(decision: Decision, position: Position, seen: tuple[Snapshot, dict[str, Any]]) -> ExitIntent:
    snapshot, evidence = seen
    return ExitIntent(position=position, decision=decision, priced_at=snapshot.received_at, quote=evidence)


def _mark(ranked: Sequence[tuple[Decision, _Candidate]], made: dict[int, Order], *, now: datetime) -> int:
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
