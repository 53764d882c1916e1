"""Trigger x price -> decision. The one place that says when a level is crossed; scan and replay share it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from exitmgr.rules.types import Decision, Direction, LevelTrigger, Urgency
from positions.values import Snapshot


def fire_level(trigger: LevelTrigger, seen: Snapshot, *, armed_seq: int) -> Decision | None:
    """Return a decision when the price is, or since the last scan was, at or beyond the level, else None.

    A trigger that was armed inside the current interval (`armed_seq > seen.from_seq`) is judged on the
    current price only, because the interval's extremes may be older than the trigger.
    """
    on = seen.on(trigger.basis)
    fresh = armed_seq > seen.from_seq
    if trigger.direction is Direction.FALL:
        extreme = on.price if fresh else min(on.low, on.price)
        crossed = extreme <= trigger.level
    else:
        extreme = on.price if fresh else max(on.high, on.price)
        crossed = extreme >= trigger.level
    if not crossed:
        return None
    return Decision(
        reason=trigger.reason,
        fraction_pct=trigger.fraction_pct,
        trigger_price=trigger.level,
        seen_price=extreme,
        direction=trigger.direction,
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
