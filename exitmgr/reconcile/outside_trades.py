"""Holdings that became smaller without an order of ours: our positions follow, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.brackets import complete_brackets
from exitmgr.reconcile.differences import Difference, spelled
from orders.cancel import NotCancellable, request_cancel
from orders.endings import end_order
from orders.lanes import ring_advance_on_commit
from orders.models import Intent, Order
from orders.states import LIVE, OrderEvent, OrderState, next_state
from positions import ledger
from positions.locks import lock_positions
from positions.models import Position, Quote
from positions.states import PositionStatus
from positions.values import Side, tradable_basis

REASON: Final = "external"
_ZERO: Final = Decimal(0)
_ON_THE_WAY: Final = (OrderState.SUBMITTING, OrderState.UNKNOWN)


def follow_reduction(difference: Difference, *, account_id: int, now: datetime, actor: str) -> str | None:
    """Take what is gone at the broker out of our positions and call off exits beyond the rest; say what was done.

    What it was sold at is not known: the price now stands in, or the average entry where there is none. None means
    that our side has changed since it was compared, or an order is on its way: there is a next look.
    """
    there = difference.holding.quantity if difference.holding is not None else _ZERO
    cancels: list[int] = []
    with transaction.atomic(durable=True):
        locked = lock_positions(difference.position_ids)
        positions = sorted(
            (one for one in locked.values() if one.status != PositionStatus.CLOSED),
            key=lambda one: (one.opened_at, one.pk),
        )
        here = sum((one.side * one.remaining for one in positions), _ZERO)
        if spelled(here) != difference.figures["here"] or not positions:
            return None
        orders = list(
            Order.objects.select_for_update(of=("self",))
            .select_related("instrument")
            .filter(position__in=locked, state__in=LIVE)
            .order_by("pk")
        )
        if any(order.state in _ON_THE_WAY for order in orders):
            return None
        missing = abs(here) - abs(there)
        done = []
        for position in positions:
            taken = min(missing, position.remaining)
            if taken <= 0:
                break
            missing -= taken
            own = [order for order in orders if order.position_id == position.pk]
            cancels += _take_out(position, taken, orders=own, now=now, actor=actor)
            done.append(f"{spelled(taken)} of position {position.pk}")
        closed = [one.pk for one in positions if one.status == PositionStatus.CLOSED]
        complete_brackets(position_ids=closed, now=now)
        cancels += [order.pk for order in orders if order.intent == Intent.ENTRY and order.position_id in closed]
        said = f"took out {', '.join(done)}"
        _alert(difference, said, account_id=account_id, now=now)
        ring_advance_on_commit()
    for order_id in cancels:
        _cancel(order_id, now=now, actor=actor)
    return said


def _take_out(
    position: Position, quantity: Decimal, *, orders: Sequence[Order], now: datetime, actor: str
) -> list[int]:
    """Book a part of a locked position as sold by somebody else; return the sent exits that now ask for too much."""
    price, source = _price(position)
    exits = [order for order in orders if order.intent == Intent.EXIT]
    too_much = _withdraw(exits, rest=position.remaining - quantity, now=now)
    held = sum((order.reserved for order in exits), _ZERO)
    ledger.add_exit_fill(
        position,
        quantity=quantity,
        price=price,
        fee=_ZERO,
        at=now,
        order_id=None,
        reason=REASON,
        released=position.reserved - held,
    )
    if position.status == PositionStatus.EXIT_PENDING and not position.reserved:
        ledger.release(position, quantity=_ZERO)
    ledger.save_positions([position])
    happening = {"quantity": quantity, "price": price, "price_from": source, "remaining": position.remaining}
    events = [Happening(kind="position_reduced_outside", actor=actor, account_ref=position.account_id,
                        position_ref=position.pk, data=happening)]  # fmt: skip
    if position.status == PositionStatus.CLOSED:
        data = {"realized_pnl": position.realized_pnl, "reason": REASON}
        events.append(Happening(kind="position_closed", actor=actor, account_ref=position.account_id,
                                position_ref=position.pk, data=data))  # fmt: skip
    write_events(events, now=now)
    return too_much


def _withdraw(exits: Sequence[Order], *, rest: Decimal, now: datetime) -> list[int]:
    """Take back what exits claim beyond the rest, the least urgent first; return the sent ones to be called off."""
    excess = sum((order.reserved for order in exits), _ZERO) - rest
    sent = []
    for order in sorted(exits, key=lambda order: (-order.urgency, -order.pk)):
        taken = min(excess, order.reserved)
        if taken <= 0:
            continue
        excess -= taken
        order.reserved -= taken
        if order.state != OrderState.PENDING:
            sent.append(order.pk)
        elif order.reserved > 0:
            order.quantity -= taken
        else:
            order.state = next_state(OrderState.PENDING, OrderEvent.CANCELLED)
            order.cancel_asked_at = now
            order.position = None  # what it had claimed is taken back by the caller
            end_order(order, now=now)
        order.save(update_fields=["state", "reserved", "quantity", "cancel_asked_at", "ended_at", "news"])
    return sent


def _price(position: Position) -> tuple[Decimal, str]:
    quote = Quote.objects.filter(pk=position.instrument_id).first()
    if quote is None:
        return position.average_entry, "average entry, as no price is known"
    price: Decimal = getattr(quote, str(tradable_basis(Side(position.side))))
    return price, "the last price known, not what it was sold at"


def _cancel(order_id: int, *, now: datetime, actor: str) -> None:
    try:
        request_cancel(order_id=order_id, now=now, actor=actor, why="what it would sell is gone at the broker")
    except NotCancellable:
        return  # it has ended


def _alert(difference: Difference, said: str, *, account_id: int, now: datetime) -> None:
    raise_alert(
        kind="holding_changed_outside",
        severity=Severity.WARNING,
        title=f"{difference.symbol} was reduced at the broker without an order of ours",
        message=f"The broker holds {difference.figures['there']}, we held {difference.figures['here']}: {said}. "
        "Its P&L is an estimate, because the price it was sold at is not known here.",
        dedupe_key=f"holding_changed_outside:{account_id}:{difference.symbol}:{now:%Y%m%d%H%M%S}"[:128],
        data=dict(difference.figures),
        account_ref=account_id,
        position_ref=difference.position_ids[0],
        now=now,
    )
