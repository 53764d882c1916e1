"""Finding what the latest prices may fire: index probes into the armed levels, and the prices they are judged on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import connection

from exitmgr.models import Trigger
from exitmgr.rules.types import Direction, LevelTrigger, Urgency
from exitmgr.states import TriggerStatus
from positions.fields import plain
from positions.values import Basis, Range, Snapshot


@dataclass(slots=True)
class Candidate:
    """An armed trigger whose level the prices have reached, as far as the probe can tell."""

    trigger_id: int
    position_id: int
    rule: LevelTrigger
    armed_seq: int
    instrument_id: int


# The ids are cast because a list literal of small numbers would be compared one by one, not hashed.
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
PROBE = """
SELECT hit.id, hit.position_id, hit.basis, hit.direction, hit.level, hit.fraction_pct, hit.reason, hit.rung,
       hit.armed_seq, q.instrument_id
  FROM positions_quote q
 CROSS JOIN LATERAL ({probes}
       ) AS hit
 WHERE q.instrument_id = ANY(%(ids)s::bigint[])
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


def probe_levels(instrument_ids: Sequence[int], *, limit: int) -> list[Candidate]:
    """Return armed triggers that these instruments' prices, or the extremes since the last scan, have reached."""
    with connection.cursor() as cursor:
        cursor.execute(PROBE, {"ids": list(instrument_ids), "triggers": limit})
        return [
            Candidate(
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


def snapshots_of(instrument_ids: Collection[int]) -> dict[int, tuple[Snapshot, dict[str, Any]]]:
    """Return what the rules see of each instrument, and the same figures as evidence for the order."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT q.instrument_id, i.symbol, q.bid, q.bid_low, q.bid_high, q.ask, q.ask_low, q.ask_high,
                   q.last, q.last_low, q.last_high, q.seq, q.from_seq, q.source_at, q.received_at, q.source
              FROM positions_quote q JOIN positions_instrument i ON i.id = q.instrument_id
             WHERE q.instrument_id = ANY(%s::bigint[])
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


def still_armed(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates as they stand under the positions' locks: while we waited, a plan may have changed."""
    rows = Trigger.objects.filter(
        pk__in=[candidate.trigger_id for candidate in candidates], status=TriggerStatus.ARMED
    ).values_list("pk", "level", "fraction_pct", "armed_seq")
    now_armed = {pk: (level, fraction_pct, seq) for pk, level, fraction_pct, seq in rows if level is not None}
    still: list[Candidate] = []
    for candidate in candidates:
        if candidate.trigger_id in now_armed:
            level, fraction_pct, candidate.armed_seq = now_armed[candidate.trigger_id]
            candidate.rule = replace(candidate.rule, level=level, fraction_pct=fraction_pct)
            still.append(candidate)
    return still
