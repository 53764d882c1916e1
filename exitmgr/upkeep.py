"""Upkeep of resting stops: missing ones are placed, wrong ones moved, those nobody wants are called off.

What should rest is computed from plan and position each time, so that whatever a crash left behind is put right here.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q

from alerts.events import Happening, write_events
from alerts.models import Alert, Event, Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.arming import LIVE_TRIGGERS
from exitmgr.models import Bracket, Mode, Swap, Trigger
from exitmgr.policy.of_positions import policies_of
from exitmgr.queries import stops_now
from exitmgr.resting import AT_REST, STOP_LEG, rest_stop, wanted_stop, wanted_target
from exitmgr.rules.types import Act, Urgency
from exitmgr.states import BracketEvent, BracketStatus, TriggerStatus, next_bracket_status
from exitmgr.swaps import call_off
from orders.brokers.abilities import abilities_of
from orders.lanes import ring_advance_on_commit
from orders.models import Intent, Order
from orders.replace import NotReplaceable, request_replace
from orders.rounding import round_stop
from orders.states import CLAIMABLE, LIVE, OrderState
from positions.locks import lock_position
from positions.models import Position
from positions.states import PositionStatus
from positions.values import Side

log = logging.getLogger(__name__)

#: Who called a stop off has so long to claim what it held before another one is placed.
AFTER_CANCEL: Final = timedelta(seconds=3)
#: A broker that has not ended a leg for so long, however often it was asked, calls a person.
CANCEL_PATIENCE: Final = timedelta(seconds=30)
#: A stop follows a trail at most so often.
MOVE_AGAIN: Final = timedelta(seconds=3)


def keep_stops_at_rest(*, now: datetime) -> int:
    """Put right what rests at the brokers; return how many stops were placed, moved or called off."""
    done = _call_off_unwanted(now=now)
    _tell_of_the_undead(now=now)
    done += sum(_expire(order_id, now=now) for order_id in _unacknowledged(now=now))
    done += sum(_move(order_id, position_id, now=now) for order_id, position_id in _misplaced(now=now))
    return done + sum(_place(bracket_id, position_id, now=now) for bracket_id, position_id in _missing(now=now))


def _call_off_unwanted(*, now: datetime) -> int:
    """Call off stops of positions that are closed or are no longer to have one: such a stop would open a position."""
    wanted = Bracket.objects.filter(position=OuterRef("position"), mode__in=AT_REST, status=BracketStatus.ACTIVE)
    unwanted = (
        Order.objects.filter(resting=True, state__in=LIVE)
        .filter(~Exists(wanted) | Q(position__status=PositionStatus.CLOSED))
        .exclude(state=OrderState.CANCEL_REQUESTED)
        .exclude(position__frozen_at__isnull=False)
    )
    ids = list(unwanted.order_by("pk").values_list("pk", flat=True))
    return call_off(ids, now=now, why="nothing is left for it to protect, or its plan has no stop at the broker")


def _tell_of_the_undead(*, now: datetime) -> None:
    """Call a person for legs that the broker does not end although it is asked again and again."""
    undead = Order.objects.filter(
        resting=True, state=OrderState.CANCEL_REQUESTED, cancel_asked_at__lt=now - CANCEL_PATIENCE
    )
    for order in undead.select_related("instrument").order_by("pk"):
        raise_alert(
            kind="leg_not_ended",
            severity=Severity.CRITICAL,
            title=f"The broker does not end order {order.pk} in {order.instrument}",
            message=f"It was called off at {order.cancel_asked_at:%H:%M:%S} UTC and could still fill. Cancel it at the "
            f"broker (client id {order.client_order_id}).",
            dedupe_key=f"leg_not_ended:{order.pk}",
            requires_action=True,
            account_ref=order.account_id,
            position_ref=order.position_id,
            order_ref=order.pk,
            now=now,
        )
    told = Alert.objects.filter(kind="leg_not_ended", resolved_at__isnull=True, order_ref__isnull=False)
    for order_id in (
        Order.objects.filter(pk__in=told.values("order_ref")).exclude(state__in=LIVE).values_list("pk", flat=True)
    ):
        resolve_alerts(dedupe_key=f"leg_not_ended:{order_id}", now=now)


def _missing(*, now: datetime) -> list[tuple[int, int]]:
    """Return brackets, with their positions, that should have a stop at rest and have none."""
    live = Order.objects.filter(position=OuterRef("position"), state__in=LIVE)
    stops = Trigger.objects.filter(
        bracket=OuterRef("pk"), status=TriggerStatus.ARMED, urgency=Urgency.STOP, act=Act.EXIT, fraction_pct=100
    )
    just_left = Order.objects.filter(
        position=OuterRef("position"), resting=True, cancel_asked_at__isnull=False, ended_at__gt=now - AFTER_CANCEL
    )
    rows = Bracket.objects.filter(
        ~Exists(live.filter(Q(leg=STOP_LEG) | Q(intent=Intent.ENTRY) | Q(waits=True) | Q(resting=True))),
        ~Exists(just_left),
        Exists(stops),
        mode__in=AT_REST,
        status=BracketStatus.ACTIVE,
        swap="",
        position__quantity__gt=F("position__exited") + F("position__reserved"),
        position__frozen_at__isnull=True,
    ).exclude(position__status=PositionStatus.CLOSED)
    return [(pk, position_id) for pk, position_id in rows.order_by("pk").values_list("pk", "position_id")]


def _place(bracket_id: int, position_id: int, *, now: datetime) -> int:
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        return int(rest_stop(Bracket.objects.get(pk=bracket_id), position, now=now) is not None)


def _misplaced(*, now: datetime) -> list[tuple[int, int]]:
    """Return stops at rest, with their positions, whose price or quantity is not what the plan asks for now."""
    resting = list(
        Order.objects.filter(resting=True, state__in=LIVE, created_at__lt=now - MOVE_AGAIN)
        .exclude(state=OrderState.CANCEL_REQUESTED)
        .exclude(position__frozen_at__isnull=False)
        .select_related("position__instrument")
        .order_by("pk")
    )
    ids = [order.position_id for order in resting if order.position_id is not None]
    levels = stops_now(ids)
    leaving = _also_leaving(ids)
    breached = set(
        Trigger.objects.filter(position__in=ids, status=TriggerStatus.BREACHED).values_list("position_id", flat=True)
    )
    found = []
    for order in resting:
        position = order.position
        # at a stop that is being reached nothing is moved any more, nor while a change of it is under way
        if position is None or position.pk in breached or order.replacing:
            continue
        level = levels.get(position.pk)
        price = None
        if level is not None:
            price = round_stop(level, tick=position.instrument.tick, side=Side(position.side))
        grown = position.available > 0 and position.pk not in leaving
        if price != order.stop_price or grown or _has_other_target(order, position):
            found.append((order.pk, position.pk))
    return found


def _has_other_target(order: Order, position: Position) -> bool:
    """Return whether the target that rests beside a stop is not the plan's any more."""
    if order.limit_price is None:
        return False
    wanted = wanted_target(position, order.quantity - order.filled_quantity)
    return wanted is None or wanted.price != order.limit_price


def _also_leaving(position_ids: Iterable[int]) -> set[int]:
    live = Order.objects.filter(position__in=list(position_ids), state__in=LIVE, resting=False)
    return {pk for pk in live.values_list("position_id", flat=True) if pk is not None}


def _move(order_id: int, position_id: int, *, now: datetime) -> int:
    """Have a stop replaced where the broker can; else it leaves and comes back: the watch covers the moment between."""
    if _replace(order_id, position_id, now=now):
        return 1
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        order = Order.objects.get(pk=order_id)
        wanted = wanted_stop(position)
        same = wanted is not None and wanted.price == order.stop_price and not _has_other_target(order, position)
        if order.state not in LIVE or (same and position.available <= 0):
            return 0
        moved = Bracket.objects.filter(position=position, mode__in=AT_REST, status=BracketStatus.ACTIVE, swap="")
        done = moved.update(swap=Swap.STOP_LEAVING, swap_since=now)
        if done:
            ring_advance_on_commit()
        return done


def _replace(order_id: int, position_id: int, *, now: datetime) -> bool:
    """Ask for a stop by itself to be moved in one step; return False where it has to leave and come back."""
    order = Order.objects.select_related("position__instrument").get(pk=order_id)
    position, abilities = order.position, abilities_of(order.account_id)
    if position is None or order.group or abilities is None or not abilities.replace:
        return False
    wanted = wanted_stop(position)
    refused = Event.objects.filter(kind="order_not_replaced", order_ref=order_id).exists()
    if wanted is None or refused or position.available > 0 or wanted.price == order.stop_price:
        return False
    try:
        request_replace(order_id=order_id, now=now, actor="exitmgr", stop_price=wanted.price)
    except NotReplaceable as error:
        log.info("stop_not_replaced order_id=%s position_id=%s why=%s", order_id, position_id, error)
        return False
    return True


def _unacknowledged(*, now: datetime) -> Collection[int]:
    """Return stops that the broker has not acknowledged in the time the configuration gives."""
    waiting = list(
        Order.objects.filter(resting=True, state__in=CLAIMABLE, created_at__lt=now - timedelta(seconds=1))
        .select_related("position__instrument")
        .order_by("pk")
    )
    policies = policies_of([order.position for order in waiting if order.position is not None], now=now)
    return [
        order.pk
        for order in waiting
        if order.position_id is not None
        and now - order.created_at
        > timedelta(seconds=policies[order.position_id].trade_exit.bracket_orders.bracket_timeout_seconds)
    ]


def _expire(order_id: int, *, now: datetime) -> int:
    """End a bracket whose stop nobody acknowledged; its triggers go on in one that is watched here alone."""
    position_id = Order.objects.values_list("position_id", flat=True).get(pk=order_id)
    if position_id is None:
        return 0
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        bracket = Bracket.objects.filter(position=position, mode__in=AT_REST, status=BracketStatus.ACTIVE).first()
        if bracket is None or Order.objects.get(pk=order_id).state not in CLAIMABLE:
            return 0
        heir = _heir_of(bracket, now=now)
        _tell_expired(bracket, heir, position, now=now)
    return 1


def _heir_of(bracket: Bracket, *, now: datetime) -> Bracket:
    entry_order_id = bracket.entry_order_id
    bracket.status = next_bracket_status(BracketStatus(bracket.status), BracketEvent.TIMED_OUT)
    bracket.ended_at, bracket.swap, bracket.entry_order_id = now, "", None
    bracket.error = "the broker did not acknowledge its stop in time"
    bracket.save(update_fields=["status", "ended_at", "swap", "error", "entry_order"])
    heir = Bracket.objects.get(pk=bracket.pk)
    heir.pk, heir.mode, heir.status = None, Mode.SYNTHETIC, BracketStatus.ACTIVE
    heir.entry_order_id, heir.ended_at, heir.error, heir.created_at = entry_order_id, None, "", now
    heir.notes = [*heir.notes, "the broker did not acknowledge its stop in time; it is watched here"]
    heir.save(force_insert=True)
    fired = Q(status=TriggerStatus.FIRED)
    Trigger.objects.filter(fired | Q(status__in=LIVE_TRIGGERS), bracket_id=bracket.pk).update(bracket=heir)
    return heir


def _tell_expired(bracket: Bracket, heir: Bracket, position: Position, *, now: datetime) -> None:
    write_events(
        [
            Happening(
                kind="bracket_expired",
                account_ref=position.account_id,
                position_ref=position.pk,
                bracket_ref=bracket.pk,
                data={"succeeded_by": heir.pk},
            )
        ],
        now=now,
    )
    raise_alert(
        kind="bracket_expired",
        severity=Severity.CRITICAL,
        title=f"The stop of position {position.pk} in {position.instrument} never came to rest at the broker",
        message="It was not acknowledged in time and is called off. The position is watched here alone from now on; "
        "give it its plan again once the broker answers.",
        dedupe_key=f"bracket_expired:{bracket.pk}",
        requires_action=True,
        account_ref=position.account_id,
        position_ref=position.pk,
        now=now,
    )
