"""Exits that wait for what less urgent ones hold: the row is the wish, and what comes free is given to it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F, Q, Sum

from alerts.events import Happening, write_events
from exitmgr.exits import HUNDRED, NOTHING, ExitIntent, make_exits
from exitmgr.rules.types import Decision
from orders.endings import end_order
from orders.lanes import ring_lanes_on_commit
from orders.models import Intent, Order
from orders.states import LIVE, OrderEvent, OrderState, next_state
from positions import ledger
from positions.locks import lock_position
from positions.models import Position
from positions.states import PositionStatus

_WRITTEN = ["quantity", "reserved", "waits", "state", "ended_at", "news"]


def give_room(position: Position, *, now: datetime, below: int | None = None) -> int:
    """Give what is unclaimed of a locked position to the exits that wait for it, and return how many were given some.

    The most urgent first; only those more urgent than `below`. One that can be given nothing any more is called off.
    """
    waiting = Order.objects.select_for_update(of=("self",)).filter(position=position, waits=True)
    given = []
    for order in waiting.order_by("urgency", "pk"):
        if below is not None and order.urgency >= below:
            break
        order.position = position
        if position.status == PositionStatus.CLOSED:
            _call_off(order, now=now)
        elif _give(order, position, now=now):
            given.append(order)
    ring_lanes_on_commit(given)
    return len(given)


def serve_waiting(*, now: datetime) -> int:
    """Give what came free to the exits that wait for it, whoever failed to do so; return how many were given some."""
    left = F("position__exited") + F("position__reserved")
    free = Q(position__quantity__gt=left) | Q(position__status=PositionStatus.CLOSED)
    position_ids = Order.objects.filter(free, waits=True, state=OrderState.PENDING).values_list(
        "position_id", flat=True
    )
    given = 0
    for position_id in sorted(set(position_ids)):
        if position_id is None:
            continue
        with transaction.atomic(durable=True):
            given += give_room(lock_position(position_id), now=now)
    return given


def _give(order: Order, position: Position, *, now: datetime) -> bool:
    free = min(order.quantity, position.available)
    rest = min(order.quantity - free, _still_held(position, urgency=order.urgency))
    if free <= 0 or (rest > 0 and free < position.instrument.lot):
        if rest <= 0:
            _call_off(order, now=now)
        return False
    ledger.reserve(position, quantity=free)
    ledger.save_reservations([position])
    order.quantity, order.reserved, order.waits = free, free, False
    order.save(update_fields=_WRITTEN)
    if rest > 0:  # what is free leaves at once; the rest of the wish is written down anew
        decision = Decision(
            reason=order.reason, fraction_pct=HUNDRED, trigger_price=None, seen_price=order.expected_price
        )
        intent = ExitIntent(
            position=position,
            decision=decision,
            priced_at=order.priced_at,
            quote=order.priced_from,
            max_slippage_bps=order.max_slippage_bps,
            at_most=rest,
            waits=True,
        )
        make_exits([intent], now=now, actor="advance")
    return True


def _still_held(position: Position, *, urgency: int) -> Decimal:
    """Return what exits hold that were called off for one of this urgency and have not ended yet."""
    gives_way = Q(urgency__gt=urgency) | Q(resting=True)
    live = Order.objects.filter(gives_way, position=position, intent=Intent.EXIT, state__in=LIVE, waits=False)
    return live.aggregate(held=Sum("reserved"))["held"] or NOTHING


def _call_off(order: Order, *, now: datetime) -> None:
    """End a wish for which nothing is left: exits as urgent have taken it, or the position is closed."""
    order.state = next_state(OrderState(order.state), OrderEvent.CANCELLED)
    order.last_error = "nothing is left for it"
    freed = end_order(order, now=now)
    if freed is not None:
        ledger.save_positions([freed])
    order.save(update_fields=[*_WRITTEN, "last_error"])
    write_events(
        [
            Happening(
                kind="order_cancelled",
                account_ref=order.account_id,
                position_ref=order.position_id,
                order_ref=order.pk,
                data={"reason": order.last_error},
            )
        ],
        now=now,
    )
