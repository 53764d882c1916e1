"""What people and programs read about positions together with their plans, orders and history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from django.db.models import OuterRef, Prefetch, QuerySet, Subquery

from alerts.models import Event
from alerts.queries import events_about
from exitmgr.models import Bracket, Trigger
from exitmgr.rules.fire import trail_level
from exitmgr.rules.types import Act, Direction, TrailTrigger, TriggerKind, Urgency
from exitmgr.states import TriggerStatus
from orders.models import Order
from orders.queries import live_orders
from positions.fields import NumberField
from positions.models import Position
from positions.queries import with_worth
from positions.values import Basis

#: The attribute under which a position's orders that may still trade are found.
LIVE_ORDERS: Final = "orders_alive"


def listed_positions() -> QuerySet[Position]:
    """Return positions with their worth and the brackets they had, the latest first."""
    brackets = Prefetch("brackets", queryset=Bracket.objects.order_by("-pk"))
    return with_worth(_positions()).prefetch_related(brackets)


def positions_in_detail() -> QuerySet[Position]:
    """Return positions with their worth, brackets, triggers and live orders."""
    triggers = Prefetch("triggers", queryset=triggers_in_order())
    return with_worth(_positions()).prefetch_related(
        Prefetch("brackets", queryset=Bracket.objects.order_by("-pk").prefetch_related(triggers)),
        Prefetch("orders", queryset=live_orders(), to_attr=LIVE_ORDERS),
    )


def positions_on_the_desk() -> QuerySet[Position]:
    """Return positions with their worth and the stop of their latest bracket (`stop_price`), for tables."""
    latest = Bracket.objects.filter(position=OuterRef("pk")).order_by("-pk")
    return with_worth(_positions()).annotate(
        stop_price=Subquery(latest.values("stop_price")[:1], output_field=NumberField()),
        target_prices=Subquery(latest.values("target_prices")[:1]),
    )


def brackets_in_detail() -> QuerySet[Bracket]:
    """Return brackets with their triggers and what they protect."""
    triggers = Prefetch("triggers", queryset=triggers_in_order())
    return Bracket.objects.select_related("position__instrument", "entry_order__instrument").prefetch_related(triggers)


def triggers_in_order() -> QuerySet[Trigger]:
    """Return triggers with the best price of each trail, the most urgent first."""
    return Trigger.objects.select_related("trail__cohort").order_by("urgency", "rung", "pk")


def best_of(trigger: Trigger) -> Decimal | None:
    """Return the best price an armed trail is measured from, None for everything else."""
    if trigger.kind != TriggerKind.TRAIL or trigger.status != TriggerStatus.ARMED:
        return None
    trail = getattr(trigger, "trail", None)
    return trail.cohort.best if trail is not None else None


def level_now(trigger: Trigger) -> Decimal | None:
    """Return the price at which a trigger fires now, or fired; None while it waits for its start, and of a timer."""
    if trigger.kind != TriggerKind.TRAIL or trigger.status != TriggerStatus.ARMED:
        return trigger.level
    rule = TrailTrigger(
        slot=trigger.slot,
        reason=trigger.reason,
        basis=Basis(trigger.basis),
        direction=Direction(trigger.direction),
        best=best_of(trigger),
        offset_pct=trigger.offset_pct,
        offset=trigger.offset,
    )
    return trail_level(rule)


def stops_now(position_ids: Iterable[int]) -> dict[int, Decimal]:
    """Return the price of the nearest armed stop of each of these positions, trails and break-even included.

    Positions without any are left out. One query.
    """
    stops = Trigger.objects.filter(
        position__in=list(position_ids), status=TriggerStatus.ARMED, urgency=Urgency.STOP, act=Act.EXIT
    ).select_related("trail__cohort")
    falling: dict[int, list[Decimal]] = defaultdict(list)
    rising: dict[int, list[Decimal]] = defaultdict(list)
    for stop in stops:
        level = level_now(stop)
        if level is not None:
            (falling if stop.direction == Direction.FALL else rising)[stop.position_id].append(level)
    return {
        **{position_id: max(levels) for position_id, levels in falling.items()},
        **{position_id: min(levels) for position_id, levels in rising.items()},
    }


def timeline(position_id: int) -> QuerySet[Event]:
    """Return everything that happened to a position, from its entry order on."""
    order_ids = Order.objects.filter(position_id=position_id).values_list("pk", flat=True)
    return events_about(position_id=position_id, order_ids=list(order_ids))


def _positions() -> QuerySet[Position]:
    """Return positions with their instrument and account, whose credentials nobody needs here."""
    return Position.objects.select_related("account", "instrument").defer("account__credentials")
