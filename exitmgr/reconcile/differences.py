"""The words of reconciliation: what both sides say of an account, and the kinds of difference. Plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from orders.brokers.protocol import BrokerAccount, BrokerPosition, OrderReport


class Kind(StrEnum):
    """How the broker and our books can differ."""

    UNKNOWN_HOLDING = "unknown_holding"  # held there, and we have no position in it
    CLOSED_OUTSIDE = "closed_outside"  # nothing is left there of what we have
    REDUCED_OUTSIDE = "reduced_outside"  # less is held there than we have
    SURPLUS = "surplus"  # more is held there than we have
    SIDE_FLIPPED = "side_flipped"  # long here and short there, or the other way round
    SPLIT = "split"  # quantity and price changed as a split changes them
    TORN = "torn"  # we are long and short in one symbol, so that nobody can say whose the difference is
    MISSED_NEWS = "missed_news"  # the broker says more of an order than we have booked
    NOT_OPEN_THERE = "not_open_there"  # working here, not among its open orders: to be looked up
    GHOST = "ghost"  # working here, and a look-up finds no such order
    ORPHAN = "orphan"  # an order with an id of our making that we have no row for
    FOREIGN_ORDER = "foreign_order"  # an order of somebody else
    EXPIRED_RESTING = "expired_resting"  # protection that rested there expired with its day
    ACCOUNT_BLOCKED = "account_blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class OurPosition:
    """One open position as we know it; `remaining` is not signed."""

    position_id: int
    symbol: str
    side: int
    remaining: Decimal
    average_entry: Decimal
    opened_at: datetime
    lot: Decimal = Decimal(1)
    dust: Decimal = Decimal(0)
    frozen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OurOrder:
    """One order that is live here."""

    order_id: int
    client_order_id: str
    broker_order_id: str
    symbol: str
    filled: Decimal
    #: The broker has acknowledged it, so that it must know it.
    at_broker: bool
    position_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What our books say of one account.

    `moving` are the symbols in which an order is on its way or something was booked just now: what the broker says of
    them may be older or newer than what we know, and is compared later.
    """

    positions: tuple[OurPosition, ...] = ()
    orders: tuple[OurOrder, ...] = ()
    moving: frozenset[str] = frozenset()
    #: Broker order ids and client ids that ended here: the broker's list may be a moment old.
    ended: frozenset[str] = frozenset()
    expired_resting: tuple[OurOrder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """What the broker says of one account."""

    positions: tuple[BrokerPosition, ...] = ()
    orders: tuple[OrderReport, ...] = ()
    account: BrokerAccount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing the two sides do not agree on; `key` names its subject, `figures` what was compared."""

    kind: Kind
    key: str
    symbol: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    position_ids: tuple[int, ...] = ()
    order_id: int | None = None
    report: OrderReport | None = None
    holding: BrokerPosition | None = None

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        return f"{self.kind} {self.symbol or self.key}{': ' if figures else ''}{figures}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison found, and the symbols whose holdings it left for the next time."""

    found: tuple[Difference, ...]
    left_out: frozenset[str] = frozenset()


def spelled(number: Decimal) -> str:
    """Return a number as plain text without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
