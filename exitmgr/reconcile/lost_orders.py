"""Orders that one side knows and the other does not: looked up, booked, adopted, closed, or told to a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.reconcile.compare import plain_symbol
from exitmgr.reconcile.differences import Difference, Kind, Theirs, spelled
from exitmgr.reconcile.freezing import freeze_positions
from exitmgr.reconcile.sightings import tell
from orders.brokers.protocol import Broker, OrderRef, OrderReport, OrderSide, ReportedState
from orders.client_ids import client_order_id
from orders.create import closing_side
from orders.models import Intent, Lane, Order
from orders.states import OrderState
from orders.updates import apply_reports
from positions.locks import lock_position
from positions.models import Account, Position
from positions.rows import write_back
from positions.states import PositionEvent, PositionStatus, next_status
from positions.values import Side

#: Look-ups of one look at an account; the rest come with the next.
LOOK_UPS: Final = 50
#: How long a look-up must have found nothing before an order counts as gone.
GONE_AFTER: Final = timedelta(seconds=60)
#: How far an exit's number and attempts may have got beyond what we remember.
_SEQUENCES_AHEAD: Final = 50
_ATTEMPTS: Final = 12


def look_up(
    differences: Sequence[Difference], *, account_id: int, broker: Broker, now: datetime
) -> tuple[list[Difference], int]:
    """Ask about orders that one list names and the other does not, and book what comes back.

    Returns those the broker does not know at all, as ghosts, and how many were asked about.

    :raises BrokerError: the broker did not answer.
    """
    asked = [one for one in differences if one.kind in (Kind.MISSED_NEWS, Kind.NOT_OPEN_THERE)][:LOOK_UPS]
    orders = Order.objects.select_related("instrument").in_bulk([one.order_id for one in asked if one.order_id])
    reports: list[OrderReport] = []
    ghosts: list[Difference] = []
    for one in asked:
        order = orders[one.order_id] if one.order_id else None
        if order is None:
            continue
        found = broker.find_order(
            OrderRef(
                client_order_id=order.client_order_id,
                broker_order_id=order.broker_order_id,
                symbol=order.instrument.symbol,
            )
        )
        if found is not None:
            reports.append(found)
        elif one.kind is Kind.NOT_OPEN_THERE:
            ghosts.append(_ghost(one, order))
    if reports:
        apply_reports(account_id=account_id, reports=reports, now=now)
    return ghosts, len(asked)


def _ghost(one: Difference, order: Order) -> Difference:
    return Difference(
        kind=Kind.GHOST,
        key=f"ghost:{order.client_order_id}",
        symbol=one.symbol,
        figures={"order": order.pk, "filled_here": spelled(order.filled_quantity)},
        order_id=order.pk,
        position_ids=one.position_ids,
    )


def end_ghost(difference: Difference, *, account_id: int, theirs: Theirs, now: datetime) -> str | None:
    """End an order that the broker does not know; None while the broker may still hold its quantity.

    What it had claimed becomes free again, so that a stop can take it.
    """
    assert difference.order_id is not None  # noqa: S101 - a ghost is an order of ours
    order = Order.objects.select_related("instrument").get(pk=difference.order_id)
    symbol = order.instrument.symbol
    held = next((one for one in theirs.positions if plain_symbol(one.symbol) == plain_symbol(symbol)), None)
    if order.intent == Intent.EXIT and held is not None and held.available != held.quantity:
        return None
    report = OrderReport(
        client_order_id=order.client_order_id,
        broker_order_id=order.broker_order_id,
        state=ReportedState.CANCELLED,
        symbol=symbol,
        side=OrderSide(order.side),
        quantity=order.quantity,
        filled_quantity=order.filled_quantity,
        average_fill_price=None,
        at=now,
        reason="the broker has no such order",
    )
    apply_reports(account_id=account_id, reports=[report], now=now)
    resolve_alerts(dedupe_key=f"order_unknown_to_broker:{order.pk}", now=now)
    raise_alert(
        kind="order_ended_as_unknown",
        severity=Severity.CRITICAL,
        title=f"Order {order.pk} in {symbol} was unknown to the broker and has been ended here",
        message="Look-ups found no such order for a minute, and nothing of the holding is bound there. "
        "Check at the broker what became of it.",
        dedupe_key=f"order_ended_as_unknown:{order.pk}",
        requires_action=True,
        account_ref=account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
    return f"ended order {order.pk}"


def take_up_orphan(difference: Difference, *, account: Account, broker: Broker, now: datetime, actor: str) -> str:
    """Take an order with an id of our making into our books, or freeze what it would reduce; say what was done.

    An exit is recognised because its id is a function of its position, its number and its attempt.
    """
    report = difference.report
    assert report is not None  # noqa: S101 - an orphan is found in a report
    against = _positions_against(report, account=account)
    if not Order.objects.filter(account=account, client_order_id=report.client_order_id).exists():
        for position in against:
            place = _place_of(report.client_order_id, position)
            if place is None:
                continue
            order = _write_down(report, position_id=position.pk, place=place, now=now, actor=actor)
            told = broker.find_order(OrderRef(client_order_id=report.client_order_id, symbol=report.symbol)) or report
            apply_reports(account_id=account.pk, reports=[told], now=now)
            return f"recognised as an exit of position {position.pk} and written down as order {order.pk}"
    why = f"{difference.key} at the broker has an id of ours and is not in our books"
    freeze_positions([one.pk for one in against], why=why, now=now, actor=actor)
    frozen = ", ".join(str(one.pk) for one in against)
    tell(
        difference,
        account_id=account.pk,
        title=f"An order of ours in {report.symbol} at the broker is not in our books",
        message=f"{report.side} {spelled(report.quantity)} {report.symbol}, broker's id {report.broker_order_id}. "
        + (f"Nothing is sent for position {frozen} until it is settled. " if frozen else "")
        + "Cancel it at the broker if nobody needs it, then release the position.",
        now=now,
    )
    return f"told a person; frozen: {frozen or 'nothing'}"


def _positions_against(report: OrderReport, *, account: Account) -> list[Position]:
    """Return the open positions that an order would reduce."""
    side = Side.LONG if report.side is OrderSide.SELL else Side.SHORT
    return list(
        Position.objects.filter(account=account, instrument__symbol=report.symbol, side=side)
        .exclude(status=PositionStatus.CLOSED)
        .order_by("pk")
    )


def _place_of(wanted: str, position: Position) -> tuple[int, int] | None:
    """Return the number and the attempt of the exit that has this id, None when no exit of the position has."""
    for sequence in range(1, position.exit_seq + _SEQUENCES_AHEAD + 1):
        for attempt in range(1, _ATTEMPTS + 1):
            made = client_order_id(
                account_id=position.account_id, subject=f"position {position.pk}", leg=str(sequence), attempt=attempt
            )
            if made == wanted:
                return sequence, attempt
    return None


def _write_down(report: OrderReport, *, position_id: int, place: tuple[int, int], now: datetime, actor: str) -> Order:
    """Write an exit that the broker has into our books, with as much reserved as is free."""
    sequence, attempt = place
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        outstanding = report.quantity - report.filled_quantity
        reserved = max(min(report.quantity, position.available), Decimal(0))
        order = Order.objects.create(
            account_id=position.account_id,
            instrument=position.instrument,
            position=position,
            intent=Intent.EXIT,
            reason="recovered",
            strategy=position.strategy,
            urgency=30,
            lane=Lane.TAKE_PROFIT,
            side=closing_side(Side(position.side)),
            quantity=report.quantity,
            reserved=reserved,
            leg=f"recovered {sequence}",
            attempt=attempt,
            client_order_id=report.client_order_id,
            broker_order_id=report.broker_order_id,
            state=OrderState.SUBMITTED,
            created_at=now,
            accepted_at=now,
        )
        position.reserved += reserved
        position.exit_seq = max(position.exit_seq, sequence)
        position.status = next_status(PositionStatus(position.status), PositionEvent.EXIT_REQUESTED)
        write_back([position], fields=("reserved", "exit_seq", "status"))
        write_events(
            [
                Happening(
                    kind="order_recovered",
                    actor=actor,
                    account_ref=position.account_id,
                    position_ref=position.pk,
                    order_ref=order.pk,
                    data={
                        "client_order_id": order.client_order_id,
                        "quantity": report.quantity,
                        "outstanding": outstanding,
                        "reserved": reserved,
                    },
                )
            ],
            now=now,
        )
    return order
