"""Leaving everything an account holds, a batch at a time; whoever calls again goes on where a crash stopped it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Exists, F, OuterRef, Q

from exitmgr.exits import HUNDRED, ExitIntent, leg_of, make_exits
from exitmgr.probes import snapshots_of
from exitmgr.rules.types import Decision, urgency_of
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Order
from orders.states import LIVE, OrderState
from positions.locks import lock_positions
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side, tradable_basis

log = logging.getLogger(__name__)

POSITIONS_AT_ONCE: Final = 250
#: Orders one call asks to end, so that nobody waits long for it; the next call goes on.
CANCELS_AT_ONCE: Final = 100
#: An exit that ended unfilled was retried and has called a person; it is tried again after this long.
AGAIN_AFTER: Final = timedelta(seconds=60)

#: Unsent, and working at the broker: each has an index of its own. What is just being sent is met by the next call.
_CANCELLABLE: Final = ((OrderState.PENDING,), (OrderState.PARTIALLY_FILLED, OrderState.SUBMITTED))
_UNFILLED: Final = (OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one batch did: exits made, and the last position it looked at while there may be more."""

    exits: int
    last: int | None


def leave_some(account_id: int, *, reason: str, evidence: Mapping[str, Any], after: int, now: datetime) -> Left:
    """Make an exit for all that is unclaimed of the account's next positions by id, in the caller's transaction.

    Positions that this kind of exit is already leaving are passed over, and for a minute those it has just failed to
    leave. `evidence` is kept with each order beside its quote.
    """
    leg = leg_of(reason, urgency_of(reason))
    exits = Order.objects.filter(position=OuterRef("pk"), intent=Intent.EXIT, leg=leg)
    ids = list(
        Position.objects.filter(
            ~Exists(exits.filter(Q(state__in=LIVE) | Q(state__in=_UNFILLED, ended_at__gt=now - AGAIN_AFTER))),
            account_id=account_id,
            pk__gt=after,
            quantity__gt=F("exited") + F("reserved"),
        )
        .exclude(status=PositionStatus.CLOSED)
        .order_by("pk")
        .values_list("pk", flat=True)[:POSITIONS_AT_ONCE]
    )
    positions = lock_positions(ids)
    seen = snapshots_of({position.instrument_id for position in positions.values()})
    intents = []
    for position in positions.values():
        snapshot, quote = seen.get(position.instrument_id, (None, {}))
        price = snapshot.on(tradable_basis(Side(position.side))).price if snapshot else None
        intents.append(
            ExitIntent(
                position=position,
                decision=Decision(reason=reason, fraction_pct=HUNDRED, trigger_price=None, seen_price=price),
                priced_at=snapshot.received_at if snapshot else None,
                quote={**quote, **evidence},
            )
        )
    made = make_exits(intents, now=now, actor="safety")
    return Left(exits=len(made), last=ids[-1] if len(ids) == POSITIONS_AT_ONCE else None)


def call_off_orders(account_id: int, *, exits_too: bool, now: datetime, why: str) -> int:
    """Ask working and unsent entries of an account to end, and return how many were.

    With `exits_too` also its exits that wait for a price: they hold quantity that is to leave at once. Exits at the
    market are left alone, they are on their way out.
    """
    wanted = Q(intent=Intent.ENTRY)
    if exits_too:
        wanted |= Q(intent=Intent.EXIT) & ~Q(order_type=OrderType.MARKET)
    asked = 0
    for states in _CANCELLABLE:
        orders = Order.objects.filter(wanted, account_id=account_id, state__in=states).order_by("pk")
        for order_id in orders.values_list("pk", flat=True)[: CANCELS_AT_ONCE - asked]:
            try:
                request_cancel(order_id=order_id, now=now, actor="safety", why=why)
            except NotCancellable as error:
                log.info("order_not_called_off order_id=%s why=%s", order_id, error)
            else:
                asked += 1
    return asked
