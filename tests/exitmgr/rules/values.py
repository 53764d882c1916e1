"""Prices, entries and plans for the tests of the rules; every argument has a usual value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from exitmgr.rules.compile import Compiled, Entry, compile_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.types import AnyTrigger
from positions.values import Range, Side, Snapshot

D = Decimal
LONG, SHORT = Side.LONG, Side.SHORT
AT = datetime(2025, 1, 2, 15, 0, tzinfo=UTC)


def after(seconds: int) -> datetime:
    """Return so many seconds after the entry."""
    return AT + timedelta(seconds=seconds)


def entry(side: Side = LONG, price: Any = 100, **fields: Any) -> Entry:
    """Return an entry at 100, at `AT`."""
    return Entry(side=side, price=D(price), opened_at=AT, **fields)


def compiled(plan: Any, side: Side = LONG, price: Any = 100, **fields: Any) -> Compiled:
    """Return what a plan written as JSON compiles to."""
    return compile_plan(parse_plan(plan), entry=entry(side, price, **fields))


def by_slot(plan: Any, side: Side = LONG, price: Any = 100, **fields: Any) -> dict[str, AnyTrigger]:
    """Return the triggers of a plan by their slots."""
    triggers = compiled(plan, side, price, **fields).triggers
    slots = {trigger.slot: trigger for trigger in triggers}
    assert len(slots) == len(triggers), "two triggers share a slot"
    return slots


def seen(price: Any, *, low: Any = None, high: Any = None, from_seq: int = 10, seq: int = 20) -> Snapshot:
    """Return a snapshot whose every price is the same, with the extremes since `from_seq`."""
    of = Range(D(price), D(price if low is None else low), D(price if high is None else high))
    return Snapshot(
        symbol="AAPL", bid=of, ask=of, last=of, mid=of, seq=seq, from_seq=from_seq, source_at=AT, received_at=AT
    )
