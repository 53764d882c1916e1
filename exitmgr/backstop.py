"""The backstop behind stops that rest at the broker: how long one is waited for once its price was reached.

The watch has marked the stop breached. The resting stop is called off when the price is far beyond it, or still beyond
it after a while; the stop then sells at the market what comes free. A price that has come back arms the watch again.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.models import Bracket, Trigger
from exitmgr.policy.of_positions import policies_of
from exitmgr.rules.types import Direction, TriggerKind, Urgency
from exitmgr.states import BracketStatus, TriggerStatus
from exitmgr.swaps import call_off
from exitmgr.trails import join_cohorts
from orders.brokers.protocol import OrderType
from orders.models import Order
from orders.states import LIVE, OrderState
from positions.locks import lock_position
from positions.models import Position, Quote
from positions.values import Basis

log = logging.getLogger(__name__)

_TEN_THOUSAND: Final = Decimal(10_000)


def watch_resting_stops(*, now: datetime) -> int:
    """Call off every resting stop that is not to be waited for any longer; return how many were."""
    breached = Trigger.objects.filter(
        status=TriggerStatus.BREACHED, urgency=Urgency.STOP, level__isnull=False, bracket__status=BracketStatus.ACTIVE
    )
    resting = Order.objects.filter(resting=True, state__in=LIVE, position__in=breached.values("position")).exclude(
        state=OrderState.CANCEL_REQUESTED
    )
    found = list(resting.select_related("position__instrument").order_by("pk"))
    if not found:
        return 0
    positions = [order.position for order in found if order.position is not None]
    policies = policies_of(positions, now=now)
    asked = 0
    for order in found:
        position = order.position
        if position is None:
            continue
        terms = policies[position.pk].trade_exit.bracket_orders
        waited = timedelta(seconds=terms.backstop_seconds)
        trigger = breached.filter(position=position).order_by("fired_at", "pk").first()
        beyond = _beyond_bps(trigger, position, now=now) if trigger else None
        if trigger is None or beyond is None or trigger.fired_at is None:
            continue
        if order.order_type != OrderType.STOP:
            continue  # the target of a group ends with its stop
        if beyond >= terms.backstop_bps or (beyond >= 0 and now - trigger.fired_at >= waited):
            asked += _stand_in(order, beyond=beyond, now=now)
        elif beyond < 0 and now - trigger.fired_at >= waited:
            _arm_again(position.pk, now=now)
    return asked


def _beyond_bps(trigger: Trigger, position: Position, *, now: datetime) -> Decimal | None:
    """Return how far the price is beyond a stop, in hundredths of a percent of it; None without a fresh price."""
    quote = Quote.objects.filter(pk=position.instrument_id).first()
    if quote is None or trigger.level is None:
        return None
    if now - quote.received_at > timedelta(seconds=position.instrument.max_age_seconds):
        return None
    price = (quote.bid + quote.ask) / 2 if trigger.basis == Basis.MID else getattr(quote, trigger.basis)
    past: Decimal = trigger.level - price if trigger.direction == Direction.FALL else price - trigger.level
    return past / trigger.level * _TEN_THOUSAND


def _stand_in(order: Order, *, beyond: Decimal, now: datetime) -> int:
    asked = call_off([order.pk], now=now, why=f"the price is {beyond:.0f} bps beyond it and it has not filled")
    if asked:
        raise_alert(
            kind="backstop",
            severity=Severity.WARNING,
            title=f"The stop of position {order.position_id} at the broker did not fill in time",
            message=f"The price is {beyond:.0f} bps beyond {order.stop_price:f}. It was called off; what it held is "
            "sold at the market once the broker confirms.",
            dedupe_key=f"backstop:{order.pk}",
            account_ref=order.account_id,
            position_ref=order.position_id,
            order_ref=order.pk,
            now=now,
        )
    return asked


def _arm_again(position_id: int, *, now: datetime) -> None:
    """Arm the stops of a position anew that were breached, when the price has come back before anything was sold."""
    with transaction.atomic(durable=True):
        instrument_ids = list(Position.objects.filter(pk=position_id).values_list("instrument", flat=True))
        quote = Quote.objects.select_for_update(no_key=True).filter(pk__in=instrument_ids).first()
        position = lock_position(position_id)
        rows = Trigger.objects.filter(position=position, status=TriggerStatus.BREACHED, urgency=Urgency.STOP)
        for trigger in rows.order_by("pk"):
            beyond = _beyond_bps(trigger, position, now=now)
            if beyond is None or beyond >= 0 or quote is None:
                continue
            best = _best_behind(trigger)
            _renew(trigger, seq=quote.seq, now=now)
            if best is not None:
                join_cohorts({trigger.pk: best}, seq=quote.seq)
            bracket = Bracket.objects.get(pk=trigger.bracket_id)
            data: dict[str, Any] = {"slot": trigger.slot, "level": trigger.level}
            write_events(
                [Happening(kind="stop_armed_again", position_ref=position.pk, bracket_ref=bracket.pk, data=data)],
                now=now,
            )


def _renew(trigger: Trigger, *, seq: int, now: datetime) -> None:
    """Replace a breached trigger by one that is armed: what has fired never re-arms itself."""
    Trigger.objects.filter(pk=trigger.pk).update(status=TriggerStatus.CANCELLED)
    trigger.pk, trigger.status = None, TriggerStatus.ARMED
    trigger.fired_at, trigger.seen_price = None, None
    trigger.armed_seq, trigger.armed_at = seq, now
    if trigger.kind == TriggerKind.TRAIL:
        trigger.level = None
    trigger.save(force_insert=True)


def _best_behind(trigger: Trigger) -> Decimal | None:
    """Return the best price a trail was measured from, by the level at which it fired."""
    if trigger.kind != TriggerKind.TRAIL or trigger.level is None:
        return None
    sign = 1 if trigger.direction == Direction.FALL else -1
    if trigger.offset_pct is not None:
        return trigger.level * 100 / (100 - sign * trigger.offset_pct)
    return trigger.level + sign * (trigger.offset or Decimal(0))
