"""Which plan a position gets when nobody gave it one: the configuration in force, applied to what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exitmgr.policy.current import InForce, in_force
from exitmgr.policy.default_plan import RatioFacts, plan_from_policy
from exitmgr.policy.layers import NOTHING, Partial
from exitmgr.policy.schema import Policy
from exitmgr.rules.plan import Plan
from positions.models import Instrument

#: Calendar of a venue that never closes.
ALWAYS_OPEN: Final = "24/7"

#: Measures what a strategy asks for; given the instrument and what holds for it.
Measure = Callable[[Instrument, Policy, datetime], RatioFacts]


@dataclass(frozen=True)
class ChosenPlan:
    """A plan, how it came about, and the version it was made with (None: the file alone)."""

    plan: Plan
    notes: tuple[str, ...]
    version_id: int | None


def without_measuring(instrument: Instrument, _policy: Policy, _now: datetime) -> RatioFacts:
    """Return what is known of an instrument without looking at its prices."""
    return RatioFacts(closes=instrument.calendar != ALWAYS_OPEN)


def choose_plan(
    *,
    account: str,
    instrument: Instrument,
    now: datetime,
    overrides: Partial = NOTHING,
    measure: Measure = without_measuring,
    policies: InForce | None = None,
) -> ChosenPlan:
    """Return the plan for an account's name and an instrument; `policies` stands in for the configuration in force."""
    found = policies or in_force(now=now)
    policy = found.policy_for(account=account, symbol=instrument.symbol, overrides=overrides)
    plan, notes = plan_from_policy(policy, symbol=instrument.symbol, facts=measure(instrument, policy, now))
    return ChosenPlan(plan, notes, found.version_id)
