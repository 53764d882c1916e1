"""What an entry has to pass before it is written down, each check by itself. Pure; prices are in the quote currency.

No check ever looks at an exit: leaving is never refused for a risk limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from positions.values import Side, TradingState

_STRICTNESS: Final = (TradingState.ACTIVE, TradingState.REDUCE_ONLY, TradingState.HALTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryAsk:
    """An entry as it is asked for; `price` is its limit, or for a market order what it would pay now."""

    account: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    limit_price: Decimal | None = None
    #: Named by a strategy: nobody pressed it.
    automatic: bool = False
    allow_duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskLimits:
    """What an account may do in one symbol; None is no limit."""

    max_order_quantity: Decimal | None = None
    max_order_notional: Decimal | None = None
    price_collar_pct: Decimal | None = None
    allowed_symbols: tuple[str, ...] | None = None
    max_open_positions: int | None = None
    max_active_brackets: int | None = None
    max_automatic_entries_per_minute: int | None = None
    #: Of an entry like one that was asked for so recently; 0 allows every one.
    duplicate_seconds: int = 0
    exit_cooldown_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the account stands at this moment, counted under its lock.

    `open_positions` and `brackets` count entries on their way as well. `like_this_at` is when an entry of the same
    side and quantity in the symbol was asked for last; `leaving` names the live exit in the symbol.
    """

    account_state: TradingState = TradingState.ACTIVE
    overall_state: TradingState = TradingState.ACTIVE
    open_positions: int = 0
    brackets: int = 0
    automatic_entries: int = 0
    like_this_at: datetime | None = None
    last_exit_at: datetime | None = None
    leaving: str = ""
    tradable: bool = True
    shortable: bool = True
    #: What a fresh quote says; None where there is none.
    bid: Decimal | None = None
    ask: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A check that failed: the field it is about, and what would be right."""

    field: str
    text: str


Check = Callable[[EntryAsk, RiskLimits, Standing, datetime], Violation | None]


def strictest(*states: str) -> TradingState:
    """Return the one of some trading states that allows least."""
    return max((TradingState(state) for state in states), key=_STRICTNESS.index)


def check_switches(ask: EntryAsk, _limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse while the account, or the switch over all accounts, takes no entries."""
    if standing.overall_state is not TradingState.ACTIVE:
        text = f"all accounts are {standing.overall_state}: none takes entries until the switch is set back to active"
        return Violation("account", text)
    if standing.account_state is not TradingState.ACTIVE:
        return Violation("account", f"{ask.account} is {standing.account_state}: it takes no entries until resumed")
    return None


def check_instrument(ask: EntryAsk, _limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse what its venue does not trade at present."""
    return None if standing.tradable else Violation("symbol", f"{ask.symbol} is not tradable at present")


def check_short(ask: EntryAsk, _limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse to sell short what cannot be."""
    if ask.side is Side.SHORT and not standing.shortable:
        return Violation("side", f"{ask.symbol} cannot be sold short")
    return None


def check_symbol(ask: EntryAsk, limits: RiskLimits, _standing: Standing, _now: datetime) -> Violation | None:
    """Refuse a symbol the account may not trade."""
    allowed = limits.allowed_symbols
    if allowed is None or ask.symbol in allowed:
        return None
    some = ", ".join(allowed[:8]) or "none"
    return Violation("symbol", f"{ask.account} may not trade {ask.symbol}; it may trade {some}")


def check_quantity(ask: EntryAsk, limits: RiskLimits, _standing: Standing, _now: datetime) -> Violation | None:
    """Refuse more than the largest quantity of one order."""
    most = limits.max_order_quantity
    if most is None or ask.quantity <= most:
        return None
    return Violation("quantity", f"{ask.quantity:f} exceeds the largest order of {most:f}")


def check_notional(ask: EntryAsk, limits: RiskLimits, _standing: Standing, _now: datetime) -> Violation | None:
    """Refuse more money than the largest order of the account: quantity x price."""
    most, notional = limits.max_order_notional, ask.quantity * ask.price
    if most is None or notional <= most:
        return None
    return Violation("quantity", f"{notional:f} exceeds the account's largest order of {most:f}")


def check_collar(ask: EntryAsk, limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse a limit that would pay far more than the market asks, or sell short far below what it bids.

    A limit on the patient side of the market is left alone: it pays no more than it says. Without a fresh price there
    is nothing to compare with.
    """
    collar, limit = limits.price_collar_pct, ask.limit_price
    market = standing.ask if ask.side is Side.LONG else standing.bid
    if collar is None or limit is None or market is None or ask.side * (limit - market) * 100 <= collar * market:
        return None
    way = "above the ask" if ask.side is Side.LONG else "below the bid"
    return Violation("limit_price", f"{limit:f} is more than {collar:f} % {way} of {market:f}")


def check_positions(ask: EntryAsk, limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse one position more than the account may hold."""
    most = limits.max_open_positions
    if most is None or standing.open_positions < most:
        return None
    return Violation("account", f"{ask.account} already holds its limit of {most} positions")


def check_brackets(ask: EntryAsk, limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse one bracket more than the account may have."""
    most = limits.max_active_brackets
    if most is None or standing.brackets < most:
        return None
    return Violation("account", f"{ask.account} already has its limit of {most} brackets")


def check_duplicate(ask: EntryAsk, limits: RiskLimits, standing: Standing, now: datetime) -> Violation | None:
    """Refuse what looks like the same entry asked for twice under two names."""
    before, span = standing.like_this_at, limits.duplicate_seconds
    if ask.allow_duplicate or before is None or now - before >= timedelta(seconds=span):
        return None
    ago = f"{max((now - before).total_seconds(), 0):.1f} s"
    text = f"the same entry was asked for {ago} ago; wait {span} s, or set allow_duplicate if both are meant"
    return Violation("request_id", text)


def check_repetition(ask: EntryAsk, limits: RiskLimits, standing: Standing, _now: datetime) -> Violation | None:
    """Refuse a strategy that enters one symbol again and again: a loop that has gone wrong."""
    most = limits.max_automatic_entries_per_minute
    if not ask.automatic or most is None or standing.automatic_entries < most:
        return None
    text = f"strategies have entered {ask.symbol} {standing.automatic_entries} times within a minute; at most {most}"
    return Violation("strategy", text)


def check_cooldown(ask: EntryAsk, limits: RiskLimits, standing: Standing, now: datetime) -> Violation | None:
    """Refuse an entry in a symbol that is being left, or was left a moment ago."""
    if standing.leaving:
        return Violation("symbol", f"{ask.symbol} is being left by {standing.leaving}; an exit goes before any entry")
    span = timedelta(seconds=limits.exit_cooldown_seconds)
    if standing.last_exit_at is None or now - standing.last_exit_at >= span:
        return None
    left = (standing.last_exit_at + span - now).total_seconds()
    text = f"{ask.symbol} was left less than {limits.exit_cooldown_seconds} s ago; entries are taken again in"
    return Violation("symbol", f"{text} {left:.0f} s")


#: In the order in which they are told; of two about the same field the first is.
CHECKS: Final[tuple[Check, ...]] = (
    check_switches,
    check_instrument,
    check_short,
    check_symbol,
    check_quantity,
    check_notional,
    check_collar,
    check_positions,
    check_brackets,
    check_cooldown,
    check_repetition,
    check_duplicate,
)


def violations(ask: EntryAsk, *, limits: RiskLimits, standing: Standing, now: datetime) -> dict[str, str]:
    """Return what speaks against an entry, by field; nothing when it may be made."""
    found: dict[str, str] = {}
    for check in CHECKS:
        violation = check(ask, limits, standing, now)
        if violation is not None:
            found.setdefault(violation.field, violation.text)
    return found
