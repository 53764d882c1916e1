"""Finding what the latest prices may fire: index probes into the armed levels, and the prices they are judged on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any, Final, NamedTuple

from django.db import connection

from exitmgr.rules.types import Direction, Urgency
from positions.fields import plain
from positions.values import Basis, Range, Snapshot


@dataclass(frozen=True, slots=True)
class Candidate:
    """An armed trigger that the prices have reached, as far as a probe can tell."""

    trigger_id: int
    position_id: int
    instrument_id: int


# The ids are cast because a list literal of small numbers would be compared one by one, not hashed.
# Each probe is a range of the partial index (instrument, basis, direction, level) that is empty unless something
# fires; LIMIT inside the lateral keeps the planner from turning four probes a symbol into one pass over all triggers.
# What the rules would not fire is left out, or it would crowd out what they would: triggers armed after the interval's
# extremes, and targets of positions that are wholly claimed; but a stop that rests at the broker makes room for them.
_ONE_PROBE: Final = """
       (SELECT t.* FROM exitmgr_trigger t
         WHERE t.status = 'armed' AND t.kind = 'level' AND t.instrument_id = q.instrument_id
           AND t.basis = '{basis}' AND t.direction = '{direction}' AND t.level {comparison} q.{basis}_{extreme}
           AND (t.armed_seq <= q.from_seq OR t.level {comparison} {price})
           AND (t.urgency <= {stop} OR EXISTS (SELECT FROM positions_position p
                                                WHERE p.id = t.position_id AND p.quantity > p.exited + p.reserved)
                OR EXISTS (SELECT FROM orders_order o
                            WHERE o.position_id = t.position_id AND o.resting AND o.ended_at IS NULL)){frozen}
         LIMIT %(triggers)s)"""
_PROBES: Final = """
SELECT hit.id, hit.position_id, hit.instrument_id
  FROM positions_quote q
 CROSS JOIN LATERAL ({probes}
       ) AS hit
 WHERE q.instrument_id = ANY(%(ids)s::bigint[])
 ORDER BY hit.urgency, hit.id
 LIMIT %(triggers)s
"""
# Asked only while some position is frozen.
_NOT_FROZEN: Final = """
           AND NOT EXISTS (SELECT FROM positions_position f WHERE f.id = t.position_id AND f.frozen_at IS NOT NULL)"""
# Hardly any plan is judged on these; that there is none costs one look at an index that is empty then.
_CHOOSABLE: Final = (Basis.LAST, Basis.MID)
_IN_USE: Final = """
SELECT EXISTS (SELECT FROM exitmgr_trigger WHERE basis = 'last' AND kind = 'level' AND status = 'armed'),
       EXISTS (SELECT FROM exitmgr_trigger WHERE basis = 'mid' AND kind = 'level' AND status = 'armed'),
       EXISTS (SELECT FROM exitmgr_trailcohort),
       EXISTS (SELECT FROM exitmgr_trailcohort WHERE basis IN ('last', 'mid')),
       EXISTS (SELECT FROM positions_position WHERE frozen_at IS NOT NULL AND status <> 'closed')
"""
_CROSSINGS: Final = ((Direction.FALL, ">=", "low"), (Direction.RISE, "<=", "high"))
_TRADABLE: Final = (Basis.BID, Basis.ASK)


@cache
def _probe_sql(chosen: frozenset[Basis], frozen: bool = False) -> str:
    """Return the probes of the tradable prices, and of those that plans have chosen instead."""
    return _PROBES.format(
        probes="\n       UNION ALL".join(
            _ONE_PROBE.format(
                basis=basis,
                direction=direction,
                comparison=comparison,
                extreme=extreme,
                price="(q.bid + q.ask) * 0.5" if basis is Basis.MID else f"q.{basis}",
                stop=int(Urgency.STOP),
                frozen=_NOT_FROZEN if frozen else "",
            )
            for basis in (*_TRADABLE, *sorted(chosen))
            for direction, comparison, extreme in _CROSSINGS
        )
    )


PROBE: Final = _probe_sql(frozenset())


class InUse(NamedTuple):
    """What has to be looked at: levels on other prices than the tradable ones, trails, trails on other prices.

    `frozen` says that some positions are, which have to be left out.
    """

    chosen: frozenset[Basis]
    trails: bool
    chosen_trails: bool
    frozen: bool


def rules_in_use() -> InUse:
    """Return what armed triggers ask for, so that a scan pays only for what is used."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_USE)
        last, mid, trails, chosen_trails, frozen = cursor.fetchone()
        return InUse(frozenset(compress(_CHOOSABLE, (last, mid))), trails, chosen_trails, frozen)


def probe_levels(
    instrument_ids: Sequence[int], *, chosen: frozenset[Basis], limit: int, frozen: bool = False
) -> list[Candidate]:
    """Return armed triggers that these instruments' prices, or the extremes since the last scan, have reached."""
    with connection.cursor() as cursor:
        cursor.execute(_probe_sql(chosen, frozen), {"ids": list(instrument_ids), "triggers": limit})
        return [Candidate(*row) for row in cursor.fetchall()]


def snapshots_of(instrument_ids: Collection[int]) -> dict[int, tuple[Snapshot, dict[str, Any]]]:
    """Return what the rules see of each instrument, and the same figures as evidence for the order."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT q.instrument_id, i.symbol, q.bid, q.bid_low, q.bid_high, q.ask, q.ask_low, q.ask_high,
                   q.last, q.last_low, q.last_high, (q.bid + q.ask) * 0.5, q.mid_low, q.mid_high,
                   q.seq, q.from_seq, q.source_at, q.received_at, q.source
              FROM positions_quote q JOIN positions_instrument i ON i.id = q.instrument_id
             WHERE q.instrument_id = ANY(%s::bigint[])
            """,
            [list(instrument_ids)],
        )
        return {row[0]: _seen(*row[1:]) for row in cursor.fetchall()}


_FIGURES: Final = tuple(f"{basis}{extreme}" for basis in Basis for extreme in ("", "_low", "_high"))


def _seen(symbol: str, *columns: Any) -> tuple[Snapshot, dict[str, Any]]:
    prices = tuple(map(plain, columns[:12]))
    seq, from_seq, source_at, received_at, source = columns[12:]
    bid, ask, last, mid = (Range(*prices[start : start + 3]) for start in range(0, 12, 3))
    snapshot = Snapshot(
        symbol=symbol, bid=bid, ask=ask, last=last, mid=mid, seq=seq, from_seq=from_seq,
        source_at=source_at, received_at=received_at,
    )  # fmt: skip
    figures = {name: f"{price:f}" for name, price in zip(_FIGURES, prices, strict=True)}
    spread = f"{ask.price - bid.price:f}"
    return snapshot, {**figures, "spread": spread, "seq": seq, "source": source, "source_at": source_at.isoformat()}
