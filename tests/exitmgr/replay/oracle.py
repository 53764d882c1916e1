"""What a replay must say, written a second time from its description alone: it imports no rule and no engine.

One position, its plan as JSON, its bars as numbers. Simple on purpose: every price a bar passes through is looked at
with every condition there is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

D = Decimal
URGENT, TIMED, TARGET = 0, 1, 2


class Leaving(NamedTuple):
    """One exit: why, in which bar, the level that was crossed, the price, the quantity."""

    reason: str
    bar: int
    level: Decimal | None
    price: Decimal
    quantity: Decimal


class Oracle:
    """One position while its bars are read."""

    def __init__(self, position, bars, *, adverse_first=True, session_close_at=None):
        self.side = 1 if position["side"] == "long" else -1
        self.entry = D(position["entry_price"])
        self.opened_at = datetime.fromisoformat(position["opened_at"])
        self.remaining = D(position["qty"])
        self.plan = position.get("plan", {})
        self.bars, self.adverse_first, self.session_close_at = bars, adverse_first, session_close_at
        self.exits = []
        self.fired = set()
        self.stop_level = self._stop()
        self.trails = [self._trail(number, trail) for number, trail in enumerate(self._trailing(), start=1)]
        self.even_armed = False
        stagnation = self.plan.get("stagnation")
        if stagnation:
            self.measured_from, self.measured_at = self.entry, self.opened_at

    def _trailing(self):
        given = self.plan.get("trailing", [])
        return [given] if isinstance(given, dict) else given

    def _trail(self, number, trail):
        return {"number": number, "rule": trail, "best": None if "activation_pct" in trail else self.entry}

    def _profit(self, pct):
        return self.entry * (1 + self.side * D(pct) / 100)

    def _stop(self):
        stop = self.plan.get("stop_loss")
        if stop is None:
            return None
        if "price" in stop:
            return D(stop["price"])
        if "distance" in stop:
            return self.entry - self.side * D(stop["distance"])
        return self._profit(-D(stop["pct"]))

    # -- what there is to meet, at this moment

    def _stops(self):
        """Yield the reason and the level of whatever closes everything when the price goes against us."""
        if self.stop_level is not None:
            yield "stop_loss", self.stop_level
        for trail in self.trails:
            if trail["best"] is not None:
                yield "trailing_stop", self._given_back(trail)
        if self.even_armed:
            yield "break_even", self._profit(self.plan["break_even"].get("offset_pct", 0))

    def _given_back(self, trail):
        rule = trail["rule"]
        if "pct" in rule:
            return trail["best"] * (1 - self.side * D(rule["pct"]) / 100)
        return trail["best"] - self.side * D(rule["distance"])

    def _targets(self, now):
        for number, rung in enumerate(self.plan.get("take_profits", []), start=1):
            if number in self.fired:
                continue
            if "schedule" in rung:
                reached = [
                    step
                    for step in rung["schedule"]
                    if self.opened_at + timedelta(seconds=step["after_seconds"]) <= now
                ]
                if reached:
                    yield number, rung, self._profit(reached[-1]["pct"])
            elif "rr" in rung:
                yield number, rung, self.entry + self.side * D(rung["rr"]) * abs(self.entry - self.stop_level)
            else:
                yield number, rung, D(rung["price"]) if "price" in rung else self._profit(rung["pct"])

    def _activations(self):
        for trail in self.trails:
            if trail["best"] is None:
                yield trail, self._profit(trail["rule"]["activation_pct"])

    def _even_start(self):
        rule = self.plan.get("break_even", {})
        if "at_profit_pct" in rule and not self.even_armed and "even" not in self.fired:
            return self._profit(rule["at_profit_pct"])
        return None

    def _moves(self):
        """Return how far up and down the price has to go for a stagnation to be measured anew."""
        rule = self.plan.get("stagnation")
        if not rule:
            return None
        pct = D(rule["move_pct"])
        return self.measured_from * (1 + pct / 100), self.measured_from * (1 - pct / 100)

    def _due(self, now):
        limit = self.plan.get("time_limit_seconds")
        if limit is not None and self.opened_at + timedelta(seconds=limit) <= now:
            yield "time_limit"
        stagnation = self.plan.get("stagnation")
        if stagnation and self.measured_at + timedelta(seconds=stagnation["seconds"]) <= now:
            yield "stagnation"
        if "session_close" in self.plan:
            before = timedelta(minutes=self.plan["session_close"].get("minutes_before", 10))
            if self.session_close_at - before <= now:
                yield "session_close"

    # -- going through the bars

    def run(self):
        for number, (start, opened, high, low, closed) in enumerate(self.bars):
            if start < self.opened_at:
                continue
            self.bar, self.now = number, start
            self.price = opened
            self._stand(timers=True)
            low_first = self.adverse_first == (self.side == 1)
            for price in (low, high, closed) if low_first else (high, low, closed):
                self._go(price)
            if not self.remaining:
                break
        return self.exits

    def _go(self, to):
        while self.remaining and self.price != to:
            ahead = [level for level in self._everything_met_by_going(to) if self._between(level, to)]
            self.price = min(ahead, key=lambda level: abs(level - self.price), default=to)
            self._stand(timers=False)

    def _between(self, level, to):
        return min(self.price, to) <= level <= max(self.price, to) and level != self.price

    def _everything_met_by_going(self, to):
        rising = to > self.price
        if rising == (self.side == -1):
            yield from (level for _, level in self._stops())
        else:
            yield from (level for _, _, level in self._targets(self.now))
            yield from (level for _, level in self._activations())
            if self._even_start() is not None:
                yield self._even_start()
        moves = self._moves()
        if moves:
            yield moves[0] if rising else moves[1]

    def _stand(self, *, timers):
        """Do everything that holds at the price where it is now."""
        while self.remaining and self._leave_once(timers=timers):
            pass
        if not self.remaining:
            return
        for trail in self.trails:
            if trail["best"] is not None:
                trail["best"] = max(trail["best"], self.price) if self.side == 1 else min(trail["best"], self.price)
        for trail, level in list(self._activations()):
            if self.side * (self.price - level) >= 0:
                trail["best"] = self.price
        if self._even_start() is not None and self.side * (self.price - self._even_start()) >= 0:
            self.even_armed = True
        moves = self._moves()
        if moves and not moves[1] < self.price < moves[0]:
            self.measured_from, self.measured_at = self.price, self.now

    def _leave_once(self, *, timers):
        found = []
        for order, (reason, level) in enumerate(self._stops()):
            if self.side * (self.price - level) <= 0:
                found.append(((URGENT, -self.side * level, order), reason, level, D(100), None))
        if timers:
            for order, reason in enumerate(self._due(self.now)):
                found.append(((TIMED, D(0), order), reason, None, D(100), None))
        for number, rung, level in self._targets(self.now):
            if self.side * (self.price - level) >= 0:
                share = D(rung.get("fraction_pct", 100))
                found.append(((TARGET, self.side * level, number), f"take_profit_{number}", level, share, number))
        if not found:
            return False
        _, reason, level, share, rung = min(found)
        quantity = self.remaining if share >= 100 else self.remaining * share / 100
        self.exits.append(Leaving(reason, self.bar, level, self.price, quantity))
        self.remaining -= quantity
        if rung is not None:
            self.fired.add(rung)
            if self.plan.get("break_even", {}).get("after_rung") == rung:
                self.even_armed = True
        return True
