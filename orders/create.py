"""Writing an order down. Nothing is sent from here: the committed row is the promise that it will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from alerts.events import Happening, write_events
from orders.brokers.protocol import OrderClass, OrderSide, OrderType, TimeInForce
from orders.client_ids import client_order_id
from orders.limits import EXIT_SLIPPAGE_BPS, RETRY_ATTEMPTS, RETRY_DELAY_SECONDS
from orders.models import Intent, Order, lane_for
from positions.models import Account, Instrument, Position
from positions.values import AssetClass, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitDraft:
    """What one exit order is to be; the position is locked and the quantity already reserved by the caller."""

    position: Position
    quantity: Decimal
    reason: str
    urgency: int
    leg: str
    sequence: int
    expected_price: Decimal | None
    trigger_price: Decimal | None
    priced_at: datetime | None = None
    priced_from: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    retry_of_id: int | None = None
    not_before: datetime | None = None
    max_slippage_bps: int = EXIT_SLIPPAGE_BPS
    retry_attempts: int = RETRY_ATTEMPTS
    retry_delay_seconds: int = RETRY_DELAY_SECONDS
    limit_price: Decimal | None = None
    #: Empty: what the venue takes for the order type.
    time_in_force: str = ""
    #: It is called off when it has worked so long without being filled; None: never.
    work_seconds: int | None = None
    #: It waits for what less urgent exits hold, and nothing is reserved for it yet.
    waits: bool = False
    #: The order is a stop at this price, and rests at the broker as protection.
    resting_stop: Decimal | None = None
    #: With a resting stop: a target beside it, of which one cancels the other at the broker.
    resting_target: Decimal | None = None


def closing_side(side: Side) -> OrderSide:
    """Return the side that leaves a position: a long sells, a short buys back."""
    return OrderSide.SELL if side is Side.LONG else OrderSide.BUY


def opening_side(side: Side) -> OrderSide:
    """Return the side that enters a position."""
    return OrderSide.BUY if side is Side.LONG else OrderSide.SELL


def market_time_in_force(asset_class: str) -> TimeInForce:
    """Return the time in force a market order uses: crypto venues know no trading day."""
    return TimeInForce.GTC if asset_class == AssetClass.CRYPTO else TimeInForce.DAY


def _type_of(draft: ExitDraft) -> OrderType:
    if draft.resting_target is not None:
        return OrderType.LIMIT
    if draft.resting_stop is not None:
        return OrderType.STOP
    return OrderType.MARKET if draft.limit_price is None else OrderType.LIMIT


def create_exit_orders(drafts: Sequence[ExitDraft], *, now: datetime, actor: str) -> list[Order]:
    """Insert exit orders with their events, in the caller's transaction and under the positions' locks.

    The client order id is a function of account, position, the exit's sequence number and the attempt.
    """
    orders = Order.objects.bulk_create(
        Order(
            account_id=draft.position.account_id,
            instrument_id=draft.position.instrument_id,
            position=draft.position,
            intent=Intent.EXIT,
            reason=draft.reason,
            strategy=draft.position.strategy,
            urgency=draft.urgency,
            lane=lane_for(draft.urgency),
            side=closing_side(Side(draft.position.side)),
            quantity=draft.quantity,
            reserved=Decimal(0) if draft.waits else draft.quantity,
            waits=draft.waits,
            work_seconds=draft.work_seconds,
            order_type=_type_of(draft),
            limit_price=draft.limit_price if draft.resting_target is None else draft.resting_target,
            stop_price=draft.resting_stop,
            order_class=OrderClass.SIMPLE if draft.resting_target is None else OrderClass.OCO,
            group="" if draft.resting_target is None else f"position {draft.position.pk} exit {draft.sequence}",
            resting=draft.resting_stop is not None,
            time_in_force=draft.time_in_force or market_time_in_force(draft.position.instrument.asset_class),
            expected_price=draft.expected_price,
            trigger_price=draft.trigger_price,
            max_slippage_bps=draft.max_slippage_bps,
            retry_attempts=draft.retry_attempts,
            retry_delay_seconds=draft.retry_delay_seconds,
            priced_from=dict(draft.priced_from),
            leg=draft.leg,
            attempt=draft.attempt,
            retry_of_id=draft.retry_of_id,
            client_order_id=client_order_id(
                account_id=draft.position.account_id,
                subject=f"position {draft.position.pk}",
                leg=str(draft.sequence),
                attempt=draft.attempt,
            ),
            next_attempt_at=draft.not_before,
            created_at=now,
            priced_at=draft.priced_at,
        )
        for draft in drafts
    )
    write_events((_requested(order, actor=actor) for order in orders), now=now)
    return orders


def create_entry_order(
    *,
    account: Account,
    instrument: Instrument,
    side: Side,
    quantity: Decimal,
    subject: str,
    urgency: int,
    now: datetime,
    actor: str,
    order_type: OrderType = OrderType.MARKET,
    limit_price: Decimal | None = None,
    expected_price: Decimal | None = None,
    strategy: str = "",
) -> Order:
    """Insert one entry order with its event, in the caller's transaction.

    `subject` names the request and is unique per account: the same one again is the same client order id, which
    the database refuses.
    """
    order = Order.objects.create(
        account=account,
        instrument=instrument,
        intent=Intent.ENTRY,
        reason="entry",
        strategy=strategy,
        urgency=urgency,
        lane=lane_for(urgency),
        side=opening_side(side),
        quantity=quantity,
        order_type=order_type,
        limit_price=limit_price,
        time_in_force=market_time_in_force(instrument.asset_class),
        expected_price=expected_price,
        leg="entry",
        client_order_id=client_order_id(account_id=account.pk, subject=subject, leg="entry", attempt=1),
        created_at=now,
    )
    write_events([_requested(order, actor=actor)], now=now)
    return order


def _requested(order: Order, *, actor: str) -> Happening:
    return Happening(
        kind=f"{order.intent}_requested",
        actor=actor,
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        data={
            "reason": order.reason,
            "side": order.side,
            "quantity": order.quantity,
            "trigger_price": order.trigger_price,
            "expected_price": order.expected_price,
            "client_order_id": order.client_order_id,
            "attempt": order.attempt,
            "quote": order.priced_from,
        },
    )
