"""How a resting stop makes room for a target and comes back: a state machine in the bracket, swept until it is done.

The stop leaves first, so that never both can fill. What fires then is judged on the price of that moment; a price
that has come back sells nothing, and the stop rests again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import QuerySet

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.firing import fire
from exitmgr.models import Bracket, Swap, Trigger
from exitmgr.policy.of_positions import policies_of
from exitmgr.probes import Candidate
from exitmgr.resting import rest_stop
from exitmgr.rules.types import Act, TriggerKind, Urgency
from exitmgr.states import BracketStatus, TriggerStatus
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.lanes import ring_advance_on_commit
from orders.models import CancelFor, Intent, Order
from orders.states import LIVE, OrderState
from positions import ledger
from positions.locks import lock_position
from positions.models import Position, Quote
from positions.states import PositionStatus

log = logging.getLogger(__name__)

_OPEN: Final = (BracketStatus.ACTIVE, BracketStatus.ERROR)


def tend_swaps(*, now: datetime) -> int:
    """Take every swap its next step, if it can be taken; return how many swaps were looked at.

    One that cannot be tended calls a person and does not hold up the others.

    :raises OperationalError: the database went away.
    """
    swapping = Bracket.objects.filter(status__in=_OPEN, position__isnull=False).exclude(swap="")
    found = list(swapping.order_by("pk").values_list("pk", "position_id", "swap"))
    for bracket_id, position_id, swap in found:
        try:
            _tend(bracket_id, position_id, Swap(swap), now=now)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("swap_failed bracket_id=%s", bracket_id)
            _alert_stuck(bracket_id, position_id, error, now=now)
    return len(found)


def call_off(order_ids: Iterable[int], *, now: datetime, why: str) -> int:
    """Ask for the end of these orders, outside any transaction; return how many were asked.

    A target that ends so waits for its price again. One that is being sent at this moment is asked at a later look.
    """
    asked = 0
    for order_id in order_ids:
        try:
            request_cancel(order_id=order_id, now=now, actor="exitmgr", why=why, cancel_for=CancelFor.ROOM)
            asked += 1
        except NotCancellable as error:
            log.info("order_not_called_off order_id=%s why=%s", order_id, error)
    return asked


def _tend(bracket_id: int, position_id: int, swap: Swap, *, now: datetime) -> None:
    live = Order.objects.filter(position_id=position_id, intent=Intent.EXIT, state__in=LIVE)
    if swap is Swap.STOP_LEAVING and _ask(live.filter(resting=True), now=now, why="the stop makes room, or moves"):
        return
    if swap is Swap.TARGET_LEAVING and _ask(_targets(live), now=now, why="it has not filled; the stop comes back"):
        return
    with transaction.atomic(durable=True):
        instrument_ids = list(Position.objects.filter(pk=position_id).values_list("instrument", flat=True))
        quote = Quote.objects.select_for_update(no_key=True).filter(pk__in=instrument_ids).first()
        position = lock_position(position_id)
        bracket = Bracket.objects.get(pk=bracket_id)
        if bracket.swap == swap and bracket.status in _OPEN and position.status != PositionStatus.CLOSED:
            _step(bracket, position, quote, live, now=now)


def _step(bracket: Bracket, position: Position, quote: Quote | None, live: QuerySet[Order], *, now: datetime) -> None:
    """Take the next step under the position's lock, or none while what was called off has not ended."""
    if bracket.swap == Swap.STOP_LEAVING:
        if live.filter(resting=True).exists():
            return
        position = _fire_what_is_met(position, quote, now=now)
        _set(bracket, Swap.TARGET_WORKING if live.filter(resting=False).exists() else None, now=now)
        rest_stop(bracket, position, now=now)
    elif not live.filter(resting=False).exists():
        _set(bracket, None, now=now)
        ledger.note_at_rest(position)
        ledger.save_reservations([position])
        rest_stop(bracket, position, now=now)
    elif bracket.swap == Swap.TARGET_WORKING and _targets(live).exists() and _is_overdue(bracket, position, now=now):
        _set(bracket, Swap.TARGET_LEAVING, now=now)
        ring_advance_on_commit()


def _ask(orders: QuerySet[Order], *, now: datetime, why: str) -> bool:
    """Call these live orders off, once each; return whether there are any."""
    found = list(orders.order_by("pk").values_list("pk", "state"))
    call_off([pk for pk, state in found if state != OrderState.CANCEL_REQUESTED], now=now, why=why)
    return bool(found)


def _targets(live: QuerySet[Order]) -> QuerySet[Order]:
    """Return the exits that wait for a price; one at the market is on its way out."""
    return live.filter(resting=False, urgency__gt=Urgency.STOP).exclude(order_type=OrderType.MARKET)


def _set(bracket: Bracket, swap: Swap | None, *, now: datetime) -> None:
    before, bracket.swap, bracket.swap_since = bracket.swap, swap or "", now
    bracket.save(update_fields=["swap", "swap_since"])
    write_events(
        [
            Happening(
                kind="bracket_swap",
                position_ref=bracket.position_id,
                bracket_ref=bracket.pk,
                data={"from": before, "to": bracket.swap},
            )
        ],
        now=now,
    )


def _fire_what_is_met(position: Position, quote: Quote | None, *, now: datetime) -> Position:
    """Make the exits that the price and the time now ask for, and return the position as that left it."""
    armed = Trigger.objects.filter(position=position, status=TriggerStatus.ARMED, act=Act.EXIT)
    max_age = timedelta(seconds=position.instrument.max_age_seconds)
    if quote is None or now - quote.received_at > max_age:
        armed = armed.filter(kind=TriggerKind.TIMER)  # a price that is too old decides nothing
    ids = list(armed.order_by("urgency", "pk").values_list("pk", flat=True))
    fire([Candidate(pk, position.pk, position.instrument_id) for pk in ids], now=now)
    return lock_position(position.pk)


def _is_overdue(bracket: Bracket, position: Position, *, now: datetime) -> bool:
    seconds = policies_of([position], now=now)[position.pk].trade_exit.bracket_orders.swap_timeout_seconds
    return bracket.swap_since is not None and now - bracket.swap_since > timedelta(seconds=seconds)


def _alert_stuck(bracket_id: int, position_id: int, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="swap_failed",
        severity=Severity.CRITICAL,
        title=f"The stop of position {position_id} cannot make room or come back",
        message=f"{type(error).__name__}: {error}. The watch here stays armed; look at the position's orders, and "
        "exit it or give it a new plan.",
        dedupe_key=f"swap_failed:{bracket_id}",
        requires_action=True,
        position_ref=position_id,
        now=now,
    )
