"""What a new plan would change about a position and what it would fire; nothing is written here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from exitmgr.armed import best_prices, judge_spec
from exitmgr.models import Bracket, Trigger
from exitmgr.probes import snapshots_of
from exitmgr.queries import stops_now
from exitmgr.rules.compile import Compiled
from exitmgr.rules.fire import best_price, trail_level
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan
from exitmgr.rules.types import (
    Act,
    AnyTrigger,
    Direction,
    LevelTrigger,
    TrailTrigger,
    TriggerKind,
    Urgency,
    target_reason,
    urgency_of,
)
from exitmgr.states import TriggerStatus
from orders.states import TERMINAL
from positions.models import Position
from positions.values import Side, Snapshot

_SPENT: Final = (TriggerStatus.FIRED, TriggerStatus.BREACHED)
_BestSoFar = Mapping[int, tuple[Decimal, int]]


@dataclass(frozen=True, kw_only=True)
class PlanPreview:
    """What a new plan would change, prices in the quote currency.

    `stop_*` is the stop-loss alone, `tightest_*` the nearest of all armed stops, trails and break-even included.
    `would_fire` names the triggers the present price, or the clock, has reached already; `loosens` says that one of
    the two would give away more than it does now. Without a price nobody can say what would fire: `price` is None
    then.
    """

    plan: Plan
    stop_before: Decimal | None
    stop_after: Decimal | None
    tightest_before: Decimal | None
    tightest_after: Decimal | None
    targets_before: tuple[Decimal, ...]
    targets_after: tuple[Decimal, ...]
    price: Decimal | None
    would_fire: tuple[str, ...]
    loosens: bool
    notes: tuple[str, ...]


def preview_of(
    position: Position, bracket: Bracket | None, plan: Plan, compiled: Compiled, *, now: datetime
) -> PlanPreview:
    """Return what a compiled plan would change about a position and its bracket."""
    seen = snapshots_of([position.instrument_id]).get(position.instrument_id, (None, {}))[0]
    side = Side(position.side)
    standing = standing_triggers(bracket)
    coming = list(_coming(standing, compiled.triggers, seen))
    before, tightest_before = bracket.stop_price if bracket else None, stops_now([position.pk]).get(position.pk)
    after, tightest_after = compiled.stop_price, _tightest(coming, side=side, seen=seen)
    return PlanPreview(
        plan=plan,
        stop_before=before,
        stop_after=after,
        tightest_before=tightest_before,
        tightest_after=tightest_after,
        targets_before=tuple(Decimal(price) for price in bracket.target_prices) if bracket else (),
        targets_after=compiled.target_prices,
        price=None if seen is None else (seen.bid if side is Side.LONG else seen.ask).price,
        would_fire=tuple(spec.slot for spec in coming if judge_spec(spec, seen, now=now) is not None),
        loosens=_gives_more(before, after, side=side) or _gives_more(tightest_before, tightest_after, side=side),
        notes=compiled.notes,
    )


def standing_triggers(bracket: Bracket | None) -> dict[str, Trigger]:
    """Return what counts of a bracket's triggers, by slot: what was called off or is armed anew does not."""
    if bracket is None:
        return {}
    anew = slots_anew(bracket)
    rows = bracket.triggers.exclude(status=TriggerStatus.CANCELLED).order_by("pk")
    return {row.slot: row for row in rows if not (row.status == TriggerStatus.FIRED and row.slot in anew)}


def slots_anew(bracket: Bracket) -> frozenset[str]:
    """Return the slots whose firing does not count any more when the plan is changed.

    Those that wanted everything out and did not get it, because their order has ended and the position has not; and
    those of parts that were taken out of the plan since: what is put in again begins again.
    """
    plan = parse_plan(bracket.plan)
    fired = bracket.triggers.filter(status=TriggerStatus.FIRED)
    failed = fired.filter(fraction_pct=100, order__state__in=TERMINAL).values_list("slot", flat=True)
    return frozenset(failed) | {slot for slot in fired.values_list("slot", flat=True) if not _has_slot(plan, slot)}


def require_fired_rungs_kept(bracket: Bracket, plan: Plan) -> None:
    """Refuse other terms for a rung that has fired: it stays fired, so they would never take effect.

    :raises InvalidPlan: naming each such rung.
    """
    before, standing = parse_plan(bracket.plan).take_profits, standing_triggers(bracket)
    problems: dict[str, str] = {}
    for index, (was, wanted) in enumerate(zip(before, plan.take_profits, strict=False)):
        row = standing.get(target_reason(index + 1))
        if row is not None and row.status in _SPENT and was != wanted:
            at = "" if row.seen_price is None else f" at {row.seen_price:f}"
            problems[f"take_profits.{index}"] = (
                f"has fired{at} and stays fired; keep it as it is and put what is new after it"
            )
    if problems:
        raise InvalidPlan(problems)


def _has_slot(plan: Plan, slot: str) -> bool:
    """Return whether a plan has the part that a slot belongs to; `name_n` is the n-th of its kind."""
    part = slot.partition(":")[0]
    kind, _, number = part.rpartition("_")
    if number.isdecimal():
        return int(number) <= len(plan.take_profits if kind == "take_profit" else plan.trailing)
    return getattr(plan, "time_limit_seconds" if part == "time_limit" else part) is not None


def _coming(
    standing: Mapping[str, Trigger], specs: Collection[AnyTrigger], seen: Snapshot | None
) -> Iterator[AnyTrigger]:
    """Yield the exits that would be armed, trails as they would be followed."""
    spent = {slot for slot, row in standing.items() if row.status in _SPENT}
    fired = {slot for slot in spent if standing[slot].status == TriggerStatus.FIRED}
    so_far = best_prices(row.pk for row in standing.values() if row.kind == TriggerKind.TRAIL)
    for spec in specs:
        waits = spec.after and spec.after not in fired and not _is_started(standing.get(spec.slot))
        gate = isinstance(spec, LevelTrigger) and spec.act is not Act.EXIT
        if not (spec.slot in spent or waits or gate):
            yield _as_followed(spec, standing.get(spec.slot), so_far, seen) if isinstance(spec, TrailTrigger) else spec


def _is_started(row: Trigger | None) -> bool:
    return row is not None and row.status == TriggerStatus.ARMED


def _as_followed(trail: TrailTrigger, row: Trigger | None, so_far: _BestSoFar, seen: Snapshot | None) -> TrailTrigger:
    """Return a trail with the best of the prices it has, would begin with, and sees."""
    known = so_far[row.pk][0] if row is not None and row.pk in so_far else None
    better = max if trail.direction is Direction.FALL else min
    best = better((price for price in (trail.best, known) if price is not None), default=None)
    if best is None and seen is not None:
        best = seen.on(trail.basis).price
    return replace(trail, best=best)


def _tightest(coming: Collection[AnyTrigger], *, side: Side, seen: Snapshot | None) -> Decimal | None:
    stops = (_stop_level(spec, seen) for spec in coming if urgency_of(spec.reason) is Urgency.STOP)
    levels = [level for level in stops if level is not None]
    return (max if side is Side.LONG else min)(levels, default=None)


def _stop_level(spec: AnyTrigger, seen: Snapshot | None) -> Decimal | None:
    """Return where a stop would lie; a trail would be lifted to the price now at once."""
    if isinstance(spec, TrailTrigger):
        lifted = best_price(spec, seen, armed_seq=seen.seq + 1) if seen is not None else spec.best
        return trail_level(replace(spec, best=lifted))
    return spec.level if isinstance(spec, LevelTrigger) else None


def _gives_more(before: Decimal | None, after: Decimal | None, *, side: Side) -> bool:
    return before is not None and (after is None or side * (after - before) < 0)
