"""Trails without a write per position: trails of one instrument that share their best price are one row, a cohort.

A new best price lifts every cohort below it and merges them into the largest, so a trail is moved O(log n) times in
its life; a scan compares one figure a cohort. Cohorts are changed under their quote's lock, and by a scan only after
the last position it needs was locked: nobody waits for a position with cohorts in hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Min

from exitmgr.models import Trail, TrailCohort, TrailUnit, Trigger
from exitmgr.probes import Candidate
from exitmgr.states import TriggerStatus
from positions.rows import write_back

_TRIGGERS_AT_ONCE: Final = 5_000
_COHORTS_AT_ONCE: Final = 1_000_000

# LIMIT inside the laterals keeps the planner on an index probe a symbol instead of one pass over all cohorts.
# What an index finds is a little more than what fires, because the percentage given back is a rounded quotient.
_REACHED: Final = """
       (SELECT c.id,
               CASE c.unit WHEN 'pct' THEN abs(c.best - p.at) * 100 / c.best + 1e-12
                           ELSE abs(c.best - p.at) END AS given_back
          FROM exitmgr_trailcohort c
          CROSS JOIN LATERAL (SELECT CASE WHEN c.seen_seq <= q.from_seq THEN {extreme} ELSE {price} END AS at) p
         WHERE c.instrument_id = q.instrument_id AND c.basis = '{basis}' AND c.direction = '{direction}'
           AND c.nearest {reaches} {extreme} AND c.nearest {reaches} p.at
         LIMIT %(triggers)s)"""
_FIND: Final = """
SELECT hit.id, hit.position_id, hit.instrument_id
  FROM positions_quote q
 CROSS JOIN LATERAL ({cohorts}
       ) AS cohort
 CROSS JOIN LATERAL (
       SELECT t.id, t.position_id, t.instrument_id
         FROM exitmgr_trail m JOIN exitmgr_trigger t ON t.id = m.trigger_id
        WHERE m.cohort_id = cohort.id AND m.offset <= cohort.given_back AND t.status = 'armed'
        ORDER BY m.offset
        LIMIT %(triggers)s
       ) AS hit
 WHERE q.instrument_id = ANY(%(ids)s::bigint[])
 LIMIT %(triggers)s
"""
_LIFTED: Final = """
       (SELECT c.id, c.unit, c.direction, c.basis, c.tightest, c.size, {price} AS price,
               CASE WHEN c.seen_seq <= q.from_seq THEN {other} ELSE {price} END AS best
          FROM exitmgr_trailcohort c
         WHERE c.instrument_id = q.instrument_id AND c.basis = '{basis}' AND c.direction = '{direction}'
           AND c.best {beaten} {other} AND (c.seen_seq <= q.from_seq OR c.best {beaten} {price})
         LIMIT {limit})"""
_FIND_LIFTED: Final = """
SELECT q.instrument_id, q.seq, lifted.*
  FROM positions_quote q
 CROSS JOIN LATERAL ({cohorts}
       ) AS lifted
 WHERE q.instrument_id = ANY(%(ids)s::bigint[])
 ORDER BY lifted.size DESC, lifted.id
"""
_PRICES: Final = {"bid": "q.bid", "ask": "q.ask", "last": "q.last", "mid": "((q.bid + q.ask) / 2)"}
#: What a position could trade at, which most trails follow, and what a plan may choose instead.
_TRADABLE: Final = (("bid", "fall"), ("ask", "rise"))
_CHOSEN: Final = (("last", "fall"), ("last", "rise"), ("mid", "fall"), ("mid", "rise"))


def _each_side(template: str, sides: Sequence[tuple[str, str]]) -> str:
    return "\n       UNION ALL".join(
        template.format(
            basis=basis,
            direction=direction,
            price=_PRICES[basis],
            extreme=f"q.{basis}_{'low' if direction == 'fall' else 'high'}",
            other=f"q.{basis}_{'high' if direction == 'fall' else 'low'}",
            reaches=">=" if direction == "fall" else "<=",
            beaten="<" if direction == "fall" else ">",
            limit=_COHORTS_AT_ONCE,
        )
        for basis, direction in sides
    )


_SIDES: Final = {False: _TRADABLE, True: (*_TRADABLE, *_CHOSEN)}
_FIND_BY_SIDES: Final = {all_: _FIND.format(cohorts=_each_side(_REACHED, sides)) for all_, sides in _SIDES.items()}
_LIFTED_BY_SIDES: Final = {
    all_: _FIND_LIFTED.format(cohorts=_each_side(_LIFTED, sides)) for all_, sides in _SIDES.items()
}


class _Lifted(NamedTuple):
    instrument_id: int
    seq: int
    id: int
    unit: str
    direction: str
    basis: str
    tightest: Decimal
    size: int
    price: Decimal
    best: Decimal


def probe_trails(instrument_ids: Sequence[int], *, chosen: bool, limit: int) -> list[Candidate]:
    """Return armed trails from whose best price these instruments' prices have given back enough.

    `chosen` says that some follow another price than the tradable one.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FIND_BY_SIDES[chosen], {"ids": list(instrument_ids), "triggers": limit})
        return [Candidate(*row) for row in cursor.fetchall()]


def lift_cohorts(instrument_ids: Sequence[int], *, chosen: bool) -> bool:
    """Follow the best prices of these instruments; return whether the price now has given back enough for some trail.

    Their quotes are locked by the caller.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LIFTED_BY_SIDES[chosen], {"ids": list(instrument_ids)})
        groups: Mapping[tuple[object, ...], list[_Lifted]] = defaultdict(list)
        for row in map(_Lifted._make, cursor.fetchall()):
            groups[row.instrument_id, row.basis, row.direction, row.unit, row.best].append(row)
    _merge(list(groups.values()))
    return any(_reached(group[0], tightest=min(row.tightest for row in group)) for group in groups.values())


def _merge(groups: Sequence[Sequence[_Lifted]]) -> None:
    """Lift the largest cohort of each group, which comes first, and move every trail of the smaller ones into it."""
    write_back(
        [
            TrailCohort(
                pk=group[0].id,
                best=group[0].best,
                seen_seq=group[0].seq,
                size=sum(row.size for row in group),
                tightest=min(row.tightest for row in group),
            )
            for group in groups
        ],
        fields=["best", "seen_seq", "size", "tightest"],
    )
    for largest, *smaller in groups:
        if smaller:
            gone = [row.id for row in smaller]
            Trail.objects.filter(cohort__in=gone).update(cohort=largest.id)
            TrailCohort.objects.filter(pk__in=gone).delete()


def _reached(lifted: _Lifted, *, tightest: Decimal) -> bool:
    offset = lifted.best * tightest / 100 if lifted.unit == TrailUnit.PERCENT else tightest
    return abs(lifted.best - lifted.price) >= offset


def join_cohorts(triggers: Mapping[int, Decimal], *, seq: int) -> None:
    """Let armed trails be followed from the best price each is given with; `seq` is the price this is based on."""
    if not triggers:
        return
    rows = Trigger.objects.filter(pk__in=triggers).order_by("pk")
    groups: Mapping[tuple[int, str, str, TrailUnit, Decimal], list[Trigger]] = defaultdict(list)
    for row in rows:
        unit = TrailUnit.PERCENT if row.offset_pct is not None else TrailUnit.PRICE
        groups[row.instrument_id, row.basis, row.direction, unit, triggers[row.pk]].append(row)
    members: list[Trail] = []
    for (instrument_id, basis, direction, unit, best), group in groups.items():
        offsets = [_offset(row) for row in group]
        cohort = TrailCohort.objects.create(
            instrument_id=instrument_id,
            basis=basis,
            direction=direction,
            unit=unit,
            best=best,
            tightest=min(offsets),
            size=len(group),
            seen_seq=seq,
        )
        members += [
            Trail(trigger=row, cohort=cohort, offset=offset) for row, offset in zip(group, offsets, strict=True)
        ]
    Trail.objects.bulk_create(
        members, update_conflicts=True, unique_fields=["trigger"], update_fields=["cohort", "offset"]
    )


def leave_cohorts(trigger_ids: Collection[int]) -> None:
    """Stop following trails that have fired."""
    Trail.objects.filter(pk__in=trigger_ids).delete()


def tidy_cohorts() -> int:
    """Forget trails that are armed no more, and empty cohorts; return how many trails were forgotten.

    What ends a trail leaves it here, because whoever holds a position must not wait for a cohort.
    """
    left = Trail.objects.exclude(trigger__status=TriggerStatus.ARMED)
    instruments = set(left.values_list("cohort__instrument", flat=True)[:_TRIGGERS_AT_ONCE])
    instruments |= set(
        TrailCohort.objects.filter(trails__isnull=True).values_list("instrument", flat=True)[:_TRIGGERS_AT_ONCE]
    )
    return sum(_tidy_instrument(instrument_id) for instrument_id in sorted(instruments))


def _tidy_instrument(instrument_id: int) -> int:
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM positions_quote WHERE instrument_id = %s FOR NO KEY UPDATE SKIP LOCKED", [instrument_id]
        )
        if cursor.fetchone() is None:
            return 0  # a scan is at it; there is a next time
        gone, _ = (
            Trail.objects.filter(cohort__instrument=instrument_id).exclude(trigger__status=TriggerStatus.ARMED).delete()
        )
        for cohort in TrailCohort.objects.filter(instrument=instrument_id).annotate(
            members=Count("trails"), nearest_offset=Min("trails__offset")
        ):
            if cohort.nearest_offset is None:
                cohort.delete()
            elif (cohort.members, cohort.nearest_offset) != (cohort.size, cohort.tightest):
                cohort.size, cohort.tightest = cohort.members, cohort.nearest_offset
                cohort.save(update_fields=["size", "tightest"])
        return gone


def _offset(trigger: Trigger) -> Decimal:
    offset = trigger.offset_pct if trigger.offset_pct is not None else trigger.offset
    assert offset is not None  # noqa: S101 - the database refuses a trail without one
    return offset
