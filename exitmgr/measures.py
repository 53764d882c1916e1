"""What a plan is compiled on: gathered for a position from its bars, its sessions and its fees."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from exitmgr.rules.compile import Entry
from exitmgr.rules.plan import Plan
from positions.models import Instrument, Position
from positions.values import Side


def entry_of(*, position: Position, plan: Plan, now: datetime) -> Entry:
    """Return what a position's plan is compiled on."""
    return Entry(side=Side(position.side), price=position.average_entry, opened_at=position.opened_at)


def expected_entry(*, instrument: Instrument, side: Side, price: Decimal, plan: Plan, now: datetime) -> Entry:
    """Return what a plan would be compiled on if its entry filled now."""
    return Entry(side=side, price=price, opened_at=now)
