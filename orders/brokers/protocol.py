"""What every broker adapter promises. Plain values cross this line; nothing of a vendor's library does.

An adapter translates, calls and translates back. It raises only `NotSent`, `Refused` or `OutcomeUnknown`
(see `orders.errors`), and "unknown" is the default: a refusal is named from an allow-list of seen answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol


class OrderSide(StrEnum):
    """Which way an order trades."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """Return +1 for a buy, -1 for a sell."""
        return 1 if self is OrderSide.BUY else -1


class OrderType(StrEnum):
    """How an order is priced."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"


class TimeInForce(StrEnum):
    """How long an order rests."""

    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    OPG = "opg"
    CLS = "cls"


class OrderClass(StrEnum):
    """How an order hangs together with others at the broker."""

    SIMPLE = "simple"
    BRACKET = "bracket"  # an entry with both legs
    OCO = "oco"  # a target and a stop of which one cancels the other
    OTO = "oto"  # an entry with one leg


class ReportedState(StrEnum):
    """What a broker says of an order, in our words."""

    WORKING = "working"  # accepted, resting, held as a passive leg
    CANCELLING = "cancelling"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REPLACED = "replaced"
    UNRECOGNISED = "unrecognised"  # a word we have never seen: alarm, and treat as still working


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a venue can do; the mode of protection and the submit protocol are chosen by it, never by name."""

    order_types: frozenset[OrderType]
    times_in_force: frozenset[TimeInForce]
    native_bracket: bool = False
    native_oco: bool = False
    order_classes: frozenset[OrderClass] = frozenset({OrderClass.SIMPLE})
    replace: bool = False
    extended_hours: bool = False
    shorting: bool = False
    fractional: bool = False
    #: A client order id is refused for ever once it was used.
    durable_dedupe: bool = False
    lookup_by_client_id: bool = False
    update_stream: bool = False
    #: Seconds after which an order that cannot be found was certainly never accepted.
    settle_after_seconds: float = 3.0
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """One order to place. Prices in the quote currency, quantity in units of the instrument."""

    client_order_id: str
    symbol: str
    side: OrderSide
    quantity: Decimal
    order_type: OrderType = OrderType.MARKET
    time_in_force: TimeInForce = TimeInForce.DAY
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    extended_hours: bool = False
    #: Of any class but simple: the legs' prices. An OCO's own limit price is its target.
    order_class: OrderClass = OrderClass.SIMPLE
    target_limit: Decimal | None = None
    stop_leg_stop: Decimal | None = None
    stop_leg_limit: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What to change about a working order; what is None stays as it is."""

    client_order_id: str
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRef:
    """How to name an order to its broker; the broker's id may be unknown to us.

    Some venues file orders under their symbol and cannot say without it that there is none.
    """

    client_order_id: str
    broker_order_id: str = ""
    symbol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One fill; `execution_id` is unique per account and the same by every way of hearing of it."""

    execution_id: str
    quantity: Decimal
    price: Decimal
    at: datetime
    fee: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the broker says of one order at one moment, however we heard it."""

    client_order_id: str
    broker_order_id: str
    state: ReportedState
    symbol: str
    side: OrderSide
    quantity: Decimal
    filled_quantity: Decimal
    average_fill_price: Decimal | None
    at: datetime
    executions: tuple[Execution, ...] = ()
    reason: str = ""
    raw_status: str = ""
    replaced_by: str = ""
    #: The other orders of its group, as far as the broker names them.
    legs: tuple[OrderReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """A holding at the broker; both quantities are signed (negative is short).

    `available` is the part that no open order holds.
    """

    symbol: str
    quantity: Decimal
    available: Decimal
    average_entry: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccount:
    """The money side of the account at the broker, in its currency."""

    account_number: str
    equity: Decimal
    cash: Decimal
    buying_power: Decimal
    blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentFacts:
    """What the venue says about an instrument."""

    symbol: str
    asset_class: str
    tick: Decimal
    lot: Decimal
    tradable: bool
    shortable: bool
    fractionable: bool
    min_notional: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBar:
    """One historical bar; `start` is its first instant."""

    symbol: str
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = field(default=Decimal(0))


class Broker(Protocol):
    """One account at one venue. Safe to use from one thread; each thread gets its own."""

    capabilities: Capabilities

    def submit(self, request: SubmitRequest) -> OrderReport:
        """Place one order; the same client order id twice is one order, whose report is returned.

        The report may be of fills that came at once, then without their executions (see `find_order`).

        :raises NotSent: nothing left us.
        :raises Refused: the broker said no and has no such order.
        :raises OutcomeUnknown: it may or may not have arrived.
        """
        ...

    def cancel(self, ref: OrderRef) -> None:
        """Ask for a cancel; its success is only known from a later report.

        :raises Refused: the order cannot be cancelled (it probably ended); re-read it.
        """
        ...

    def replace(self, ref: OrderRef, change: Replacement) -> OrderReport:
        """Ask for a working order to be changed, and return the report of its successor.

        The answer does not prove that it was changed: where the old one fills first the successor is rejected, which
        a later report tells.

        :raises NotSent: nothing left us.
        :raises Refused: the venue cannot do it, or not with this order now; it works on as it was.
        :raises OutcomeUnknown: it may or may not have been changed.
        """
        ...

    def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Return the order known under our client id, with its executions, or None when there is none.

        Without a client id it is found by the broker's id. Executions may lag behind: where they add up to
        less than `filled_quantity`, ask again.

        :raises NotSent: the broker could not be asked, or asked us to wait (`retry_after`).
        :raises AccountRefused: the broker does not let us ask.
        :raises OutcomeUnknown: the broker did not answer.
        """
        ...

    def open_orders(self) -> list[OrderReport]:
        """Return every order that is not terminal, legs included, without executions.

        An order that is missing here has not therefore ended: ask for it by `find_order`.
        """
        ...

    def positions(self) -> list[BrokerPosition]:
        """Return every holding."""
        ...

    def account(self) -> BrokerAccount:
        """Return the account's money."""
        ...

    def instrument(self, symbol: str) -> InstrumentFacts | None:
        """Return the venue's facts on a symbol, or None when it has no such instrument."""
        ...

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return historical bars of the given length in seconds, oldest first."""
        ...

    def watch_orders(
        self,
        *,
        on_reports: Callable[[Sequence[OrderReport]], None],
        on_connected: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """Follow the order updates stream, reconnecting by itself, until `until()` is true.

        `on_connected` runs after each (re)connect: nothing missed is replayed, the caller takes a snapshot.
        """
        ...
