"""The simulator's records: orders, executions, positions, assets; plain state, no rules.

Money is Decimal; times are RFC 3339 text in UTC with six decimals, so that text order is time order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

BUY: Final = "buy"
SELL: Final = "sell"

#: Statuses in which an order may still change; all others are final.
OPEN_STATUSES: Final = frozenset(
    {"pending_new", "accepted", "new", "held", "partially_filled", "pending_cancel", "pending_replace"}
)

ENTRY: Final = "entry"
TAKE_PROFIT: Final = "take_profit"
STOP_LOSS: Final = "stop_loss"

ZERO: Final = Decimal(0)


@dataclass(slots=True)
class Order:
    """One order as the broker knows it; the field order is the column order of the ledger."""

    seq: int  # the ledger's own order of arrival
    id: str
    client_order_id: str
    symbol: str
    side: str
    type: str
    time_in_force: str
    order_class: str  # empty for a simple order, as Alpaca writes it
    qty: Decimal
    status: str
    submitted_at: str
    updated_at: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    hwm: Decimal | None = None
    extended_hours: bool = False
    position_intent: str = ""
    filled_qty: Decimal = ZERO
    filled_cost: Decimal = ZERO  # sum of quantity times price, so that the average stays exact until rendered
    parent_id: str | None = None
    role: str = ""  # entry, take_profit or stop_loss inside a group, else empty
    armed: bool = False  # whether quotes may execute it; a held leg waits for its entry
    elected: bool = False  # whether its stop has been touched
    filled_at: str | None = None
    expired_at: str | None = None
    canceled_at: str | None = None
    failed_at: str | None = None
    replaced_at: str | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    holds: Decimal = ZERO  # the quantity that it keeps from other exits; kept equal by the book

    @property
    def remaining(self) -> Decimal:
        """Return what is still to be executed."""
        return self.qty - self.filled_qty

    @property
    def is_open(self) -> bool:
        """Return whether the order may still change."""
        return self.status in OPEN_STATUSES


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill; its id is the execution_id of the stream and the suffix of the activity id."""

    id: str
    order_id: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    fee: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal
    position_qty: Decimal
    order_status: str
    at: str


@dataclass(slots=True)
class Position:
    """What the account holds of one symbol; a negative quantity is short."""

    symbol: str
    qty: Decimal
    avg_entry_price: Decimal


@dataclass(frozen=True, slots=True)
class Asset:
    """A symbol that can be traded here."""

    symbol: str
    id: str
    name: str
    exchange: str = "NASDAQ"
    status: str = "active"
    tradable: bool = True
    shortable: bool = True
    fractionable: bool = True


ORDER_COLUMNS: Final = tuple(field.name for field in fields(Order))
EXECUTION_COLUMNS: Final = tuple(field.name for field in fields(Execution))


class Refusal(Exception):  # an answer of the broker, not a failure of this program
    """The broker refuses a request: an HTTP status, and a body with Alpaca's code and message."""

    def __init__(self, status: int, code: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {"code": code, "message": message, **more}


def stamp(now: datetime) -> str:
    """Return an aware time as RFC 3339 text in UTC with six decimals."""
    return now.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def text(number: Decimal) -> str:
    """Return a Decimal as plain digits, without exponent or trailing zeros."""
    return format(number.normalize(), "f") if number else "0"
