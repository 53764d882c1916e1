"""Trigger x price -> decision. The one place that says when a level is crossed; scan and replay share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from exitmgr.rules.types import Decision, Direction, LevelTrigger, TimerTrigger, TrailTrigger, Urgency
from positions.values import Range, Snapshot


def fire_level(trigger: LevelTrigger, seen: Snapshot, *, armed_seq: int) -> Decision | None:
    """Return a decision when the price is, or since the last scan was, at or beyond the level, else None.

    A trigger that was armed inside the current interval (`armed_seq > seen.from_seq`) is judged on the
    current price only, because the interval's extremes may be older than the trigger.
    """
    if trigger.level is None:
        return None
    return _crossed(trigger, trigger.level, seen.on(trigger.basis), fresh=armed_seq > seen.from_seq)


def fire_trail(trigger: TrailTrigger, seen: Snapshot, *, armed_seq: int) -> Decision | None:
    """Return a decision when the price has given back the trail's offset from its best, else None.

    Of a high and a low between two scans nobody knows which came first, so only what is certain fires: the worst price
    is held against the best one before the interval, and the price now, which came last, against the best one with it.
    `armed_seq` is the price the best one already takes into account.
    """
    level, on = trail_level(trigger), seen.on(trigger.basis)
    if level is None:
        return None
    decision = _crossed(trigger, level, on, fresh=armed_seq > seen.from_seq)
    best = best_price(trigger, seen, armed_seq=armed_seq)
    if decision is not None or best == trigger.best:
        return decision
    lifted = trail_level(replace(trigger, best=best))
    return None if lifted is None else _crossed(trigger, lifted, on, fresh=True)


def fire_timer(trigger: TimerTrigger, seen: Snapshot | None, *, now: datetime) -> Decision | None:
    """Return a decision when the time has come, else None; it needs no price, and says the one it saw."""
    if now < trigger.due_at:
        return None
    return Decision(
        reason=trigger.reason,
        fraction_pct=trigger.fraction_pct,
        trigger_price=None,
        seen_price=seen.on(trigger.basis).price if seen is not None else None,
        order=trigger.order,
    )


def trail_level(trigger: TrailTrigger) -> Decimal | None:
    """Return the price at which a trail fires, None before it started."""
    if trigger.best is None:
        return None
    sign = -1 if trigger.direction is Direction.FALL else 1
    if trigger.offset_pct is not None:
        return trigger.best * (1 + sign * trigger.offset_pct / 100)
    return trigger.best + sign * (trigger.offset or Decimal(0))


def best_price(trigger: TrailTrigger, seen: Snapshot, *, armed_seq: int) -> Decimal:
    """Return the best price after this one, from which the trail is measured next."""
    on = seen.on(trigger.basis)
    fresh = armed_seq > seen.from_seq
    if trigger.direction is Direction.FALL:
        now = on.price if fresh else max(on.high, on.price)
        return now if trigger.best is None else max(trigger.best, now)
    now = on.price if fresh else min(on.low, on.price)
    return now if trigger.best is None else min(trigger.best, now)


def _crossed(trigger: LevelTrigger | TrailTrigger, level: Decimal, on: Range, *, fresh: bool) -> Decision | None:
    if trigger.direction is Direction.FALL:
        extreme = on.price if fresh else min(on.low, on.price)
        crossed = extreme <= level
    else:
        extreme = on.price if fresh else max(on.high, on.price)
        crossed = extreme >= level
    if not crossed:
        return None
    return Decision(
        reason=trigger.reason,
        fraction_pct=trigger.fraction_pct,
        trigger_price=level,
        seen_price=extreme,
        direction=trigger.direction,
        order=trigger.order,
    )


def by_precedence(decisions: Iterable[Decision]) -> list[Decision]:
    """Return decisions on one position, the most urgent first and equally urgent ones as the price met them.

    A falling price meets the highest level first and a rising one the lowest: of a stop-loss and a trailing
    stop hit in one interval the tighter gives the reason, and rungs come in their order. Where no level was
    crossed, or the same one twice, the given order stays.
    """
    return sorted(decisions, key=_rank)


def _rank(decision: Decision) -> tuple[Urgency, Decimal]:
    if decision.trigger_price is None or decision.direction is None:
        return decision.urgency, Decimal(0)
    falls = decision.direction is Direction.FALL
    return decision.urgency, -decision.trigger_price if falls else decision.trigger_price
