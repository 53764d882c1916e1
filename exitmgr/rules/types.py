"""The words of the rules: reasons, urgencies, triggers, decisions. Plain frozen values, no Django."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Final

from positions.values import Basis


class TriggerKind(StrEnum):
    """The three primitives every plan compiles to."""

    LEVEL = "level"
    TRAIL = "trail"
    TIMER = "timer"


class Direction(StrEnum):
    """Which way the price must cross a level for it to fire."""

    FALL = "fall"
    RISE = "rise"


class Act(StrEnum):
    """What follows when a trigger fires."""

    EXIT = "exit"
    START = "start"  # arms the triggers of the same plan that wait for it
    RESTART = "restart"  # the price has moved: the stagnation it belongs to is measured anew from here


class Urgency(IntEnum):
    """How urgent an order is; a smaller number goes first, also of conditions that hold at once."""

    EMERGENCY = 0
    STOP = 10
    MANUAL = 20
    TIMED = 30
    TARGET = 40
    ENTRY = 50


class ExitReason(StrEnum):
    """Why a position is left; rungs above the third are made by `target_reason`."""

    STOP_LOSS = "stop_loss"
    TRAILING_STOP = "trailing_stop"
    BREAK_EVEN = "break_even"
    TAKE_PROFIT_1 = "take_profit_1"
    TAKE_PROFIT_2 = "take_profit_2"
    TAKE_PROFIT_3 = "take_profit_3"
    TIME_LIMIT = "time_limit"
    STAGNATION = "stagnation"
    SESSION_CLOSE = "session_close"
    MANUAL = "manual"
    EMERGENCY = "emergency"
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"


_URGENCIES: Final[dict[str, Urgency]] = {
    ExitReason.EMERGENCY: Urgency.EMERGENCY,
    ExitReason.DAILY_LOSS: Urgency.EMERGENCY,
    ExitReason.DRAWDOWN: Urgency.EMERGENCY,
    ExitReason.STOP_LOSS: Urgency.STOP,
    ExitReason.TRAILING_STOP: Urgency.STOP,
    ExitReason.BREAK_EVEN: Urgency.STOP,
    ExitReason.MANUAL: Urgency.MANUAL,
    ExitReason.TIME_LIMIT: Urgency.TIMED,
    ExitReason.STAGNATION: Urgency.TIMED,
    ExitReason.SESSION_CLOSE: Urgency.TIMED,
}
_TARGET: Final = re.compile(r"take_profit_[1-9][0-9]*")


def target_reason(rung: int) -> str:
    """Return the reason of the n-th take profit, counted from 1."""
    return f"take_profit_{rung}"


def urgency_of(reason: str) -> Urgency:
    """Return how urgent an exit with this reason is.

    :raises ValueError: the reason is not one we know.
    """
    if reason in _URGENCIES:
        return _URGENCIES[reason]
    if _TARGET.fullmatch(reason):
        return Urgency.TARGET
    raise ValueError(f"{reason!r} is no exit reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTerms:
    """How an exit goes to the broker: at the market, or with a limit at the level that fired it.

    `time_in_force` empty means what the venue takes for the order type.
    """

    limit: bool = False
    time_in_force: str = ""


MARKET: Final = OrderTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `due_at` on a level lies at `level`."""

    due_at: datetime
    level: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTrigger:
    """A price to be crossed; `fraction_pct` is of what remains, `rung` counts targets from 1.

    `slot` names it within its plan. One with `after` waits until the trigger in that slot has fired. One with `steps`
    moves as time passes; its `level` is None until its first step takes effect.
    """

    slot: str
    reason: str
    basis: Basis
    direction: Direction
    level: Decimal | None
    fraction_pct: Decimal = Decimal(100)
    rung: int = 0
    act: Act = Act.EXIT
    after: str = ""
    steps: tuple[Step, ...] = ()
    order: OrderTerms = MARKET


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailTrigger:
    """A price to be given back from the best one since it was armed: `offset_pct` percent, or `offset` in price.

    `direction` is the way the price must turn: a long's trail fires on a fall from the peak. The best price starts at
    `best`; None means at the price that starts it.
    """

    slot: str
    reason: str
    basis: Basis
    direction: Direction
    best: Decimal | None
    offset_pct: Decimal | None = None
    offset: Decimal | None = None
    fraction_pct: Decimal = Decimal(100)
    after: str = ""
    order: OrderTerms = MARKET


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerTrigger:
    """A time to come.

    With `span_seconds` and `move_pct` it is a stagnation: each move of so many percent away from the price it was
    last measured from starts the span anew.
    """

    slot: str
    reason: str
    basis: Basis
    direction: Direction
    due_at: datetime
    fraction_pct: Decimal = Decimal(100)
    after: str = ""
    span_seconds: int | None = None
    move_pct: Decimal | None = None
    order: OrderTerms = MARKET


AnyTrigger = LevelTrigger | TrailTrigger | TimerTrigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do about a position: how much to close, why, and on which price it was decided.

    `trigger_price` is the level that was crossed, `seen_price` the tradable price that crossed it and
    `direction` the way it went; a timer or a person crosses no level and leaves them out.
    """

    reason: str
    fraction_pct: Decimal
    trigger_price: Decimal | None
    seen_price: Decimal | None
    direction: Direction | None = None
    order: OrderTerms = MARKET

    @property
    def urgency(self) -> Urgency:
        """Return the decision's place in the order of precedence."""
        return urgency_of(self.reason)
