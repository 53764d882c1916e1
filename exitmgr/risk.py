"""Whether an account may enter now: its limits from row and configuration, how it stands, and what speaks against it.

A position's own settings do not count: who asks for an entry may not widen the limits it has to pass.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Max, Q, QuerySet

from exitmgr.models import Bracket
from exitmgr.policy.current import policy_for
from exitmgr.rules.risk_checks import EntryAsk, RiskLimits, Standing, violations
from exitmgr.states import BracketStatus
from exitmgr.switches import overall_state
from orders.create import opening_side
from orders.models import Intent, Order
from orders.states import LIVE
from positions.models import Account, Instrument, Position, Quote
from positions.states import PositionStatus
from positions.values import TradingState

_A_MINUTE: Final = timedelta(seconds=60)
_OPEN: Final = (BracketStatus.PENDING, BracketStatus.ACTIVE, BracketStatus.ERROR)


def objections(ask: EntryAsk, *, account: Account, instrument: Instrument, now: datetime) -> dict[str, str]:
    """Return what speaks against an entry, by field; nothing when it may be made.

    Under the account's lock entries that come together cannot pass its limits together.
    """
    limits = limits_of(account, symbol=instrument.symbol, now=now)
    standing = standing_of(account, instrument=instrument, ask=ask, limits=limits, now=now)
    return violations(ask, limits=limits, standing=standing, now=now)


def limits_of(account: Account, *, symbol: str, now: datetime) -> RiskLimits:
    """Return what an account may do in a symbol."""
    policy = policy_for(account=account.name, symbol=symbol, now=now)
    risk = policy.exit_manager.risk
    return RiskLimits(
        max_order_quantity=risk.max_order_quantity,
        max_order_notional=account.max_order_notional,
        price_collar_pct=risk.price_collar_pct,
        allowed_symbols=risk.allowed_symbols,
        max_open_positions=account.max_open_positions,
        max_active_brackets=policy.trade_exit.bracket_orders.max_active_brackets,
        max_automatic_entries_per_minute=risk.max_automatic_entries_per_minute,
        duplicate_seconds=risk.duplicate_seconds,
        exit_cooldown_seconds=policy.exit_manager.exit_cooldown_seconds,
    )


def standing_of(
    account: Account, *, instrument: Instrument, ask: EntryAsk, limits: RiskLimits, now: datetime
) -> Standing:
    """Return how an account stands; what no limit asks for is not counted."""
    bid, ask_price = _fresh_prices(instrument, now=now) if ask.limit_price is not None else (None, None)
    entries = Order.objects.filter(account=account, instrument=instrument, intent=Intent.ENTRY)
    positions = Position.objects.filter(account=account, instrument=instrument)
    return Standing(
        account_state=TradingState(account.trading_state),
        overall_state=overall_state(),
        open_positions=_held(account) + _entering(account) if limits.max_open_positions is not None else 0,
        brackets=_brackets(account) if limits.max_active_brackets is not None else 0,
        automatic_entries=entries.filter(created_at__gt=now - _A_MINUTE).exclude(strategy="").count()
        if ask.automatic and limits.max_automatic_entries_per_minute is not None
        else 0,
        like_this_at=_like_this(entries, ask, span=limits.duplicate_seconds, now=now),
        last_exit_at=_last_exit(positions, span=limits.exit_cooldown_seconds, now=now),
        leaving=leaving_order(account_id=account.pk, instrument_id=instrument.pk),
        tradable=instrument.tradable,
        shortable=instrument.shortable,
        bid=bid,
        ask=ask_price,
    )


def leaving_order(*, account_id: int, instrument_id: int) -> str:
    """Name the exit by which an account is leaving a symbol now; empty when it is not.

    Protection that rests at the broker is no leaving.
    """
    live = Order.objects.filter(
        position__account_id=account_id, position__instrument_id=instrument_id, intent=Intent.EXIT, state__in=LIVE,
        resting=False,
    ).exclude(position__status=PositionStatus.CLOSED)  # fmt: skip
    found = live.order_by("pk").values_list("pk", "reason").first()
    return f"order {found[0]} ({found[1]})" if found else ""


def _fresh_prices(instrument: Instrument, *, now: datetime) -> tuple[Decimal | None, Decimal | None]:
    oldest = now - timedelta(seconds=instrument.max_age_seconds)
    found = Quote.objects.filter(pk=instrument.pk, received_at__gte=oldest).values_list("bid", "ask").first()
    return found or (None, None)


def _held(account: Account) -> int:
    return Position.objects.filter(account=account).exclude(status=PositionStatus.CLOSED).count()


def _entering(account: Account) -> int:
    return Order.objects.filter(
        account=account, intent=Intent.ENTRY, state__in=LIVE, position__isnull=True
    ).count()  # fmt: skip


def _brackets(account: Account) -> int:
    armed = Bracket.objects.filter(position__account=account, status__in=_OPEN)
    return armed.exclude(position__status=PositionStatus.CLOSED).count() + _entering(account)


def _like_this(entries: QuerySet[Order], ask: EntryAsk, *, span: int, now: datetime) -> datetime | None:
    if span == 0 or ask.allow_duplicate:
        return None
    same = Q(side=opening_side(ask.side), quantity=ask.quantity, created_at__gt=now - timedelta(seconds=span))
    found: datetime | None = entries.filter(same).aggregate(at=Max("created_at"))["at"]
    return found


def _last_exit(positions: QuerySet[Position], *, span: int, now: datetime) -> datetime | None:
    if span == 0:
        return None
    recent = positions.filter(last_exit_at__gt=now - timedelta(seconds=span))
    found: datetime | None = recent.aggregate(at=Max("last_exit_at"))["at"]
    return found
