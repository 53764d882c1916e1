"""Plan -> triggers. Pure and total: a valid plan on a valid entry compiles, or says which part is wrong.

Longs and shorts mirror each other: every formula is written once, with the side as its sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from exitmgr.rules.fire import trail_level
from exitmgr.rules.plan import Atr, BreakEven, InvalidPlan, Plan, StopLoss, TakeProfit, Trailing
from exitmgr.rules.types import (
    Act,
    AnyTrigger,
    Direction,
    ExitReason,
    LevelTrigger,
    OrderTerms,
    Step,
    TimerTrigger,
    TrailTrigger,
    target_reason,
)
from positions.values import Basis, Side, tradable_basis

HUNDRED: Final = Decimal(100)
#: What stands in for an Average True Range that cannot be measured: the whole distance, in percent of the entry price.
FALLBACK_PCT: Final = Decimal(2)


@dataclass(frozen=True, slots=True)
class Range:
    """An Average True Range in price units, or None and why it could not be measured."""

    value: Decimal | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a plan is compiled on.

    `ranges` holds an Average True Range for each period the plan asks for, `closes_at` the end of the session the
    position was opened in or before (None: the venue never closes), `fee_per_unit` what the entry cost per unit, in
    price units. With `now` a time limit that is over already is refused. A stagnation is measured from
    `stagnant_since`, from the entry when left out. `moved_by_hand` lets stop and targets lie on either side of the
    entry price, as a person may move a stop into profit.
    """

    side: Side
    price: Decimal
    opened_at: datetime
    ranges: Mapping[int, Range] = field(default_factory=dict)
    closes_at: datetime | None = None
    fee_per_unit: Decimal = Decimal(0)
    fallback_pct: Decimal = FALLBACK_PCT
    now: datetime | None = None
    stagnant_since: datetime | None = None
    moved_by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The triggers of a plan, the stop first, and what a person wants to know of them.

    `notes` are remarks that call for attention but refuse nothing: a fallback that was used, a target nearer than the
    stop.
    """

    triggers: tuple[AnyTrigger, ...]
    stop_price: Decimal | None
    target_prices: tuple[Decimal, ...]
    ratio: Decimal | None
    atr: Decimal | None
    notes: tuple[str, ...]


def compile_plan(plan: Plan, *, entry: Entry) -> Compiled:
    """Return the triggers of a plan for an entry.

    :raises InvalidPlan: naming every level on the wrong side of the entry price or at or below zero, a time limit
        that is over, a session that never closes.
    """
    return _Compilation(plan, entry).run()


class _Compilation:
    """One plan on one entry: what was found wrong and worth a note while its triggers are made."""

    def __init__(self, plan: Plan, entry: Entry) -> None:
        self.plan, self.entry = plan, entry
        self.problems: dict[str, str] = {}
        self.notes: list[str] = []
        self.basis = _basis(plan, entry.side)
        long = entry.side is Side.LONG
        self.against, self.with_us = (Direction.FALL, Direction.RISE) if long else (Direction.RISE, Direction.FALL)
        self.atr: Decimal | None = None

    def run(self) -> Compiled:
        stop = self._stop_price()
        targets = [self._target_price(index, rung, stop=stop) for index, rung in enumerate(self.plan.take_profits)]
        triggers = tuple(self._triggers(stop, targets))
        if self.problems:
            raise InvalidPlan(self.problems)
        risk = abs(self.entry.price - stop) if stop is not None else None
        gain = abs(targets[0] - self.entry.price) if targets else None
        if risk and gain is not None and gain <= risk:
            self.notes.append(
                f"the first target is {_said(gain)} away and the stop {_said(risk)}:"
                " it risks at least as much as it can win"
            )
        return Compiled(
            triggers=triggers,
            stop_price=stop,
            target_prices=tuple(targets),
            ratio=gain / risk if risk and gain is not None else None,
            atr=self.atr,
            notes=tuple(self.notes),
        )

    def _triggers(self, stop: Decimal | None, targets: list[Decimal]) -> Iterator[AnyTrigger]:
        if stop is not None and self.plan.stop_loss is not None:
            yield self._level("stop_loss", ExitReason.STOP_LOSS, stop, self.against, order=_terms(self.plan.stop_loss))
        for number, (rung, level) in enumerate(zip(self.plan.take_profits, targets, strict=True), start=1):
            yield self._rung(number, rung, level)
        for number, trail in enumerate(self.plan.trailing, start=1):
            yield from self._trail(number, trail)
        if self.plan.break_even is not None:
            yield from self._break_even(self.plan.break_even, targets)
        yield from self._timers()

    def _level(
        self, slot: str, reason: str, level: Decimal | None, direction: Direction, *,
        fraction_pct: Decimal = HUNDRED, rung: int = 0, act: Act = Act.EXIT, after: str = "",
        steps: tuple[Step, ...] = (), order: OrderTerms = OrderTerms(),  # noqa: B008 - frozen
    ) -> LevelTrigger:  # fmt: skip
        return LevelTrigger(
            slot=slot, reason=reason, basis=self.basis, direction=direction, level=level, fraction_pct=fraction_pct,
            rung=rung, act=act, after=after, steps=steps, order=order,
        )  # fmt: skip

    def _away(self, pct: Decimal) -> Decimal:
        """Return the price at a profit of so many percent."""
        return self.entry.price * (1 + self.entry.side * pct / 100)

    def _stop_price(self) -> Decimal | None:
        stop = self.plan.stop_loss
        if stop is None:
            return None
        if stop.price is not None:
            level, key = stop.price, "price"
        elif stop.pct is not None:
            level, key = self._away(-stop.pct), "pct"
        elif stop.distance is not None:
            level, key = self.entry.price - self.entry.side * stop.distance, "distance"
        else:
            distance = self._range(_atr(stop), measured_from=self.entry.price, path="stop_loss.atr")
            level, key = self.entry.price - self.entry.side * distance, "atr"
        self._require_side(level, leg="stop", path=f"stop_loss.{key}")
        return level

    def _range(self, atr: Atr, *, measured_from: Decimal, path: str) -> Decimal:
        """Return the distance a multiple of the Average True Range comes to, or the fallback's with a note."""
        measured = self.entry.ranges.get(atr.period, Range(None, "no bars are known"))
        why = measured.why or "the bars do not move"
        if measured.value is not None and measured.value > 0:
            self.atr = measured.value if self.atr is None else self.atr
            distance = measured.value * atr.multiple
            if self.entry.side is Side.SHORT or distance < measured_from:
                return distance
            # the bars are nobody's mistake: a plan refused here would leave a position that is held without a stop
            why = f"{_said(atr.multiple)} times the range of {_said(measured.value)} reaches below 0"
        self.notes.append(
            f"{path}: {_said(self.entry.fallback_pct)} % of the entry price is used instead, because {why}"
        )
        return self.entry.price * self.entry.fallback_pct / 100

    def _target_price(self, index: int, rung: TakeProfit, *, stop: Decimal | None) -> Decimal:
        """Return where a rung lies; of one that decays, where it lies first."""
        if rung.schedule is not None:
            levels = [self._away(step.pct) for step in rung.schedule]
            for number, level in enumerate(levels):
                self._require_side(level, leg="target", path=f"take_profits.{index}.schedule.{number}.pct")
            return levels[0]
        if rung.price is not None:
            level, key = rung.price, "price"
        elif rung.pct is not None:
            level, key = self._away(rung.pct), "pct"
        else:
            risk = abs(self.entry.price - stop) if stop is not None else Decimal(0)
            level, key = self.entry.price + self.entry.side * (rung.rr or Decimal(0)) * risk, "rr"
            if self.problems and not risk:
                return level  # the stop lies at the entry price, which has been said
        self._require_side(level, leg="target", path=f"take_profits.{index}.{key}")
        return level

    def _rung(self, number: int, rung: TakeProfit, level: Decimal) -> LevelTrigger:
        steps = tuple(
            Step(due_at=self.entry.opened_at + timedelta(seconds=step.after_seconds), level=self._away(step.pct))
            for step in rung.schedule or ()
        )
        slot = target_reason(number)
        return self._level(
            slot, slot, None if steps else level, self.with_us,
            fraction_pct=rung.fraction_pct, rung=number, steps=steps, order=_terms(rung),
        )  # fmt: skip

    def _trail(self, number: int, trail: Trailing) -> Iterator[AnyTrigger]:
        slot, after, path = f"trailing_{number}", "", f"trailing.{number - 1}"
        starts_at = self.entry.price
        if trail.activation_pct is not None:
            after = f"{slot}:start"
            starts_at = self._away(trail.activation_pct)
            self._require_side(starts_at, leg="activation", path=f"{path}.activation_pct")
            yield self._level(after, ExitReason.TRAILING_STOP, starts_at, self.with_us, act=Act.START)
        offset = trail.distance
        if trail.atr is not None:
            offset = self._range(trail.atr, measured_from=starts_at, path=f"{path}.atr")
        made = TrailTrigger(
            slot=slot, reason=ExitReason.TRAILING_STOP, basis=self.basis, direction=self.against,
            best=starts_at, offset_pct=trail.pct, offset=offset, after=after,
        )  # fmt: skip
        level = trail_level(made)
        if level is not None and level <= 0 < starts_at:
            key = "pct" if trail.pct is not None else "distance"
            self.problems.setdefault(
                f"{path}.{key}",
                f"must leave a stop above 0 where the trail starts, at {_said(starts_at)}; got {_said(level)}",
            )
        yield replace(made, best=None) if after else made

    def _break_even(self, rule: BreakEven, targets: list[Decimal]) -> Iterator[AnyTrigger]:
        fees = 2 * self.entry.fee_per_unit if rule.include_fees else Decimal(0)
        level = self._away(rule.offset_pct) + self.entry.side * fees
        if rule.at_profit_pct is None:
            number = rule.after_rung or 1
            after = target_reason(number)
            starts_at = self._nearest(self.plan.take_profits[number - 1], targets[number - 1])
        else:
            after, starts_at = "break_even:start", self._away(rule.at_profit_pct)
            self._require_side(starts_at, leg="start", path="break_even.at_profit_pct")
        if self.entry.side * (starts_at - level) <= 0:
            self._leave_break_even_out(level, starts_at=starts_at, fees=fees)
            return
        if rule.at_profit_pct is not None:
            yield self._level(after, ExitReason.BREAK_EVEN, starts_at, self.with_us, act=Act.START)
        yield self._level("break_even", ExitReason.BREAK_EVEN, level, self.against, after=after)

    def _leave_break_even_out(self, level: Decimal, *, starts_at: Decimal, fees: Decimal) -> None:
        """Refuse a break-even stop that would fire at once; note it where the plan was written in good faith."""
        side = self.entry.side
        if side * (starts_at - (level - side * fees)) > 0 or self.entry.moved_by_hand:
            # fees are known when the position is held: refusing then would leave it without any stop
            fees_too = "with fees " if fees else ""
            self.notes.append(
                f"break_even: it is left out, because {fees_too}its stop would lie at {_said(level)}"
                f" and the profit that sets it at {_said(starts_at)}"
            )
        elif side * (starts_at - self.entry.price) > 0:  # else the rung lies on the wrong side, which has been said
            self.problems["break_even.offset_pct"] = (
                f"must lie below the profit at {_said(starts_at)} that sets the stop, or it would fire at once;"
                f" got {_said(level - side * fees)}"
            )

    def _nearest(self, rung: TakeProfit, level: Decimal) -> Decimal:
        """Return the level of a rung, of one that decays the one nearest to the entry price."""
        steps = (self._away(step.pct) for step in rung.schedule or ())
        return min(steps, key=lambda step: abs(step - self.entry.price), default=level)

    def _timers(self) -> Iterator[AnyTrigger]:
        plan, opened_at = self.plan, self.entry.opened_at
        if plan.time_limit_seconds is not None:
            due_at = opened_at + timedelta(seconds=plan.time_limit_seconds)
            self._require_ahead(due_at, path="time_limit_seconds")
            yield self._timer("time_limit", ExitReason.TIME_LIMIT, due_at)
        if plan.stagnation is not None:
            since = self.entry.stagnant_since or opened_at
            due_at = since + timedelta(seconds=plan.stagnation.seconds)
            self._require_ahead(due_at, path="stagnation.seconds")
            yield self._timer(
                "stagnation", ExitReason.STAGNATION, due_at,
                span_seconds=plan.stagnation.seconds, move_pct=plan.stagnation.move_pct,
            )  # fmt: skip
            for way in Direction:
                level = moved_level(self.entry.price, pct=plan.stagnation.move_pct, direction=way)
                if level > 0:  # a price cannot fall by 100 percent
                    yield self._level(f"stagnation:{way}", ExitReason.STAGNATION, level, way, act=Act.RESTART)
        if plan.session_close is not None:
            if self.entry.closes_at is None:
                self.problems["session_close"] = "the instrument trades around the clock and has no close; leave it out"
            else:
                due_at = self.entry.closes_at - timedelta(minutes=plan.session_close.minutes_before)
                if due_at <= opened_at:
                    self.notes.append("session_close: it is due already when the position is opened, and fires at once")
                yield self._timer("session_close", ExitReason.SESSION_CLOSE, due_at)

    def _timer(
        self, slot: str, reason: str, due_at: datetime, *,
        span_seconds: int | None = None, move_pct: Decimal | None = None,
    ) -> TimerTrigger:  # fmt: skip
        return TimerTrigger(
            slot=slot, reason=reason, basis=self.basis, direction=self.against, due_at=due_at,
            span_seconds=span_seconds, move_pct=move_pct,
        )  # fmt: skip

    def _require_ahead(self, due_at: datetime, *, path: str) -> None:
        now = self.entry.now
        if now is not None and due_at <= now:
            held = int((now - self.entry.opened_at).total_seconds())
            self.problems[path] = f"is over already: the position is held for {held} s; must be above that"

    def _require_side(self, level: Decimal, *, leg: str, path: str) -> None:
        side, price = self.entry.side, self.entry.price
        away = -side if leg == "stop" else side
        if away * (level - price) <= 0 and not (self.entry.moved_by_hand and leg in ("stop", "target")):
            where = "above" if away > 0 else "below"
            self.problems[path] = (
                f"a {side.word}'s {leg} must lie {where} the entry price {_said(price)}; got {_said(level)}"
            )
        elif level <= 0:
            self.problems[path] = f"a {side.word}'s {leg} must lie above 0; got {_said(level)}"


def moved_level(price: Decimal, *, pct: Decimal, direction: Direction) -> Decimal:
    """Return the price so many percent away."""
    return price * (1 + (pct if direction is Direction.RISE else -pct) / 100)


def _said(number: Decimal) -> str:
    """Return a number as a person writes it, without trailing zeros."""
    return f"{number.normalize():f}"


def _basis(plan: Plan, side: Side) -> Basis:
    return tradable_basis(side) if plan.price_source == "tradable" else Basis(plan.price_source)


def _atr(part: StopLoss) -> Atr:
    assert part.atr is not None  # noqa: S101 - the plan's validation guarantees one of the four
    return part.atr


def _terms(part: StopLoss | TakeProfit) -> OrderTerms:
    return OrderTerms(limit=part.order_type == "limit", time_in_force=part.time_in_force or "")
