"""Which plan a position gets when nobody gave it one: the configuration in force, applied to what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypedDict

from exitmgr.measures import read_market
from exitmgr.policy.current import InForce, in_force
from exitmgr.policy.default_plan import RatioFacts, plan_from_policy
from exitmgr.policy.layers import NOTHING, Partial
from exitmgr.policy.schema import Policy
from exitmgr.rules.plan import Plan, parse_plan
from positions.calendars import ALWAYS_OPEN
from positions.models import Account, Instrument

_MEASURING: Final = ("market_condition", "volatility_adjusted")


@dataclass(frozen=True)
class ChosenPlan:
    """A plan, how it came about, and the version it was made with (None: the file alone).

    `given` says that a person or program gave it; the configuration had no part in it then.
    """

    plan: Plan
    notes: tuple[str, ...] = ()
    version_id: int | None = None
    given: bool = False


class RangeTerms(TypedDict):
    """How an Average True Range is measured; the fallback is in percent of the entry price."""

    bar_seconds: int
    estimator: str
    fallback_pct: Decimal


def choose_plan(
    *,
    account: str,
    instrument: Instrument,
    now: datetime,
    overrides: Partial = NOTHING,
    policies: InForce | None = None,
) -> ChosenPlan:
    """Return the plan for an account's name and an instrument; `policies` stands in for the configuration in force."""
    found = policies or in_force(now=now)
    policy = found.policy_for(account=account, symbol=instrument.symbol, overrides=overrides)
    plan, notes = plan_from_policy(policy, symbol=instrument.symbol, facts=_measured(instrument, policy, now))
    return ChosenPlan(plan, notes, found.version_id)


def plan_for(
    given: Any, *, account: Account, instrument: Instrument, now: datetime, settings: Partial = NOTHING
) -> ChosenPlan:
    """Return the plan that was given, or without one what the configuration comes to.

    :raises InvalidPlan: the given one is wrong.
    """
    if given is not None:
        return ChosenPlan(parse_plan(given), given=True)
    return choose_plan(account=account.name, instrument=instrument, now=now, overrides=settings)


def range_terms(policy: Policy) -> RangeTerms:
    """Return how the configuration wants ranges measured."""
    atr = policy.trade_exit.atr
    return RangeTerms(bar_seconds=atr.bar_seconds, estimator=atr.estimator, fallback_pct=atr.fallback_percentage * 100)


def _measured(instrument: Instrument, policy: Policy, now: datetime) -> RatioFacts:
    """Return what the ratio depends on; bars are read only where its strategy looks at them."""
    closes, rules = instrument.calendar != ALWAYS_OPEN, policy.trade_exit
    if rules.mode != "atr" or rules.risk_reward.strategy not in _MEASURING:
        return RatioFacts(closes=closes)
    reading, relative = read_market(
        instrument=instrument, now=now, period=rules.atr.period, bar_seconds=rules.atr.bar_seconds
    )
    return RatioFacts(reading=reading, relative=relative, closes=closes)
