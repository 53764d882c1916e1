"""Plan -> triggers. Pure and total: a valid plan on a valid entry compiles, or says which level is wrong."""

from __future__ import annotations

from decimal import Decimal

from exitmgr.rules.plan import InvalidPlan, Plan, StopLoss
from exitmgr.rules.types import Direction, ExitReason, LevelTrigger, target_reason
from positions.values import Side, tradable_basis


def stop_level(stop: StopLoss, *, side: Side, entry_price: Decimal) -> Decimal:
    """Return the stop's price: below the entry for a long, above it for a short.

    :raises InvalidPlan: the stop lies on the wrong side of the entry price, or at or below zero.
    """
    if stop.price is not None:
        level, key = stop.price, "price"
    elif stop.pct is not None:
        level, key = entry_price * (1 - side * stop.pct / 100), "pct"
    else:
        assert stop.distance is not None  # noqa: S101 - the plan's validation guarantees one of the three
        level, key = entry_price - side * stop.distance, "distance"
    problem = _level_problem(level, leg="stop", side=side, entry_price=entry_price)
    if problem:
        raise InvalidPlan({f"stop_loss.{key}": problem})
    return level


def target_levels(plan: Plan, *, side: Side, entry_price: Decimal) -> list[Decimal]:
    """Return the price of each take-profit rung in the plan's order.

    A risk/reward rung lies at entry + side x ratio x distance to the stop.

    :raises InvalidPlan: naming every target on the wrong side of the entry price, or at or below zero.
    """
    levels: list[Decimal] = []
    problems: dict[str, str] = {}
    for index, rung in enumerate(plan.take_profits):
        if rung.price is not None:
            level, key = rung.price, "price"
        elif rung.pct is not None:
            level, key = entry_price * (1 + side * rung.pct / 100), "pct"
        else:
            assert rung.rr is not None and plan.stop_loss is not None  # noqa: S101, PT018 - guaranteed by the plan
            risk = abs(entry_price - stop_level(plan.stop_loss, side=side, entry_price=entry_price))
            level, key = entry_price + side * rung.rr * risk, "rr"
        problem = _level_problem(level, leg="target", side=side, entry_price=entry_price)
        if problem:
            problems[f"take_profits.{index}.{key}"] = problem
        levels.append(level)
    if problems:
        raise InvalidPlan(problems)
    return levels


def compile_plan(plan: Plan, *, side: Side, entry_price: Decimal) -> tuple[LevelTrigger, ...]:
    """Return the triggers of a plan for an entry at `entry_price`, the stop first.

    :raises InvalidPlan: a level on the wrong side of the entry price, or at or below zero.
    """
    basis = tradable_basis(side)
    against, with_us = (Direction.FALL, Direction.RISE) if side is Side.LONG else (Direction.RISE, Direction.FALL)
    triggers: list[LevelTrigger] = []
    if plan.stop_loss is not None:
        level = stop_level(plan.stop_loss, side=side, entry_price=entry_price)
        triggers.append(LevelTrigger(reason=ExitReason.STOP_LOSS, basis=basis, direction=against, level=level))
    targets = target_levels(plan, side=side, entry_price=entry_price)
    for number, (rung, level) in enumerate(zip(plan.take_profits, targets, strict=True), start=1):
        triggers.append(
            LevelTrigger(
                reason=target_reason(number),
                basis=basis,
                direction=with_us,
                level=level,
                fraction_pct=rung.fraction_pct,
                rung=number,
            )
        )
    return tuple(triggers)


def _level_problem(level: Decimal, *, leg: str, side: Side, entry_price: Decimal) -> str | None:
    away = side if leg == "target" else -side
    if away * (level - entry_price) <= 0:
        where = "above" if away > 0 else "below"
        return f"a {side.word}'s {leg} must lie {where} the entry price {entry_price:f}; got {level:f}"
    if level <= 0:
        return f"a {side.word}'s {leg} must lie above 0; got {level:f}"
    return None
