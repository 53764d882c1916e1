"""Reading both sides of an account: our rows as plain values, and a snapshot of the broker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import F, Q, Sum

from exitmgr.reconcile.differences import OurOrder, OurPosition, Ours, Theirs
from orders.brokers.protocol import Broker, OrderReport
from orders.models import Fill, Order
from orders.states import AT_BROKER, LIVE, TERMINAL, OrderState
from positions.models import Position
from positions.states import PositionStatus

#: What was touched so recently may be known to one side only.
SETTLE: Final = timedelta(seconds=5)
#: A broker's list of open orders may still name what ended so recently.
ENDED_LATELY: Final = timedelta(seconds=60)
_ON_THE_WAY: Final = (OrderState.SUBMITTING, OrderState.UNKNOWN)


def read_theirs(broker: Broker) -> Theirs:
    """Ask the broker for everything it holds of the account; orders first, so that what fills meanwhile is held.

    :raises BrokerError: it did not answer.
    """
    orders = tuple(broker.open_orders())
    return Theirs(orders=orders, positions=tuple(broker.positions()), account=broker.account())


def read_nets(account_id: int) -> dict[str, Decimal]:
    """Return what our open positions come to by symbol, signed; one statement, however many they are."""
    net = Sum(F("side") * (F("quantity") - F("exited")))
    rows = Position.objects.filter(account_id=account_id).exclude(status=PositionStatus.CLOSED)
    return dict(rows.order_by().values_list("instrument__symbol").annotate(net=net))


def read_ours(
    account_id: int,
    *,
    since: datetime,
    now: datetime,
    agreed: Collection[str] = (),
    changed: Collection[str] = (),
    reported: Sequence[OrderReport] = (),
) -> Ours:
    """Return what our books say of an account, less the positions in symbols that are `agreed` already.

    The look began at `since`, and the symbols in `changed` have changed during it; of the broker's orders, as
    `reported`, some may have ended here.
    """
    live = list(Order.objects.filter(account_id=account_id, state__in=LIVE).select_related("instrument").order_by("pk"))
    return Ours(
        positions=tuple(_positions(account_id, leave_out=agreed)),
        orders=tuple(map(_order, live)),
        moving=frozenset(
            {order.instrument.symbol for order in live if order.state in _ON_THE_WAY}
            | _touched_lately(account_id, since=since - SETTLE)
            | {*changed}
        ),
        ended=_ended_lately(account_id, reported, since=now - ENDED_LATELY),
        expired_resting=tuple(_expired_resting(account_id, live)),
    )


def _positions(account_id: int, *, leave_out: Collection[str]) -> list[OurPosition]:
    rows = (
        Position.objects.filter(account_id=account_id)
        .exclude(status=PositionStatus.CLOSED)
        .exclude(instrument__symbol__in=leave_out)
        .select_related("instrument")
        .order_by("opened_at", "pk")
    )
    return [
        OurPosition(
            position_id=row.pk,
            symbol=row.instrument.symbol,
            side=row.side,
            remaining=row.remaining,
            average_entry=row.average_entry,
            opened_at=row.opened_at,
            lot=row.instrument.lot,
            dust=row.instrument.dust,
            frozen=row.frozen_at is not None,
        )
        for row in rows
    ]


def _order(row: Order) -> OurOrder:
    return OurOrder(
        order_id=row.pk,
        client_order_id=row.client_order_id,
        broker_order_id=row.broker_order_id,
        symbol=row.instrument.symbol,
        filled=row.filled_quantity,
        at_broker=row.state in AT_BROKER,
        position_id=row.position_id,
    )


def _touched_lately(account_id: int, *, since: datetime) -> set[str]:
    """Return the symbols in which something was sent, taken, filled or ended since then."""
    touched = Order.objects.filter(
        Q(submitted_at__gt=since) | Q(accepted_at__gt=since) | Q(ended_at__gt=since), account_id=account_id
    )
    booked = Fill.objects.filter(account_id=account_id, booked_at__gt=since)
    return {
        *touched.values_list("instrument__symbol", flat=True),
        *booked.values_list("order__instrument__symbol", flat=True),
    }


def _ended_lately(account_id: int, reported: Sequence[OrderReport], *, since: datetime) -> frozenset[str]:
    rows = Order.objects.filter(
        Q(client_order_id__in=[one.client_order_id for one in reported])
        | Q(broker_order_id__in=[one.broker_order_id for one in reported if one.broker_order_id]),
        account_id=account_id,
        state__in=TERMINAL,
        ended_at__gt=since,
    ).values_list("client_order_id", "broker_order_id")
    return frozenset(name for names in rows for name in names if name)


def _expired_resting(account_id: int, live: Sequence[Order]) -> list[OurOrder]:
    """Return the last resting order of each position whose protection expired and was not placed again."""
    covered = {order.position_id for order in live if order.resting and order.position_id}
    rows = (
        Order.objects.filter(account_id=account_id, resting=True, position__isnull=False)
        .exclude(position__status=PositionStatus.CLOSED)
        .exclude(position_id__in=covered)
        .select_related("instrument")
        .order_by("position_id", "-pk")
        .distinct("position_id")
    )
    return [_order(row) for row in rows if row.state == OrderState.EXPIRED]
