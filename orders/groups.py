"""Orders the broker keeps as a group: one sends them, the others become rows as soon as the broker names them.

The quantity of a group is reserved once: by the order that is sent, and from its acceptance on by the stop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from django.db import transaction
from django.db.models import Q

from alerts.events import Happening, write_events
from orders.brokers.protocol import OrderClass, OrderReport, OrderType
from orders.models import Intent, Order
from orders.states import LIVE, OrderState
from positions import ledger
from positions.locks import lock_positions
from positions.models import Position

if TYPE_CHECKING:
    from orders.booking import Changed

log = logging.getLogger(__name__)

#: The leg of a group's stop; the reason it would sell for stands with what its target was decided on.
STOP_LEG: Final = "stop"
STOP_REASON: Final = "stop_reason"


def adopt_legs(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> list[OrderReport]:
    """Write down the legs that these reports name for the first time; return the reports with those of their legs."""
    grouped = {report.client_order_id: report for report in reports if report.legs}
    if not grouped:
        return list(reports)
    ours = Order.objects.filter(
        account_id=account_id, client_order_id__in=grouped, order_class=OrderClass.OCO, position__isnull=False
    )
    named = dict(ours.values_list("client_order_id", "position_id"))
    with transaction.atomic(durable=True):
        positions = lock_positions(pk for pk in named.values() if pk is not None)
        for parent in ours.select_for_update(of=("self",)).select_related("instrument").order_by("pk"):
            if parent.position_id in positions:
                for leg in grouped[parent.client_order_id].legs:
                    _adopt(parent, leg, positions[parent.position_id], now=now)
    known = [leg for client_id, report in grouped.items() if client_id in named for leg in report.legs]
    return [*reports, *known]


def _adopt(parent: Order, leg: OrderReport, position: Position, *, now: datetime) -> None:
    same = Q(broker_order_id=leg.broker_order_id) | Q(client_order_id=leg.client_order_id)
    if Order.objects.filter(same, account_id=parent.account_id).exclude(broker_order_id="").exists():
        return
    if Order.objects.filter(position=position, leg=STOP_LEG, intent=Intent.EXIT, state__in=LIVE).exists():
        log.error(
            "leg_not_adopted order_id=%s broker_order_id=%s: another stop is live", parent.pk, leg.broker_order_id
        )
        return
    taken, parent.reserved = parent.reserved, Decimal(0)
    parent.save(update_fields=["reserved"])
    if not taken:
        taken = min(position.available, leg.quantity)
        position.reserved += taken
    if taken > leg.quantity:
        ledger.release(position, quantity=taken - leg.quantity)
        taken = leg.quantity
    ledger.save_positions([position])
    stop = Order.objects.create(
        account_id=parent.account_id,
        instrument_id=parent.instrument_id,
        position=position,
        intent=Intent.EXIT,
        reason=str(parent.priced_from.get(STOP_REASON, "stop_loss")),
        strategy=parent.strategy,
        urgency=parent.urgency,
        lane=parent.lane,
        side=parent.side,
        quantity=leg.quantity,
        reserved=taken,
        order_type=OrderType.STOP,
        order_class=OrderClass.OCO,
        group=parent.group,
        resting=True,
        stop_price=parent.stop_price,
        expected_price=parent.stop_price,
        trigger_price=parent.stop_price,
        time_in_force=parent.time_in_force,
        max_slippage_bps=parent.max_slippage_bps,
        leg=STOP_LEG,
        client_order_id=leg.client_order_id,
        broker_order_id=leg.broker_order_id,
        state=OrderState.SUBMITTED,
        created_at=now,
        submitted_at=now,
        accepted_at=now,
        heard_at=now,
    )
    write_events(
        [
            Happening(
                kind="order_accepted",
                account_ref=stop.account_id,
                position_ref=position.pk,
                order_ref=stop.pk,
                data={"broker_order_id": stop.broker_order_id, "group": stop.group},
            )
        ],
        now=now,
    )


def share_fill(order: Order, *, quantity: Decimal, owed: Decimal, changed: Changed) -> Decimal:
    """Shrink the other orders of a group by what one of them filled, and return what that freed of `owed`.

    The broker shrinks them too; where both were filled all the same, what is real is booked and a person is called.
    """
    freed = Decimal(0)
    others = Order.objects.select_for_update(of=("self",)).select_related("instrument", "account")
    for found in others.filter(account_id=order.account_id, group=order.group, state__in=LIVE).exclude(pk=order.pk):
        other = changed.orders.setdefault(found.pk, found)
        other.position = order.position
        taken = min(other.reserved, owed - freed)
        other.reserved -= taken
        freed += taken
        rest = max(other.quantity - quantity, other.filled_quantity + other.reserved)
        if rest > 0:
            other.quantity = rest
    return freed
