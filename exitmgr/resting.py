"""Stops that rest at the broker: the only maker of them. One a position, for all that no other exit has claimed.

Behind each the watch here stays armed: without a resting stop it sells as ever, with one it is the backstop. Whatever
is called off is decided under the position's lock and persisted (`Bracket.swap`) before the broker is asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.arming import LIVE_TRIGGERS
from exitmgr.exits import leg_of
from exitmgr.models import Bracket, Mode, Swap, Trigger
from exitmgr.queries import level_now
from exitmgr.rules.types import Act, ExitReason, Urgency
from exitmgr.states import BracketEvent, BracketStatus, TriggerStatus, next_bracket_status
from exitmgr.switches import is_being_left
from orders.brokers.abilities import abilities_of
from orders.brokers.protocol import TimeInForce
from orders.create import ExitDraft, create_exit_orders
from orders.groups import STOP_REASON
from orders.lanes import ring_advance_on_commit, ring_lanes_on_commit
from orders.models import Intent, Order
from orders.rounding import round_stop, round_target
from orders.states import LIVE, OrderState
from positions import ledger
from positions.models import Position, Quote
from positions.states import PositionStatus
from positions.values import AssetClass, Side, tradable_basis

STOP_LEG: Final = leg_of(ExitReason.STOP_LOSS, Urgency.STOP)
#: The modes in which a stop rests at the broker; in native with its target where the plan has just one.
AT_REST: Final = (Mode.RESTING, Mode.NATIVE)
#: A stop makes room at most so often: what asked for it and then sold nothing does not keep it away for good.
ROOM_AGAIN: Final = timedelta(seconds=2)
#: Stops that the broker ended by itself within this time, and how many of them are too many.
_LATELY: Final = timedelta(minutes=10)
_TOO_OFTEN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLeg:
    """Where a leg of a position belongs now, on the tick grid, and the reason it would be left for."""

    price: Decimal
    reason: str


def wanted_stop(position: Position) -> WantedLeg | None:
    """Return where the nearest armed stop of a position lies now, trails and break-even included; None without any."""
    side = Side(position.side)
    armed = Trigger.objects.filter(
        position=position, status=TriggerStatus.ARMED, urgency=Urgency.STOP, act=Act.EXIT, fraction_pct=100
    ).select_related("trail__cohort")
    levels = [(level, trigger) for trigger in armed if (level := level_now(trigger)) is not None]
    if not levels:
        return None
    level, nearest = max(levels, key=lambda pair: (pair[0] * side, -pair[1].pk))
    return WantedLeg(price=round_stop(level, tick=position.instrument.tick, side=side), reason=nearest.reason)


def wanted_target(position: Position, quantity: Decimal) -> WantedLeg | None:
    """Return the target that can rest beside a stop for everything: the only one armed, for all of whole shares."""
    targets = list(
        Trigger.objects.filter(position=position, urgency=Urgency.TARGET, act=Act.EXIT, status__in=LIVE_TRIGGERS)[:2]
    )
    if len(targets) != 1 or quantity % 1 or targets[0].fraction_pct < 100:
        return None
    (target,) = targets
    if target.status != TriggerStatus.ARMED or target.level is None or target.steps:
        return None
    price = round_target(target.level, tick=position.instrument.tick, side=Side(position.side))
    return WantedLeg(price=price, reason=target.reason)


def rest_stop(bracket: Bracket, position: Position, *, now: datetime) -> Order | None:
    """Leave a stop with the broker for all that is unclaimed of a locked position; return its order, if one is due.

    None where the plan has no stop, one rests already, the price is through it (then the watch sells at once), another
    exit waits for the quantity, or the entry still works: a venue takes no stop against it.
    """
    if bracket.mode not in AT_REST or bracket.status != BracketStatus.ACTIVE or bracket.swap == Swap.STOP_LEAVING:
        return None
    if position.status == PositionStatus.CLOSED or position.frozen_at is not None or position.available <= 0:
        return None
    wanted = wanted_stop(position)
    if wanted is None or _is_through(position, wanted) or _is_held_up(position):
        return None
    quantity = position.available
    target = wanted_target(position, quantity) if bracket.mode == Mode.NATIVE else None
    sequence = ledger.bind(position, quantity=quantity)
    orders = create_exit_orders(
        [
            ExitDraft(
                position=position,
                quantity=quantity,
                reason=wanted.reason if target is None else target.reason,
                urgency=Urgency.STOP,
                leg=STOP_LEG if target is None else leg_of(target.reason, Urgency.TARGET),
                sequence=sequence,
                expected_price=wanted.price,
                trigger_price=wanted.price,
                resting_stop=wanted.price,
                resting_target=None if target is None else target.price,
                priced_from={} if target is None else {STOP_REASON: wanted.reason},
                retry_attempts=1,  # a refusal is judged at once: the watch may have to do without it
                time_in_force=_time_in_force(position, quantity),
            )
        ],
        now=now,
        actor="exitmgr",
    )
    ledger.save_reservations([position])
    ring_lanes_on_commit(orders)
    return orders[0]


def make_way(blocked: Collection[tuple[int, str]], *, now: datetime) -> int:
    """Have the resting stops of locked positions make room for exits that found all claimed; return how many will.

    These are given as (position, leg). One whose leg rests at the broker itself is left to it.

    In the caller's transaction. The broker is asked after it; what fires once the stop has left is judged then.
    """
    wanted = {position_id for position_id, _ in blocked}
    resting = Order.objects.filter(position_id__in=wanted, resting=True, state__in=LIVE)
    at_rest = set(resting.values_list("position_id", "leg"))
    wanted = {position_id for position_id, leg in blocked if (position_id, leg) not in at_rest}
    in_the_way = resting.filter(position_id__in=wanted)
    brackets = Bracket.objects.filter(
        position_id__in=in_the_way.values("position_id"), mode__in=AT_REST, status=BracketStatus.ACTIVE
    ).exclude(swap=Swap.STOP_LEAVING)
    changed = brackets.exclude(swap_since__gt=now - ROOM_AGAIN).update(swap=Swap.STOP_LEAVING, swap_since=now)
    if changed:
        ring_advance_on_commit()
    return changed


def follow_stop(order: Order, position: Position, *, now: datetime) -> None:
    """Do what follows the end of a resting stop, under the position's lock: another one, or a person is called.

    One that we called off is followed where that was decided: by the swap, or by the sweep once nothing else has
    claimed what it held.
    """
    if order.state in LIVE or order.cancel_asked_at is not None:
        return
    bracket = Bracket.objects.filter(position=position, status=BracketStatus.ACTIVE, mode__in=AT_REST).first()
    if bracket is None:
        return
    usual = order.state in (OrderState.FILLED, OrderState.EXPIRED)
    if usual or (order.broker_order_id and not _ends_too_often(position, now=now)):
        rest_stop(bracket, position, now=now)
    else:
        fail_bracket(bracket, position, why=order.last_error or f"the broker ended it as {order.state}", now=now)


def fail_bracket(bracket: Bracket, position: Position, *, why: str, now: datetime) -> None:
    """Put a bracket whose stop the broker does not keep into error and call a person; the watch here stays armed.

    A target that works without it is called off: no half of a bracket is left at the broker.
    """
    bracket.status = next_bracket_status(BracketStatus(bracket.status), BracketEvent.FAILED)
    bracket.error = f"no stop rests at the broker: {why}"
    bracket.swap, bracket.swap_since = Swap.TARGET_LEAVING, now
    bracket.save(update_fields=["status", "error", "swap", "swap_since"])
    ring_advance_on_commit()
    write_events(
        [
            Happening(
                kind="bracket_error",
                account_ref=position.account_id,
                position_ref=position.pk,
                bracket_ref=bracket.pk,
                data={"error": bracket.error},
            )
        ],
        now=now,
    )
    raise_alert(
        kind="bracket_error",
        severity=Severity.CRITICAL,
        title=f"Position {position.pk} in {position.instrument} has no stop at the broker",
        message=f"{why}. Its stop is watched here alone until its plan is given again; change its plan to try once "
        "more, or exit it.",
        dedupe_key=f"bracket_error:{bracket.pk}",
        requires_action=True,
        account_ref=position.account_id,
        position_ref=position.pk,
        now=now,
    )


def _is_through(position: Position, wanted: WantedLeg) -> bool:
    side = Side(position.side)
    price = Quote.objects.filter(pk=position.instrument_id).values_list(str(tradable_basis(side)), flat=True).first()
    return price is not None and (price - wanted.price) * side <= 0


def _is_held_up(position: Position) -> bool:
    if is_being_left(position.account_id):
        return True
    live = Order.objects.filter(position=position, state__in=LIVE).values_list("intent", "leg", "waits", "resting")
    return any(intent == Intent.ENTRY or leg == STOP_LEG or waits or rests for intent, leg, waits, rests in live)


def _ends_too_often(position: Position, *, now: datetime) -> bool:
    ended = Order.objects.filter(
        position=position, resting=True, ended_at__gt=now - _LATELY, cancel_asked_at__isnull=True
    ).exclude(state__in=[OrderState.FILLED, OrderState.EXPIRED])
    return ended.count() >= _TOO_OFTEN


def _time_in_force(position: Position, quantity: Decimal) -> TimeInForce:
    """Return how long a stop rests: until it is called off, but for parts of a share, which last a day."""
    if position.instrument.asset_class != AssetClass.CRYPTO and quantity % 1:
        return TimeInForce.DAY
    abilities = abilities_of(position.account_id)
    lasting = abilities is None or TimeInForce.GTC in abilities.times_in_force
    return TimeInForce.GTC if lasting else TimeInForce.DAY
