"""Owns what a run came to, position by position and in sum. Pure: rows, ledger and tape in, figures out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from config.demo.book import OrderRow, PositionRow
from config.demo.scenes import Trade, Word
from config.demo.tape import Print
from config.demo.verdict import MANUAL, STOP, Leaving, Story, first_reached, levels
from config.simulator import Ledger
from positions.pnl import slippage_bps

BUY = "buy"


class Untold(RuntimeError):
    """A position has no beginning that could be told; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A trade and the entry order that the API made of it."""

    trade: Trade
    order_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """One exit order and how it went; prices in dollars, times in milliseconds."""

    order_id: int
    reason: str
    quantity: Decimal
    trigger_price: Decimal | None
    expected_price: Decimal | None
    fill_price: Decimal | None
    slippage_bps: Decimal | None  #: against the trigger price, by hand against the price expected; positive is worse
    accepted_ms: float | None  #: from the price's receipt to the broker's acceptance, both on our side
    market_ms: float | None  #: from the emission of the breaching price to the broker's order, both on its side
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One position from entry to exit."""

    position_id: int
    scene: str
    symbol: str
    side: Word
    quantity: Decimal
    entry_price: Decimal
    stop_price: Decimal | None
    target_prices: Sequence[Decimal]
    realized_pnl: Decimal
    closed: bool
    exits: Sequence[Exit]


def tell_stories(
    opened: Sequence[Opened],
    *,
    orders: Sequence[OrderRow],
    positions: Sequence[PositionRow],
    ledger: Ledger,
    until: datetime,
) -> list[Story]:
    """Return the story of each position, its entry price and times taken from the broker's ledger.

    :raises Untold: an entry never became a position, or the broker does not know it.
    """
    rows = {order.id: order for order in orders}
    held = {position.id: position for position in positions}
    arrived = _arrivals(ledger)
    stories = []
    for one in opened:
        entry = rows[one.order_id]
        if entry.position_id is None:
            raise Untold(f"entry order {entry.id} of {entry.symbol} has no position; it is {entry.state}")
        executions = [e for e in ledger.executions if e.order_id == entry.broker_order_id]
        quantity = sum((e.quantity for e in executions), Decimal(0))
        if not quantity:
            raise Untold(f"the broker has no execution of entry order {entry.id}")
        exits = [order for order in orders if order.intent == "exit" and order.position_id == entry.position_id]
        broker_ids = {order.broker_order_id for order in exits}
        fills = [e.at for e in ledger.executions if e.order_id in broker_ids]
        closed = held[entry.position_id].status == "closed" and fills
        stories.append(
            Story(
                position_id=entry.position_id,
                side=one.trade.side,
                quantity=quantity,
                entry_price=sum((e.quantity * e.price for e in executions), Decimal(0)) / quantity,
                plan=one.trade.plan,
                opened_at=max(e.at for e in executions),
                until=max(fills) if closed else until,
                exits=[
                    Leaving(
                        order_id=order.id,
                        reason=order.reason,
                        quantity=order.quantity,
                        filled=order.filled_quantity,
                        arrived_at=arrived.get(order.client_order_id),
                    )
                    for order in exits
                ],
            )
        )
    return stories


def outcome_of(
    story: Story,
    *,
    position: PositionRow,
    orders: Sequence[OrderRow],
    ledger: Ledger,
    prints: Sequence[Print],
) -> Outcome:
    """Return a position's figures."""
    reached = first_reached(story, prints)
    arrived = _arrivals(ledger)
    wanted = levels(plan=story.plan, side=story.side, entry_price=story.entry_price)
    return Outcome(
        position_id=position.id,
        scene=position.strategy,
        symbol=position.symbol,
        side=story.side,
        quantity=position.quantity,
        entry_price=story.entry_price,
        stop_price=wanted.get("stop_loss"),
        target_prices=[price for reason, price in wanted.items() if reason.startswith("take_profit")],
        realized_pnl=position.realized_pnl,
        closed=position.status == "closed",
        exits=[
            _exit(order, reached=reached.get(order.reason), arrived_at=arrived.get(order.client_order_id))
            for order in orders
            if order.intent == "exit" and order.position_id == position.id
        ],
    )


def _arrivals(ledger: Ledger) -> dict[str, datetime]:
    """Return when each order came to the broker, by client order id."""
    return {order.client_order_id: order.submitted_at for order in ledger.orders}


def _exit(order: OrderRow, *, reached: datetime | None, arrived_at: datetime | None) -> Exit:
    base, fill = order.trigger_price or order.expected_price, order.fill_price
    slippage = None
    if base is not None and fill is not None:
        exact = slippage_bps(exit_side=1 if order.side == BUY else -1, expected=base, got=fill)
        slippage = exact.quantize(Decimal("0.01"))
    return Exit(
        order_id=order.id,
        reason=order.reason,
        quantity=order.quantity,
        trigger_price=order.trigger_price,
        expected_price=order.expected_price,
        fill_price=fill,
        slippage_bps=slippage,
        accepted_ms=_milliseconds(order.priced_at, order.accepted_at),
        market_ms=_milliseconds(reached, arrived_at),
        retries=max(order.epoch - 1, 0) + order.attempt - 1,
    )


def _milliseconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else (until - since).total_seconds() * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What some positions came to together."""

    positions: int
    exits: int
    by_reason: Mapping[str, int]
    realized_pnl: Decimal
    retries: int
    accepted_ms: Mapping[str, float | None]
    market_ms: Mapping[str, float | None]


def total(outcomes: Iterable[Outcome]) -> Totals:
    """Return the sums; latencies are of exits that a price demanded, not of those by hand."""
    chosen = list(outcomes)
    exits = [leaving for outcome in chosen for leaving in outcome.exits]
    demanded = [leaving for leaving in exits if leaving.reason != MANUAL]
    return Totals(
        positions=len(chosen),
        exits=len(exits),
        by_reason=dict(sorted(Counter(leaving.reason for leaving in exits).items(), key=_in_order)),
        realized_pnl=sum((outcome.realized_pnl for outcome in chosen), Decimal(0)),
        retries=sum(leaving.retries for leaving in exits),
        accepted_ms=quantiles([one.accepted_ms for one in demanded if one.accepted_ms is not None]),
        market_ms=quantiles([one.market_ms for one in demanded if one.market_ms is not None]),
    )


def _in_order(counted: tuple[str, int]) -> tuple[int, str]:
    """Return the place of a reason: stops, targets, then what was done by hand."""
    reason, _ = counted
    return (0 if reason == STOP else 2 if reason == MANUAL else 1), reason


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p99 and max by nearest rank; None where there is nothing to rank."""
    ranked = sorted(values)
    if not ranked:
        return {"p50": None, "p99": None, "max": None}
    return {
        "p50": ranked[math.ceil(0.5 * len(ranked)) - 1],
        "p99": ranked[math.ceil(0.99 * len(ranked)) - 1],
        "max": ranked[-1],
    }


def as_json(value: Any) -> Any:
    """Return a value as plain JSON: decimals as text without trailing zeros, times as ISO 8601."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value
