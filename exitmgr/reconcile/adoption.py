"""Holdings at the broker that we have no position for: taken under care, told to a person, or left alone."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from alerts.models import Severity
from exitmgr.armed import judge_spec
from exitmgr.brackets import compile_for
from exitmgr.entries import EntryRefused, register_position
from exitmgr.policy.current import policy_for
from exitmgr.policy.plan_choice import choose_plan
from exitmgr.probes import snapshots_of
from exitmgr.reconcile.compare import plain_symbol
from exitmgr.reconcile.differences import Difference, Kind, spelled
from exitmgr.reconcile.sightings import tell
from exitmgr.reference_data import add_instrument
from exitmgr.rules.plan import InvalidPlan
from exitmgr.rules.types import Act, LevelTrigger, TrailTrigger
from orders.brokers.protocol import Broker, InstrumentFacts
from positions.calendars import ALWAYS_OPEN
from positions.models import Account, Instrument, Position
from positions.values import AssetClass, Side

STRATEGY: Final = "adopted"
_ADVICE: Final = (
    "Register it as a position, close it at the broker, or set exit_manager.adopt to what is to happen by itself."
)


class NotAdopted(Exception):
    """A holding was not taken under care; the message says why."""


def take_up_holding(difference: Difference, *, account: Account, broker: Broker, now: datetime, actor: str) -> str:
    """Do about an unknown holding, or the surplus of a known one, what the configuration says; say what was done."""
    wanted = policy_for(account=account.name, symbol=difference.symbol, now=now).exit_manager.adopt
    if wanted == "ignore":
        return "left alone, as configured"
    why = "nothing protects it"
    if wanted == "adopt":
        try:
            position = adopt(difference, account=account, broker=broker, now=now, actor=actor)
            return f"adopted as position {position.pk}"
        except (NotAdopted, EntryRefused, InvalidPlan) as error:
            why = f"it was not adopted: {error}"
    _tell(difference, account=account, why=why, now=now)
    return f"told a person; {why}"


def adopt(difference: Difference, *, account: Account, broker: Broker, now: datetime, actor: str) -> Position:
    """Take a holding under our care with the plan the configuration has for it, entered at the broker's average.

    :raises NotAdopted: it would be sold at once, or it looks like something else.
    :raises EntryRefused: it cannot be held.
    :raises InvalidPlan: the plan does not fit it.
    """
    if difference.figures.get("like_a_split"):
        raise NotAdopted("it is an exact multiple of what we hold, as after a split that its average does not show yet")
    quantity, price = _unknown_part(difference)
    side = Side.LONG if quantity > 0 else Side.SHORT
    instrument = _instrument(difference.symbol, broker=broker, now=now, actor=actor)
    _require_quiet_start(account, instrument, side=side, quantity=abs(quantity), price=price, now=now)
    position, _ = register_position(
        account=account,
        symbol=instrument.symbol,
        side=side,
        quantity=abs(quantity),
        entry_price=price,
        opened_at=now,
        now=now,
        actor=actor,
        strategy=STRATEGY,
    )
    return position


def _unknown_part(difference: Difference) -> tuple[Decimal, Decimal]:
    """Return how much of a holding is not ours (signed) and what it cost on average."""
    holding = difference.holding
    assert holding is not None  # noqa: S101 - there is no surplus of nothing
    if difference.kind is Kind.UNKNOWN_HOLDING:
        return holding.quantity, holding.average_entry
    here, average = Decimal(difference.figures["here"]), Decimal(difference.figures["average_here"])
    surplus = holding.quantity - here
    price = (holding.quantity * holding.average_entry - here * average) / surplus
    return surplus, round(price, 8) if price > 0 else holding.average_entry


def _instrument(symbol: str, *, broker: Broker, now: datetime, actor: str) -> Instrument:
    """Return the instrument of a symbol as the broker spells it; a new one is made known as the venue has it."""
    known = Instrument.objects.filter(symbol=symbol).first()
    if known is None:  # BTCUSD may be known as BTC/USD
        known = next(
            (one for one in Instrument.objects.all() if plain_symbol(one.symbol) == plain_symbol(symbol)), None
        )
    if known is not None:
        return known
    facts = broker.instrument(symbol)
    if facts is None:
        raise NotAdopted(f"the broker has no instrument {symbol}")
    return add_instrument(values=_values(facts), now=now, actor=actor)


def _values(facts: InstrumentFacts) -> dict[str, Any]:
    crypto = "crypto" in facts.asset_class.lower()
    values: dict[str, Any] = {
        "symbol": facts.symbol,
        "asset_class": AssetClass.CRYPTO if crypto else AssetClass.EQUITY,
        "tick": facts.tick,
        "lot": facts.lot,
        "min_notional": facts.min_notional,
        "tradable": facts.tradable,
        "shortable": facts.shortable,
    }
    return {**values, "calendar": ALWAYS_OPEN, "dust": facts.lot} if crypto else values


def _require_quiet_start(
    account: Account, instrument: Instrument, *, side: Side, quantity: Decimal, price: Decimal, now: datetime
) -> None:
    """Refuse to adopt what the plan would sell at once: nobody asked for that.

    :raises NotAdopted: naming what would fire.
    :raises InvalidPlan: the plan does not fit.
    """
    seen = snapshots_of([instrument.pk]).get(instrument.pk)
    if seen is None:
        return
    plan = choose_plan(account=account.name, instrument=instrument, now=now).plan
    imagined = Position(
        account=account, instrument=instrument, side=side, quantity=quantity, entry_cost=quantity * price, opened_at=now
    )
    compiled = compile_for(imagined, plan, now=now, overrides={}, moved_by_hand=False, held_before=True)
    would = [
        spec.slot
        for spec in compiled.triggers
        if not spec.after
        and not isinstance(spec, TrailTrigger)
        and not (isinstance(spec, LevelTrigger) and spec.act is not Act.EXIT)
        and judge_spec(spec, seen[0], now=now) is not None
    ]
    if would:
        raise NotAdopted(f"at the price now its plan would sell it at once ({', '.join(would)})")


def _tell(difference: Difference, *, account: Account, why: str, now: datetime) -> None:
    there, here = difference.figures["there"], difference.figures["here"]
    what = f"{there} {difference.symbol}" if difference.kind is Kind.UNKNOWN_HOLDING else (
        f"{spelled(Decimal(there) - Decimal(here))} {difference.symbol} more than we do"
    )  # fmt: skip
    tell(
        difference,
        account_id=account.pk,
        severity=Severity.CRITICAL,
        title=f"The broker holds {what} in {account.name}",
        message=f"It holds {there} at {difference.figures['average_there']}, we hold {here}; {why}. {_ADVICE}",
        now=now,
    )
