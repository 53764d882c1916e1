"""The words of the rules: reasons, urgencies, triggers, decisions. Plain frozen values, no Django."""

from __future__ import annotations

import re
from dataclasses import dataclass
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


_URGENCIES: Final[dict[str, Urgency]] = {
    ExitReason.EMERGENCY: Urgency.EMERGENCY,
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
class LevelTrigger:
    """A price to be crossed; `fraction_pct` is of what remains, `rung` counts targets from 1."""

    reason: str
    basis: Basis
    direction: Direction
    level: Decimal
    fraction_pct: Decimal = Decimal(100)
    rung: int = 0


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

    @property
    def urgency(self) -> Urgency:
        """Return the decision's place in the order of precedence."""
        return urgency_of(self.reason)
