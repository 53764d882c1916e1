"""The only maker of exit orders: scan, people and follow-ups all come through `make_exits`, with the lock held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from exitmgr.policy.of_positions import policies_of
from exitmgr.policy.schema import ExitManager
from exitmgr.rules.types import Decision, ExitReason, Urgency
from orders.create import ExitDraft, create_exit_orders
from orders.lanes import ring_advance_on_commit, ring_lanes_on_commit
from orders.models import Intent, Order
from orders.rounding import exit_quantity, limit_for_exit, smallest_order
from orders.states import LIVE
from positions import ledger
from positions.locks import lock_position
from positions.models import Position, Quote
from positions.states import PositionStatus
from positions.values import Side, tradable_basis

HUNDRED = Decimal(100)
NOTHING = Decimal(0)


class ExitRefused(Exception):
    """An exit was not made; the message says why and what can be done."""


class AlreadyExiting(ExitRefused):
    """Everything that remains is already claimed by live exits."""


class AlreadyClosed(ExitRefused):
    """There is nothing left to close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitIntent:
    """One wish to leave (a part of) a locked position."""

    position: Position
    decision: Decision
    priced_at: datetime | None = None
    quote: Mapping[str, Any] = field(default_factory=dict)
    #: The rest of a former attempt: no more than this, whatever the fraction says.
    at_most: Decimal | None = None
    attempt: int = 1
    retry_of_id: int | None = None
    not_before: datetime | None = None
    #: None takes what the configuration says of the position.
    max_slippage_bps: int | None = None
    #: A limit other than the one of its decision's level.
    limit_price: Decimal | None = None
    #: It is for `at_most`, which less urgent exits hold: written down now, sent when they have given it back.
    waits: bool = False


def leg_of(reason: str, urgency: Urgency) -> str:
    """Return the leg an exit occupies: one live order a leg, all stops share one, each rung has its own."""
    return {
        Urgency.EMERGENCY: "emergency",
        Urgency.STOP: "stop",
        Urgency.MANUAL: "manual",
        Urgency.TIMED: "timed",
    }.get(urgency, reason)


def make_exits(intents: Sequence[ExitIntent], *, now: datetime, actor: str) -> dict[int, Order]:
    """Write exit orders with their reservations and return them by the index of their intent.

    The positions are locked by the caller, who also owns the transaction; intents are served in the given order, so
    the most urgent comes first. An intent gets no order when its position is closed, when nothing unclaimed remains,
    or when its leg is live already.
    """
    live = list(
        Order.objects.filter(position_id__in={intent.position.pk for intent in intents}, state__in=LIVE).values_list(
            "pk", "position_id", "intent", "leg"
        )
    )
    occupied = {(position_id, leg) for _, position_id, kind, leg in live if position_id and kind == Intent.EXIT}
    drafts: list[ExitDraft] = []
    places: list[int] = []
    policies = policies_of((intent.position for intent in intents), now=now)
    for index, intent in enumerate(intents):
        draft = _draft(intent, rules=policies[intent.position.pk].exit_manager, occupied=occupied)
        if draft is not None:
            occupied.add((intent.position.pk, draft.leg))
            drafts.append(draft)
            places.append(index)
    orders = create_exit_orders(drafts, now=now, actor=actor)
    waiting = [order for order in orders if order.waits]
    touched = {draft.position.pk: draft.position for draft in drafts}
    ledger.save_reservations(list(touched.values()))
    ring_lanes_on_commit([order for order in orders if not order.waits])
    entering = [pk for pk, position_id, kind, _ in live if kind == Intent.ENTRY and position_id in touched]
    if (entering and _mark_working_entries(entering)) or waiting:
        ring_advance_on_commit()  # which calls off what stands in the way
    return dict(zip(places, orders, strict=True))


def _mark_working_entries(order_ids: Collection[int]) -> int:
    """Mark entries that still fill positions which are being left, so that what is unfilled is called off."""
    return Order.objects.filter(pk__in=order_ids, state__in=LIVE).update(news=True)


def _draft(intent: ExitIntent, *, rules: ExitManager, occupied: set[tuple[int, str]]) -> ExitDraft | None:
    position, decision = intent.position, intent.decision
    leg = leg_of(decision.reason, decision.urgency)
    if intent.waits:  # one leg may wait beside another of its kind that works
        leg = f"{leg}:{position.exit_seq + 1}"
    if position.status == PositionStatus.CLOSED or (position.pk, leg) in occupied:
        return None
    if position.frozen_at is not None and decision.reason not in (ExitReason.MANUAL, ExitReason.EMERGENCY):
        return None  # what made it so is settled first; people may leave it all the same
    quantity = _quantity(intent)
    if quantity <= 0:
        return None
    # what waits holds nothing yet; its number is all that is taken
    sequence = ledger.reserve(position, quantity=NOTHING if intent.waits else quantity)
    slippage = rules.max_slippage_bps if intent.max_slippage_bps is None else intent.max_slippage_bps
    limit = _limit_price(intent, max_slippage_bps=slippage)
    return ExitDraft(
        position=position,
        quantity=quantity,
        reason=decision.reason,
        urgency=decision.urgency,
        leg=leg,
        sequence=sequence,
        expected_price=decision.seen_price,
        trigger_price=decision.trigger_price,
        priced_at=intent.priced_at,
        priced_from=intent.quote,
        attempt=intent.attempt,
        retry_of_id=intent.retry_of_id,
        not_before=intent.not_before,
        max_slippage_bps=slippage,
        retry_attempts=rules.retry_attempts,
        retry_delay_seconds=rules.retry_delay_seconds,
        limit_price=limit,
        work_seconds=rules.resubmit_delay_seconds if limit is None else rules.limit_exit.seconds,
        waits=intent.waits,
        time_in_force=decision.order.time_in_force,
    )


def _quantity(intent: ExitIntent) -> Decimal:
    position, decision = intent.position, intent.decision
    if intent.waits:
        return intent.at_most or NOTHING
    quantity = exit_quantity(
        fraction_pct=decision.fraction_pct,
        # what live exits have claimed is as good as gone: rungs met by one jump close what those before them leave
        remaining=position.available,
        available=position.available,
        lot=position.instrument.lot,
        dust=position.instrument.dust,
        min_notional=position.instrument.min_notional,
        price=decision.seen_price,
    )
    if intent.at_most is None:
        return quantity
    # the rest of a half-filled exit may be less than the venue takes, and would never be sold
    least = smallest_order(
        lot=position.instrument.lot, min_notional=position.instrument.min_notional, price=intent.decision.seen_price
    )
    return min(quantity, max(intent.at_most, least))


def _limit_price(intent: ExitIntent, *, max_slippage_bps: int) -> Decimal | None:
    """Return the limit of an exit whose plan asks for one; without a level there is nothing to put it at."""
    decision, instrument = intent.decision, intent.position.instrument
    if intent.limit_price is not None:
        return intent.limit_price
    if not decision.order.limit or decision.trigger_price is None:
        return None
    return limit_for_exit(
        level=decision.trigger_price,
        side=Side(intent.position.side),
        tick=instrument.tick,
        protective=decision.urgency <= Urgency.STOP,
        max_slippage_bps=max_slippage_bps,
    )


def request_exit(
    *,
    position_id: int,
    now: datetime,
    actor: str,
    reason: str = ExitReason.MANUAL,
    percentage: Decimal = HUNDRED,
) -> Order:
    """Leave a position, or a percentage of what remains of it, on a person's word; return the order.

    What less urgent exits hold is taken from them: they are called off, and an order waits for what they give back.
    An emergency takes it from all others, a person's exit from those for time and profit.

    :raises Position.DoesNotExist: no such position.
    :raises AlreadyClosed: nothing is left of it.
    :raises AlreadyExiting: exits as urgent have claimed everything, or the same kind of exit is live already.
    :raises ExitRefused: the percentage makes no sense.
    """
    if not percentage.is_finite() or not 0 < percentage <= HUNDRED:
        raise ExitRefused(f"the percentage must be above 0 and at most 100; got {percentage}")
    with transaction.atomic(durable=True):
        position = lock_position(position_id)
        if position.status == PositionStatus.CLOSED:
            raise AlreadyClosed(f"position {position_id} is closed; there is nothing left to exit")
        price, quote = _price_now(position)
        decision = Decision(reason=reason, fraction_pct=percentage, trigger_price=None, seen_price=price)
        intent = ExitIntent(position=position, decision=decision, priced_at=now, quote=quote)
        made = _leave_now_and_later(intent, now=now, actor=actor)
        if not made:
            raise AlreadyExiting(_who_is_exiting(position))
        return made[0]


def _leave_now_and_later(intent: ExitIntent, *, now: datetime, actor: str) -> list[Order]:
    """Make an exit for what is unclaimed and one that waits for what less urgent exits hold, as far as it is wanted."""
    position, decision = intent.position, intent.decision
    held = held_by_less_urgent(position, urgency=decision.urgency)
    everything = decision.fraction_pct >= HUNDRED
    if held > 0 and not everything and position.available <= 0:
        later = exit_quantity(
            fraction_pct=decision.fraction_pct,
            remaining=held,
            available=held,
            lot=position.instrument.lot,
            dust=position.instrument.dust,
            min_notional=position.instrument.min_notional,
            price=decision.seen_price,
        )
    else:
        later = held if everything else NOTHING
    made = list(make_exits([intent], now=now, actor=actor).values())
    if later > 0:
        made += make_exits([replace(intent, at_most=later, waits=True)], now=now, actor=actor).values()
    return made


def held_by_less_urgent(position: Position, *, urgency: Urgency) -> Decimal:
    """Return what live exits hold that give way to this urgency, less what others wait for already.

    Protection that rests at the broker gives way to all of them.
    """
    held = NOTHING
    for order in Order.objects.filter(position=position, intent=Intent.EXIT, state__in=LIVE):
        if order.waits:
            held -= order.quantity if order.urgency <= urgency else NOTHING
        elif order.urgency > urgency or order.resting:
            held += order.reserved
    return max(held, NOTHING)


def retry_exit(*, order_id: int, now: datetime, actor: str) -> Order:
    """Send a failed exit again on a person's word: all that remains, with more room for slippage; return the new order.

    :raises Order.DoesNotExist: no such order.
    :raises ExitRefused: it is not an exit that ended unfilled.
    :raises AlreadyClosed: nothing is left of its position.
    :raises AlreadyExiting: live exits have claimed everything, or the same kind of exit is live already.
    """
    with transaction.atomic(durable=True):
        intent, position_id = Order.objects.values_list("intent", "position_id").get(pk=order_id)
        if intent != Intent.EXIT or position_id is None:
            raise ExitRefused(f"order {order_id} is an entry; enter again instead")
        position = lock_position(position_id)
        failed = Order.objects.get(pk=order_id)
        if failed.state in LIVE:
            raise ExitRefused(f"order {order_id} is still {failed.state}; cancel it first or wait for it")
        if failed.filled_quantity >= failed.quantity:
            raise ExitRefused(f"order {order_id} was filled; there is nothing to retry")
        if position.status == PositionStatus.CLOSED:
            raise AlreadyClosed(f"position {position_id} is closed; there is nothing left to exit")
        price, quote = _price_now(position)
        decision = Decision(
            reason=failed.reason, fraction_pct=HUNDRED, trigger_price=failed.trigger_price, seen_price=price
        )
        again = ExitIntent(
            position=position,
            decision=decision,
            priced_at=now,
            quote=quote,
            attempt=failed.attempt + 1,
            retry_of_id=failed.pk,
            max_slippage_bps=policies_of([position], now=now)[position.pk].exit_manager.retry_slippage_bps,
        )
        made = make_exits([again], now=now, actor=actor)
        if not made:
            raise AlreadyExiting(_who_is_exiting(position))
        return made[0]


def _price_now(position: Position) -> tuple[Decimal, dict[str, Any]]:
    """Return what the position could trade at; without any quote half the entry price stands in, and says so."""
    quote = Quote.objects.filter(pk=position.instrument_id).first()
    if quote is None:
        return position.average_entry / 2, {"source": "half the entry price, no quote known"}
    price = getattr(quote, str(tradable_basis(Side(position.side))))
    figures = {"bid": f"{quote.bid:f}", "ask": f"{quote.ask:f}", "last": f"{quote.last:f}"}
    return price, {**figures, "seq": quote.seq, "source": quote.source, "source_at": quote.source_at.isoformat()}


def _who_is_exiting(position: Position) -> str:
    live = Order.objects.filter(position=position, intent=Intent.EXIT, state__in=LIVE).order_by("pk")
    named = ", ".join(f"order {order.pk} ({order.reason}, {order.quantity:f}, {order.state})" for order in live)
    return f"position {position.pk} is already being left by {named}; cancel that first or wait for it"
