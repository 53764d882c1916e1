"""Triggers in and out of the scan: written when a plan is armed, started, moved and restarted as its rules say.

Whoever calls holds the position's lock. A trigger that has fired stays as it is; a changed one is judged on prices
from now on only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from exitmgr.armed import Armed, best_prices, stored_steps, triggers_in_slots, waiting_triggers
from exitmgr.models import Bracket, Trigger
from exitmgr.rules.consequences import next_step, restart, restart_gate, start, step_in_force
from exitmgr.rules.types import (
    AnyTrigger,
    Direction,
    LevelTrigger,
    TimerTrigger,
    TrailTrigger,
    TriggerKind,
    urgency_of,
)
from exitmgr.states import TriggerStatus
from exitmgr.trails import join_cohorts
from orders.brokers.protocol import OrderType
from positions.models import Position, Quote
from positions.rows import write_back
from positions.values import Basis

#: Not yet fired, and not called off.
LIVE_TRIGGERS: Final = (TriggerStatus.WAITING, TriggerStatus.ARMED, TriggerStatus.BREACHED)
_PENDING: Final = (TriggerStatus.WAITING, TriggerStatus.ARMED)
#: What a plan may change about a trigger that has not fired.
_TERMS: Final = (
    "basis", "direction", "level", "offset_pct", "offset", "due_at", "steps", "span_seconds", "move_pct",
    "fraction_pct", "after", "order_type", "time_in_force",
)  # fmt: skip
_GATES: Final = tuple(f"stagnation:{way}" for way in Direction)


def write_triggers(
    bracket: Bracket,
    specs: Sequence[AnyTrigger],
    *,
    position: Position,
    now: datetime,
    anew: Collection[str] = (),
    keep: Collection[str] = (),
) -> None:
    """Make a bracket's live triggers what its plan compiled to.

    A stagnation that runs already keeps its clock unless its terms changed; a trail keeps its best price unless the
    new one is better. The slots in `anew` are armed even if they have fired before; what is live in those of `keep`
    stays even if the plan came to nothing there.
    """
    known = {
        trigger.slot: trigger
        for trigger in bracket.triggers.exclude(status=TriggerStatus.CANCELLED).order_by("pk")
        if not (trigger.status == TriggerStatus.FIRED and trigger.slot in anew)
    }
    fired = {slot for slot, trigger in known.items() if trigger.status == TriggerStatus.FIRED}
    seq = _seq_now(position)
    unchanged_clock = _keeps_clock(known, specs)
    fresh: list[Trigger] = []
    moved: list[Trigger] = []
    for spec in specs:
        row = _row(spec, bracket=bracket, position=position, seq=seq, now=now)
        existing = known.get(spec.slot)
        if existing is None:
            row.status = TriggerStatus.WAITING if spec.after and spec.after not in fired else TriggerStatus.ARMED
            fresh.append(row)
        elif existing.status in _PENDING and not (unchanged_clock and spec.slot.startswith("stagnation")):
            waits = existing.status == TriggerStatus.WAITING and spec.after and spec.after not in fired
            row.pk, row.status = existing.pk, TriggerStatus.WAITING if waits else TriggerStatus.ARMED
            if any(getattr(existing, term) != getattr(row, term) for term in _TERMS):
                moved.append(row)
    wanted = {*keep, *(spec.slot for spec in specs)}
    gone = [row for slot, row in known.items() if row.status in LIVE_TRIGGERS and slot not in wanted]
    Trigger.objects.filter(pk__in=[row.pk for row in gone]).update(status=TriggerStatus.CANCELLED)
    Trigger.objects.bulk_create(fresh)
    write_back(moved, fields=[*_TERMS, "status", "armed_seq", "armed_at"])
    _follow_trails([*fresh, *moved], specs, unmoved=[*known.values()], position=position)


def start_waiting(fired: Mapping[tuple[int, str], tuple[Decimal, int]], *, now: datetime) -> int:
    """Arm what waited for slots that have fired, given as (bracket, slot) -> (price, its number); return how many."""
    waiting = waiting_triggers(bracket_ids={bracket_id for bracket_id, _ in fired}, after={slot for _, slot in fired})
    started: list[Trigger] = []
    best_of: dict[int, dict[int, Decimal]] = {}
    for armed in waiting:
        price, seq = fired.get((armed.bracket_id, armed.rule.after), (None, 0))
        if price is None or isinstance(armed.rule, TimerTrigger):
            continue
        rule = start(armed.rule, price=price)
        started.append(Trigger(pk=armed.trigger_id, status=TriggerStatus.ARMED, armed_seq=seq, armed_at=now))
        if isinstance(rule, TrailTrigger) and rule.best is not None:
            best_of.setdefault(seq, {})[armed.trigger_id] = rule.best
    write_back(started, fields=["status", "armed_seq", "armed_at"])
    for seq, bests in best_of.items():
        join_cohorts(bests, seq=seq)
    return len(started)


def restart_stagnations(moved: Mapping[int, tuple[Decimal, int]], *, now: datetime) -> int:
    """Measure the stagnations of brackets anew from where the price is now, given as bracket -> (price, its number).

    One that is over already is left to fire.
    """
    rows = triggers_in_slots(bracket_ids=set(moved), slots=("stagnation", *_GATES))
    timers = {row.bracket_id: row for row in rows if isinstance(row.rule, TimerTrigger)}
    changed: list[Trigger] = []
    for row in rows:
        timer = timers.get(row.bracket_id)
        if timer is not None and isinstance(timer.rule, TimerTrigger) and timer.rule.due_at > now:
            price, seq = moved[row.bracket_id]
            changed.append(_restarted(row, timer.rule, price=price, seq=seq, now=now))
    return write_back(changed, fields=["level", "due_at", "armed_seq", "armed_at"])


def take_steps(due: Iterable[Armed], *, seqs: Mapping[int, int], now: datetime) -> int:
    """Move decaying targets to the step whose time has come; `seqs` numbers the price of each instrument now."""
    moved: list[Trigger] = []
    for armed in due:
        if isinstance(armed.rule, LevelTrigger) and armed.rule.steps:
            level, due_at = _step_now(armed.rule, now=now)
            seq = seqs.get(armed.instrument_id, 0)
            moved.append(Trigger(pk=armed.trigger_id, level=level, due_at=due_at, armed_seq=seq, armed_at=now))
    return write_back(moved, fields=["level", "due_at", "armed_seq", "armed_at"])


def _restarted(row: Armed, timer: TimerTrigger, *, price: Decimal, seq: int, now: datetime) -> Trigger:
    level, due_at = None, None
    if isinstance(row.rule, LevelTrigger):
        level = restart_gate(row.rule, price=price, move_pct=timer.move_pct or Decimal(0)).level
    else:
        due_at = restart(timer, at=now).due_at
    return Trigger(pk=row.trigger_id, level=level, due_at=due_at, armed_seq=seq, armed_at=now)


def _keeps_clock(known: Mapping[str, Trigger], specs: Sequence[AnyTrigger]) -> bool:
    running = known.get("stagnation")
    asked = next((spec for spec in specs if spec.slot == "stagnation"), None)
    return (
        running is not None
        and isinstance(asked, TimerTrigger)
        and (running.span_seconds, running.move_pct) == (asked.span_seconds, asked.move_pct)
    )


def _follow_trails(
    changed: Sequence[Trigger], specs: Sequence[AnyTrigger], *, unmoved: Sequence[Trigger], position: Position
) -> None:
    """Let armed trails be followed; one that is followed already goes on from the better of both best prices.

    A best price that goes on keeps its number, so that a better one no scan has seen yet still counts.
    """
    asked = {spec.slot: spec for spec in specs if isinstance(spec, TrailTrigger)}
    rows = {row.pk: row for row in (*unmoved, *changed) if row.status == TriggerStatus.ARMED and row.slot in asked}
    if not rows:
        return
    quote = Quote.objects.filter(pk=position.instrument_id).first()
    so_far = best_prices(rows)
    joining: Mapping[int, dict[int, Decimal]] = defaultdict(dict)
    for pk, row in rows.items():
        spec = asked[row.slot]
        known, known_seq = so_far.get(pk, (None, 0))
        begun = spec.best if spec.best is not None or known is not None else _price_now(spec, position, quote)
        better = max if spec.direction is Direction.FALL else min
        best = better(price for price in (begun, known) if price is not None)
        if best != known or row in changed:
            seq = known_seq if best == known else (quote.seq if quote else 0)
            joining[seq][pk] = best
    for seq, bests in joining.items():
        join_cohorts(bests, seq=seq)


def _price_now(spec: TrailTrigger, position: Position, quote: Quote | None) -> Decimal:
    """Return where a trail begins that was started before and is armed again: at the price now."""
    if quote is None:
        return position.average_entry
    price: Decimal = (quote.bid + quote.ask) / 2 if spec.basis is Basis.MID else getattr(quote, spec.basis)
    return price


def _row(spec: AnyTrigger, *, bracket: Bracket, position: Position, seq: int, now: datetime) -> Trigger:
    special: dict[str, Any]
    if isinstance(spec, TimerTrigger):
        special = {"due_at": spec.due_at, "span_seconds": spec.span_seconds, "move_pct": spec.move_pct}
        kind = TriggerKind.TIMER
    elif isinstance(spec, TrailTrigger):
        special = {"offset_pct": spec.offset_pct, "offset": spec.offset}
        kind = TriggerKind.TRAIL
    else:
        level, due_at = _step_now(spec, now=now) if spec.steps else (spec.level, None)
        special = {"level": level, "due_at": due_at, "steps": stored_steps(spec.steps), "rung": spec.rung}
        special["act"] = spec.act
        kind = TriggerKind.LEVEL
    return Trigger(
        bracket=bracket,
        position=position,
        instrument_id=position.instrument_id,
        slot=spec.slot,
        kind=kind,
        basis=spec.basis,
        direction=spec.direction,
        fraction_pct=spec.fraction_pct,
        reason=spec.reason,
        urgency=urgency_of(spec.reason),
        after=spec.after,
        order_type=OrderType.LIMIT if spec.order.limit else OrderType.MARKET,
        time_in_force=spec.order.time_in_force,
        armed_seq=seq,
        armed_at=now,
        **special,
    )


def _step_now(rule: LevelTrigger, *, now: datetime) -> tuple[Decimal | None, datetime | None]:
    """Return the level a decaying target lies at, and when it takes its next step."""
    reached, coming = step_in_force(rule.steps, at=now), next_step(rule.steps, at=now)
    return reached.level if reached else None, coming.due_at if coming else None


def _seq_now(position: Position) -> int:
    return Quote.objects.filter(pk=position.instrument_id).values_list("seq", flat=True).first() or 0
