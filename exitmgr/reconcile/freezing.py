"""Freezing positions: no trigger of theirs fires until somebody has settled why. People may still leave them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import transaction

from alerts.events import Happening, write_events
from exitmgr.arming import LIVE_TRIGGERS
from exitmgr.brackets import ring_scan_on_commit
from exitmgr.models import Trigger
from exitmgr.rules.types import Act, Direction, TriggerKind
from exitmgr.states import TriggerStatus
from exitmgr.trails import join_cohorts, leave_cohorts
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Order
from orders.states import LIVE, OrderState
from positions.locks import lock_positions
from positions.models import Position, Quote
from positions.states import PositionStatus

_FIELDS: Final = ["frozen_at", "frozen_why"]


class NotFrozen(Exception):
    """The position is not frozen, so there is nothing to release."""


def freeze_positions(position_ids: Collection[int], *, why: str, now: datetime, actor: str) -> list[int]:
    """Freeze open positions and call off their exits that nobody has filled yet; return which were frozen now.

    Their trails stop being followed and keep their best price.
    """
    with transaction.atomic(durable=True):
        frozen = []
        for position in lock_positions(position_ids).values():
            if position.status == PositionStatus.CLOSED or position.frozen_at is not None:
                continue
            position.frozen_at, position.frozen_why = now, why
            position.save(update_fields=_FIELDS)
            _keep_best_prices(position)
            frozen.append(position)
        _tell("position_frozen", frozen, why=why, now=now, actor=actor)
    _call_off_exits(position_ids, now=now, actor=actor, why=why)  # of all: one may just have been on its way before
    return [position.pk for position in frozen]


def release_position(*, position_id: int, note: str, now: datetime, actor: str) -> None:
    """Let the triggers of a frozen position count again, on prices from now on.

    :raises Position.DoesNotExist: no such position.
    :raises NotFrozen: it is not frozen.
    """
    instrument_id = Position.objects.values_list("instrument_id", flat=True).get(pk=position_id)
    with transaction.atomic(durable=True):
        quote = Quote.objects.select_for_update().filter(pk=instrument_id).first()
        position = lock_positions([position_id])[position_id]
        if position.frozen_at is None:
            raise NotFrozen(f"position {position_id} is not frozen; its triggers count already")
        thaw(position, quote=quote, note=note, now=now, actor=actor)


def release_frozen_for(key: str, *, account_id: int, now: datetime, actor: str) -> None:
    """Release what was frozen because of a difference that is gone."""
    frozen = Position.objects.filter(
        account_id=account_id, frozen_at__isnull=False, frozen_why__startswith=f"{key} "
    ).exclude(status=PositionStatus.CLOSED)
    for position_id in list(frozen.order_by("pk").values_list("pk", flat=True)):
        try:
            release_position(position_id=position_id, note="the difference is gone", now=now, actor=actor)
        except NotFrozen:
            continue  # somebody was faster


def thaw(position: Position, *, quote: Quote | None, note: str, now: datetime, actor: str) -> None:
    """Release a locked position, in the caller's transaction, which holds its quote as well.

    What was breached before stays so; prices from before now are not held against what is armed.
    """
    rearmed = _arm_called_off(position, now=now)
    why, position.frozen_at, position.frozen_why = position.frozen_why, None, ""
    position.save(update_fields=_FIELDS)
    seq = quote.seq if quote is not None else 0
    armed = Trigger.objects.filter(position=position, status=TriggerStatus.ARMED)
    armed.update(armed_seq=seq)
    bests = armed.filter(kind=TriggerKind.TRAIL, level__isnull=False).values_list("pk", "level")
    trails = {pk: best for pk, best in bests if best is not None}
    armed.filter(pk__in=trails).update(level=None)
    join_cohorts(trails, seq=seq)
    _tell("position_released", [position], why=why, now=now, actor=actor, note=note, rearmed=rearmed)
    ring_scan_on_commit(position.instrument_id)


def _arm_called_off(position: Position, *, now: datetime) -> list[str]:
    """Arm again what had fired and was called off unfilled because of the freeze; return the slots.

    A trigger never fires twice, so each is a new row with the terms of the one that fired.
    """
    fired = Trigger.objects.filter(
        position=position,
        status=TriggerStatus.FIRED,
        act=Act.EXIT,
        order__cancel_asked_at__gte=position.frozen_at,
        order__state=OrderState.CANCELLED,
        order__filled_quantity=0,
    ).exclude(kind=TriggerKind.TIMER)
    live = set(position.triggers.filter(status__in=LIVE_TRIGGERS).values_list("bracket_id", "slot"))
    slots = []
    for row in fired.order_by("-pk"):
        if (row.bracket_id, row.slot) in live or row.level is None:
            continue
        live.add((row.bracket_id, row.slot))
        slots.append(row.slot)
        if row.kind == TriggerKind.TRAIL:
            row.level = _best_of(row, fired_at=row.level)
        row.pk, row.status, row.order, row.fired_at, row.seen_price = None, TriggerStatus.ARMED, None, None, None
        row.armed_at = now
        row.save(force_insert=True)
    return slots


def _best_of(trail: Trigger, *, fired_at: Decimal) -> Decimal:
    """Return the best price a trail must have had to fire where it did."""
    sign = -1 if trail.direction == Direction.FALL else 1
    if trail.offset_pct is not None:
        return fired_at * 100 / (100 + sign * trail.offset_pct)
    return fired_at - sign * (trail.offset or Decimal(0))


def _keep_best_prices(position: Position) -> None:
    """Take trails out of their cohorts, which follow the price; the best one so far is kept in their `level`."""
    rows = Trigger.objects.filter(position=position, kind=TriggerKind.TRAIL, status=TriggerStatus.ARMED)
    trails = list(rows.select_related("trail__cohort").filter(trail__isnull=False))
    for row in trails:
        Trigger.objects.filter(pk=row.pk).update(level=row.trail.cohort.best)
    leave_cohorts([row.pk for row in trails])


def _call_off_exits(position_ids: Collection[int], *, now: datetime, actor: str, why: str) -> None:
    """Call off what the triggers sent: it was decided on figures that count no more. A person's exits stay."""
    exits = Order.objects.filter(position_id__in=position_ids, intent=Intent.EXIT, state__in=LIVE)
    automatic = exits.exclude(reason__in=("manual", "emergency")).exclude(state=OrderState.CANCEL_REQUESTED)
    for order_id in automatic.order_by("pk").values_list("pk", flat=True):
        try:
            request_cancel(order_id=order_id, now=now, actor=actor, why=why)
        except NotCancellable:
            continue  # it is being sent, or has ended; the next look tries again


def _tell(kind: str, positions: Collection[Position], *, why: str, now: datetime, actor: str, **data: object) -> None:
    write_events(
        [
            Happening(
                kind=kind,
                actor=actor,
                account_ref=position.account_id,
                position_ref=position.pk,
                data={"why": why, **data},
            )
            for position in positions
        ],
        now=now,
    )
