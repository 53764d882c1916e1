"""Owns the verdict: which exits the market demanded, worked out from the tape alone, against those that happened.

Nothing here is shared with the code that decides: levels come from the declared plan and the broker's own fill price.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from config.demo.scenes import Word
from config.demo.tape import Print

#: Levels reached this close together may be met by one scan, which serves the more urgent one first.
ONE_SCAN = timedelta(seconds=2)
STOP = "stop_loss"
MANUAL = "manual"
HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """One exit as the broker and the database have it."""

    order_id: int
    reason: str
    quantity: Decimal
    filled: Decimal
    arrived_at: datetime | None  #: at the broker, on its clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One position from its entry fill to the end of its scene."""

    position_id: int
    side: Word
    quantity: Decimal
    entry_price: Decimal
    plan: Mapping[str, Any]
    opened_at: datetime
    until: datetime  #: its closing fill, or the end of the scene
    exits: Sequence[Leaving]


def levels(*, plan: Mapping[str, Any], side: Word, entry_price: Decimal) -> dict[str, Decimal]:
    """Return the price of each stop and target by exit reason."""
    sign = 1 if side == "long" else -1
    found: dict[str, Decimal] = {}
    if stop := plan.get("stop_loss"):
        if "pct" in stop:
            found[STOP] = entry_price - sign * entry_price * Decimal(stop["pct"]) / 100
        elif "distance" in stop:
            found[STOP] = entry_price - sign * Decimal(stop["distance"])
        else:
            found[STOP] = Decimal(stop["price"])
    for number, rung in enumerate(plan.get("take_profits", ()), start=1):
        if "pct" in rung:
            price = entry_price + sign * entry_price * Decimal(rung["pct"]) / 100
        elif "rr" in rung:
            price = entry_price + sign * abs(entry_price - found[STOP]) * Decimal(rung["rr"])
        else:
            price = Decimal(rung["price"])
        found[f"take_profit_{number}"] = price
    return found


def first_reached(story: Story, prints: Sequence[Print]) -> dict[str, datetime]:
    """Return when the price the position could trade at first was at or beyond each level, by exit reason."""
    sign = 1 if story.side == "long" else -1
    reached: dict[str, datetime] = {}
    wanted = levels(plan=story.plan, side=story.side, entry_price=story.entry_price)
    for seen in prints:
        if not story.opened_at <= seen.at <= story.until:
            continue
        price = seen.bid if story.side == "long" else seen.ask
        for reason, level in wanted.items():
            gain = sign * (price - level)
            if reason not in reached and (gain <= 0 if reason == STOP else gain >= 0):
                reached[reason] = seen.at
    return reached


def owed(story: Story, prints: Sequence[Print]) -> dict[str, datetime]:
    """Return the reached levels that no filled exit answers and no other exit forestalled, by exit reason."""
    reached = first_reached(story, prints)
    filled = {leaving.reason for leaving in story.exits if leaving.filled > 0}
    return {
        reason: at
        for reason, at in reached.items()
        if reason not in filled and not _forestalled(story, reason, reached=reached)
    }


def differences(story: Story, prints: Sequence[Print]) -> Iterator[str]:
    """Yield every way in which a position's exits are not what the market demanded, in words."""
    name = f"position {story.position_id}"
    reached = first_reached(story, prints)
    for leaving in story.exits:
        if leaving.filled != leaving.quantity:
            yield f"{name}: the {leaving.reason} exit filled {leaving.filled:f} of {leaving.quantity:f}"
        if leaving.reason == MANUAL:
            continue
        at = reached.get(leaving.reason)
        if at is None:
            yield f"{name}: left by {leaving.reason}, whose level was never reached"
        elif leaving.arrived_at is not None and leaving.arrived_at < at:
            yield f"{name}: left by {leaving.reason} before its level was reached at {at.isoformat()}"
    for reason, at in owed(story, prints).items():
        yield f"{name}: {reason} was reached at {at.isoformat()} and no exit followed"
    yield from _sizes(story, name)
    left = sum((leaving.filled for leaving in story.exits), Decimal(0))
    if left != story.quantity:
        yield f"{name}: {left:f} of {story.quantity:f} were left"


def _forestalled(story: Story, reason: str, *, reached: Mapping[str, datetime]) -> bool:
    """Return whether levels that were reached before this one had claimed the whole position.

    A stop may also have been reached a moment later: one scan that sees both serves the stop first.
    """
    claimed = Decimal(0)
    for leaving in story.exits:
        if leaving.reason in reached:
            head_start = ONE_SCAN if leaving.reason == STOP else timedelta(0)
            if reached[leaving.reason] <= reached[reason] + head_start:
                claimed += leaving.filled
    return claimed == story.quantity


def _sizes(story: Story, name: str) -> Iterator[str]:
    """Yield every exit of a wrong size: a rung closes its share of what the exits before it left, in whole shares."""
    rungs = story.plan.get("take_profits", ())
    shares = {f"take_profit_{n}": Decimal(rung.get("fraction_pct", "100")) for n, rung in enumerate(rungs, start=1)}
    remaining = story.quantity
    for leaving in sorted(story.exits, key=lambda one: one.order_id):
        share = shares.get(leaving.reason, HUNDRED)
        wanted = remaining if share == HUNDRED else max(remaining * share // HUNDRED, Decimal(1))
        if leaving.quantity != wanted:
            yield f"{name}: {leaving.reason} closed {leaving.quantity:f} where its share is {wanted:f}"
        remaining -= leaving.quantity
