"""Plain values every room shares: sides, asset classes, the quote as the rules see it. No Django here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum


class Side(IntEnum):
    """Direction of a position; the value is the sign that makes one formula serve both."""

    LONG = 1
    SHORT = -1

    @classmethod
    def parse(cls, text: str) -> Side:
        """Return the side named "long" or "short".

        :raises ValueError: any other word.
        """
        try:
            return {"long": cls.LONG, "short": cls.SHORT}[text.lower()]
        except (KeyError, AttributeError):
            raise ValueError(f"side {text!r} is unknown; use long or short") from None

    @property
    def word(self) -> str:
        """Return "long" or "short"."""
        return self.name.lower()


class AssetClass(StrEnum):
    """What kind of instrument it is; decides sessions and default increments."""

    EQUITY = "equity"
    CRYPTO = "crypto"


class TradingState(StrEnum):
    """How much an account may do: everything, only reduce, nothing by itself."""

    ACTIVE = "active"
    REDUCE_ONLY = "reduce_only"
    HALTED = "halted"


class LossAction(StrEnum):
    """What an account does by itself once it has lost as much as it may."""

    REDUCE_ONLY = "reduce_only"  # no new entries; what is held keeps its plan
    FLATTEN = "flatten"  # no new entries, and everything is left at once


class Basis(StrEnum):
    """The price a trigger is judged on."""

    BID = "bid"
    ASK = "ask"
    LAST = "last"
    MID = "mid"


def tradable_basis(side: Side) -> Basis:
    """Return the price a position would leave at: a long sells at the bid, a short buys at the ask."""
    return Basis.BID if side is Side.LONG else Basis.ASK


@dataclass(frozen=True, slots=True)
class Candle:
    """Open, high, low, close and volume of a span that begins at `start`; its length is said where it is used."""

    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = Decimal(0)

    @property
    def flaw(self) -> str:
        """Return what makes it no bar that can be, as the end of a sentence; empty when it is one."""
        if not all(number.is_finite() for number in (self.open, self.high, self.low, self.close, self.volume)):
            return "holds a number that is none"
        if self.low <= 0:
            return f"has a low of {self.low:f}"
        if not self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high:
            return "has an open or a close outside its low and high"
        return "has a volume below 0" if self.volume < 0 else ""


@dataclass(frozen=True, slots=True)
class Range:
    """Current price of one basis with its extremes since the last scan; prices in the quote currency."""

    price: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one instrument looked like when it was judged.

    `from_seq` is the sequence number at which the interval of the extremes began: a trigger armed later
    (`armed_seq > from_seq`) may only be judged on the current price, as the extremes are older than it.
    """

    symbol: str
    bid: Range
    ask: Range
    last: Range
    mid: Range
    seq: int
    from_seq: int
    source_at: datetime
    received_at: datetime

    def on(self, basis: Basis) -> Range:
        """Return the price and extremes of one basis.

        The mid's extremes are those of bid and ask at one moment: what the two sides met at different moments was
        never a mid.
        """
        if basis is Basis.BID:
            return self.bid
        if basis is Basis.ASK:
            return self.ask
        return self.last if basis is Basis.LAST else self.mid
