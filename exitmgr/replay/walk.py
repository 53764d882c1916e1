"""One position on its way through prices: what is armed, what fires, what is left.

The price moves in jumps and in strides. A jump lands at a price and whatever lies at or behind it fires there; a stride
passes every price in between, so each trigger fires at its own level, in the order the price meets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from exitmgr.replay.bars import Bar
from exitmgr.rules.consequences import next_step, restart, restart_gate, start, step_in_force
from exitmgr.rules.fire import best_price, by_precedence, fire_level, fire_timer, fire_trail
from exitmgr.rules.types import Act, AnyTrigger, Decision, Direction, LevelTrigger, Step, TimerTrigger, TrailTrigger
from orders.rounding import exit_quantity
from positions.values import Range, Side, Snapshot

#: A trigger counts every price it is shown as seen since it was armed: the walk never shows it an older one.
_ARMED: Final = 0
#: So often a stagnation is measured anew in one stride; what moves beyond that count as one, else a tiny `move_pct`
#: would have a single bar measured for ever.
_MOST_RESTARTS: Final = 1_000
#: A snapshot made of a bar says nothing of when its price was told: nothing here is judged by its age.
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Fired:
    """One exit: what was decided, at which price it was left and how much."""

    decision: Decision
    price: Decimal
    quantity: Decimal


class Walk:
    """What one position's triggers make of the bars they are shown."""

    def __init__(
        self, triggers: Iterable[AnyTrigger], *, side: Side, quantity: Decimal, lot: Decimal, adverse_first: bool
    ) -> None:
        armed = list(triggers)
        self.remaining = quantity
        self.adverse_first = adverse_first
        self.levels = {t.slot: t for t in armed if isinstance(t, LevelTrigger) and not t.after}
        self.trails = {t.slot: t for t in armed if isinstance(t, TrailTrigger) and not t.after}
        self.timers = {t.slot: t for t in armed if isinstance(t, TimerTrigger)}
        self._waiting = [t for t in armed if not isinstance(t, TimerTrigger) and t.after]
        self._stepped = [t.slot for t in armed if isinstance(t, LevelTrigger) and t.steps]
        self._low_first = adverse_first is (side is Side.LONG)
        self._rank = {trigger.slot: number for number, trigger in enumerate(armed)}
        self._lot = lot
        self._restarts = 0
        self._at: datetime | None = None
        self._price = Decimal(0)

    def through(self, bar: Bar) -> list[Fired]:
        """Return what fires in a bar, in its order."""
        self._at = bar.start
        self._take_steps()
        fired = list(self._jump(bar.open))
        near, far = (bar.low, bar.high) if self._low_first else (bar.high, bar.low)
        for price in (near, far, bar.close):
            if not self.remaining:
                break
            fired += self._stride(price)
        return fired

    def skip(self, *, highest: Decimal, lowest: Decimal) -> None:
        """Take note of the extremes of bars in which nothing fired."""
        for slot, trail in self.trails.items():
            best = highest if trail.direction is Direction.FALL else lowest
            self.trails[slot] = replace(trail, best=best_price(trail, _at_price(best), armed_seq=_ARMED))

    def next_due(self) -> datetime | None:
        """Return when time alone may change something next."""
        at = self._at
        steps = [
            step.due_at
            for slot in self._stepped
            if slot in self.levels
            for step in [_upcoming(self.levels[slot], at)]
            if step is not None
        ]
        return min([*steps, *(timer.due_at for timer in self.timers.values())], default=None)

    # -- moving

    def _jump(self, price: Decimal) -> Iterator[Fired]:
        self._price = price
        yield from self._settle(timers=True)

    def _stride(self, to: Decimal) -> Iterator[Fired]:
        self._restarts = 0
        while self.remaining:
            met = self._met_first(to)
            if met is None:
                self._price = to
                self._follow(_at_price(to))
                return
            self._price = met
            yield from self._settle(timers=False)

    def _met_first(self, to: Decimal) -> Decimal | None:
        """Return the price at which the first trigger fires on the way, None if none does."""
        here = self._price
        if here == to:
            return None
        way = _seen(to, low=min(here, to), high=max(here, to))
        met = [
            decision.trigger_price
            for decision, trigger in self._crossed(way)
            if decision.trigger_price is not None and (self._restarts < _MOST_RESTARTS or not _restarts(trigger))
        ]
        if not met:
            return None
        return max(met) if to < here else min(met)

    # -- firing

    def _settle(self, *, timers: bool) -> Iterator[Fired]:
        """Fire everything that holds at the price, the most urgent first, and follow each up."""
        here = _at_price(self._price)
        passed: set[str] = set()
        while self.remaining:
            crossed = list(self._crossed(here))
            holding = [pair for pair in crossed if _exits(pair[1])]
            if timers:
                holding += self._due(here)
            if holding:
                yield self._leave(*self._most_urgent(holding))
                continue
            gates = [trigger for _, trigger in crossed if trigger.slot not in passed]
            if not gates:
                break
            for gate in gates:
                passed.add(gate.slot)
                self._pass(gate)
        self._follow(here)

    def _follow(self, here: Snapshot) -> None:
        """Let the trails' best follow the price."""
        for slot, trail in self.trails.items():
            best = best_price(trail, here, armed_seq=_ARMED)
            if best != trail.best:
                self.trails[slot] = replace(trail, best=best)

    def _most_urgent(self, pairs: list[tuple[Decision, AnyTrigger]]) -> tuple[Decision, AnyTrigger]:
        """Return what comes first; of equals, what the plan's triggers have first."""
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: self._rank[pair[1].slot])
        first = by_precedence(decision for decision, _ in pairs)[0]
        return next(pair for pair in pairs if pair[0] is first)

    def _crossed(self, seen: Snapshot) -> Iterator[tuple[Decision, AnyTrigger]]:
        for level in self.levels.values():
            decision = fire_level(level, seen, armed_seq=_ARMED)
            if decision is not None:
                yield decision, level
        for trail in self.trails.values():
            decision = fire_trail(trail, seen, armed_seq=_ARMED)
            if decision is not None:
                yield decision, trail

    def _due(self, seen: Snapshot) -> Iterator[tuple[Decision, AnyTrigger]]:
        for timer in self.timers.values():
            assert self._at is not None  # noqa: S101 - the first bar says what time it is
            decision = fire_timer(timer, seen, now=self._at)
            if decision is not None:
                yield decision, timer

    def _leave(self, decision: Decision, trigger: AnyTrigger) -> Fired:
        quantity = exit_quantity(
            fraction_pct=decision.fraction_pct, remaining=self.remaining, available=self.remaining, lot=self._lot
        )
        self.remaining -= quantity
        self._disarm(trigger)
        self._start_after(trigger.slot)
        return Fired(decision=decision, price=self._price, quantity=quantity)

    def _pass(self, gate: AnyTrigger) -> None:
        if isinstance(gate, LevelTrigger) and _restarts(gate):
            self._restarts += 1
            self._restart(gate)
        else:
            self._disarm(gate)
            self._start_after(gate.slot)

    def _restart(self, gate: LevelTrigger) -> None:
        """Measure the stagnation a gate belongs to anew from here."""
        assert self._at is not None  # noqa: S101 - the first bar says what time it is
        of, _, _ = gate.slot.partition(":")
        timer = self.timers[of]
        self.timers[of] = restart(timer, at=self._at)
        for slot, other in self.levels.items():
            if other.act is Act.RESTART and slot.partition(":")[0] == of and timer.move_pct is not None:
                self.levels[slot] = restart_gate(other, price=self._price, move_pct=timer.move_pct)

    def _disarm(self, trigger: AnyTrigger) -> None:
        for armed in (self.levels, self.trails, self.timers):
            armed.pop(trigger.slot, None)

    def _start_after(self, slot: str) -> None:
        for trigger in [waiting for waiting in self._waiting if waiting.after == slot]:
            self._waiting.remove(trigger)
            if isinstance(trigger, TrailTrigger):
                self.trails[trigger.slot] = start(trigger, price=self._price)
            else:
                self.levels[trigger.slot] = start(trigger, price=self._price)

    def _take_steps(self) -> None:
        for slot in self._stepped:
            level = self.levels.get(slot)
            if level is not None and self._at is not None:
                step = step_in_force(level.steps, at=self._at)
                if step is not None and step.level != level.level:
                    self.levels[slot] = replace(level, level=step.level)


def _upcoming(level: LevelTrigger, at: datetime | None) -> Step | None:
    if at is None:
        return min(level.steps, key=lambda step: step.due_at)
    return next_step(level.steps, at=at)


def _exits(trigger: AnyTrigger) -> bool:
    return not isinstance(trigger, LevelTrigger) or trigger.act is Act.EXIT


def _restarts(trigger: AnyTrigger) -> bool:
    return isinstance(trigger, LevelTrigger) and trigger.act is Act.RESTART


def _at_price(price: Decimal) -> Snapshot:
    return _seen(price, low=price, high=price)


def _seen(price: Decimal, *, low: Decimal, high: Decimal) -> Snapshot:
    """Return bars' one price as every basis a trigger may be judged on."""
    on = Range(price, low, high)
    return Snapshot(
        symbol="", bid=on, ask=on, last=on, mid=on, seq=1, from_seq=_ARMED, source_at=_NEVER, received_at=_NEVER
    )
