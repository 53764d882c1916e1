"""How positions come to be: by an entry order of ours, whose fill arms the bracket, or by telling us of a holding."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction

from alerts.events import Happening, write_events
from exitmgr.brackets import create_bracket, create_pending_bracket
from exitmgr.history import refresh_bars
from exitmgr.measures import expected_entry
from exitmgr.models import Bracket
from exitmgr.policy.current import policy_for
from exitmgr.policy.plan_choice import ChosenPlan, plan_for, range_terms
from exitmgr.policy.validation import override_problems
from exitmgr.rules.compile import compile_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.types import Urgency
from orders.brokers.protocol import OrderType
from orders.brokers.registry import connect
from orders.create import create_entry_order
from orders.lanes import ring_lanes_on_commit
from orders.models import Intent, Order
from orders.rounding import round_quantity
from orders.states import LIVE
from positions import ledger
from positions.models import Account, Instrument, Position, Quote
from positions.states import PositionStatus
from positions.values import Side, TradingState


class EntryRefused(Exception):
    """An entry or a holding was refused; `problems` maps each field to what is wrong and what would be right."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))
        self.problems = dict(problems)


class DuplicateEntry(EntryRefused):
    """The same request was made before; nothing was done again."""


def enter(
    *,
    account: Account,
    symbol: str,
    side: Side,
    quantity: Decimal,
    request_id: str,
    now: datetime,
    actor: str,
    plan: Any = None,
    settings: Any = None,
    limit_price: Decimal | None = None,
    strategy: str = "",
) -> Order:
    """Write an entry order and its pending bracket down, and queue its sending once that is committed.

    `request_id` makes the request repeatable: the same one again is refused. A missing plan means the one that the
    configuration, with this position's own `settings` over it, comes to.

    :raises EntryRefused: a field is wrong, or the account may not enter now.
    :raises InvalidPlan: the plan is wrong, or does not fit the price.
    """
    instrument = known_instrument(symbol)
    _require_quantity(quantity, instrument=instrument)
    expected = _ask_or_bid(instrument, side, now=now) if limit_price is None else limit_price
    _require_positive("limit_price", expected)
    own = _checked_settings(settings)
    chosen = _chosen_plan(plan, account=account, instrument=instrument, settings=own, now=now)
    terms = range_terms(policy_for(account=account.name, symbol=symbol, now=now, overrides=own))
    entry = expected_entry(instrument=instrument, side=side, price=expected, plan=chosen.plan, now=now, **terms)
    compile_plan(chosen.plan, entry=entry)  # a stop on the wrong side is refused before, not after
    try:
        with transaction.atomic(durable=True):
            account = _lock_account(account)
            _require_allowed(account, instrument, side=side, quantity=quantity, price=expected)
            order = create_entry_order(
                account=account,
                instrument=instrument,
                side=side,
                quantity=quantity,
                subject=f"entry {request_id}",
                urgency=Urgency.ENTRY,
                order_type=OrderType.LIMIT if limit_price is not None else OrderType.MARKET,
                limit_price=limit_price,
                expected_price=expected,
                strategy=strategy,
                now=now,
                actor=actor,
            )
            create_pending_bracket(entry_order=order, chosen=chosen, settings=own, now=now)
            ring_lanes_on_commit([order])
    except IntegrityError as error:
        if "order_client_id_is_unique" not in str(error):
            raise
        raise DuplicateEntry({"request_id": f"{request_id!r} was used before; choose a new one"}) from None
    return order


def register_position(
    *,
    account: Account,
    symbol: str,
    side: Side,
    quantity: Decimal,
    entry_price: Decimal,
    opened_at: datetime,
    now: datetime,
    actor: str,
    plan: Any = None,
    settings: Any = None,
    strategy: str = "",
) -> tuple[Position, Bracket]:
    """Take a holding that exists at the broker under our care and arm its plan at once.

    A missing plan means the one that the configuration, with this position's own `settings` over it, comes to.

    :raises EntryRefused: a field is wrong.
    :raises InvalidPlan: the plan is wrong, or does not fit the entry price.
    """
    instrument = known_instrument(symbol)
    if opened_at > now:
        raise EntryRefused({"opened_at": f"must not be in the future; got {opened_at.isoformat()}"})
    _require_positive("quantity", quantity)
    _require_positive("entry_price", entry_price)
    own = _checked_settings(settings)
    chosen = _chosen_plan(plan, account=account, instrument=instrument, settings=own, now=now)
    with transaction.atomic(durable=True):
        position = ledger.open_position(
            account=account,
            instrument=instrument,
            side=side,
            quantity=quantity,
            price=entry_price,
            opened_at=opened_at,
            strategy=strategy,
        )
        write_events(
            [
                Happening(
                    kind="position_registered",
                    actor=actor,
                    account_ref=account.pk,
                    position_ref=position.pk,
                    data={"side": side.word, "quantity": quantity, "entry_price": entry_price},
                )
            ],
            now=now,
        )
        return position, create_bracket(position=position, chosen=chosen, settings=own, now=now)


def _chosen_plan(
    given: Any, *, account: Account, instrument: Instrument, settings: Mapping[str, Any], now: datetime
) -> ChosenPlan:
    """Return the plan of a new position, the bars it may be measured on being fetched before.

    :raises InvalidPlan: the one that was given is wrong.
    """
    policy = policy_for(account=account.name, symbol=instrument.symbol, now=now, overrides=settings)
    measured = policy.trade_exit.mode == "atr" if given is None else bool(parse_plan(given).atr_periods)
    if measured:
        refresh_bars(
            account=account, instrument=instrument, now=now, connect=connect, seconds=policy.trade_exit.atr.bar_seconds
        )
    return plan_for(given, account=account, instrument=instrument, now=now, settings=settings)


def _checked_settings(given: Any) -> Mapping[str, Any]:
    """Return a position's own settings.

    :raises EntryRefused: with the path of every mistake.
    """
    problems = override_problems(given) if given else {}
    if problems:
        raise EntryRefused({f"settings.{path}": text for path, text in problems.items()})
    return given or {}


def known_instrument(symbol: str) -> Instrument:
    """Return the instrument of a symbol.

    :raises EntryRefused: there is none.
    """
    found = Instrument.objects.filter(symbol=symbol).first()
    if found is None:
        some = ", ".join(Instrument.objects.order_by("symbol").values_list("symbol", flat=True)[:8])
        raise EntryRefused(
            {"symbol": f"{symbol!r} is unknown; known are {some or 'none yet'}; add it as an instrument"}
        )
    return found


def _require_positive(name: str, number: Decimal) -> None:
    if not number.is_finite() or number <= 0:
        raise EntryRefused({name: f"must be a number above 0; got {number}"})


def _require_quantity(quantity: Decimal, *, instrument: Instrument) -> None:
    _require_positive("quantity", quantity)
    whole = round_quantity(quantity, lot=instrument.lot)
    if whole != quantity:
        nearest = max(whole, instrument.lot)
        raise EntryRefused(
            {"quantity": f"{instrument} trades in steps of {instrument.lot:f}; got {quantity}, {nearest:f} would do"}
        )


def _ask_or_bid(instrument: Instrument, side: Side, *, now: datetime) -> Decimal:
    quote = Quote.objects.filter(pk=instrument.pk).first()
    if quote is None:
        raise EntryRefused({"symbol": f"no price of {instrument} is known yet; push a quote or give a limit_price"})
    age = now - quote.received_at
    # a plan checked against a price of the past may not fit the fill, and protect nothing
    if age > timedelta(seconds=instrument.max_age_seconds):
        seconds = f"{age.total_seconds():.0f} s"
        raise EntryRefused(
            {"symbol": f"the last price of {instrument} is {seconds} old; push a quote or give a limit_price"}
        )
    price: Decimal = quote.ask if side is Side.LONG else quote.bid
    return price


def _lock_account(account: Account) -> Account:
    return Account.objects.select_for_update(no_key=True).get(pk=account.pk)


def _require_allowed(
    account: Account, instrument: Instrument, *, side: Side, quantity: Decimal, price: Decimal
) -> None:
    """Refuse what the account's switches and limits forbid; exits never come through here.

    The account is locked, so entries that come together cannot pass its limits together.
    """
    if account.trading_state != TradingState.ACTIVE:
        raise EntryRefused({"account": f"{account} is {account.trading_state}: it takes no entries until resumed"})
    if not instrument.tradable:
        raise EntryRefused({"symbol": f"{instrument} is not tradable at present"})
    if side is Side.SHORT and not instrument.shortable:
        raise EntryRefused({"side": f"{instrument} cannot be sold short"})
    notional = quantity * price
    if account.max_order_notional is not None and notional > account.max_order_notional:
        raise EntryRefused(
            {"quantity": f"{notional:f} exceeds the account's largest order of {account.max_order_notional:f}"}
        )
    if account.max_open_positions is None:
        return
    held = Position.objects.filter(account=account).exclude(status=PositionStatus.CLOSED).count()
    held += Order.objects.filter(account=account, intent=Intent.ENTRY, state__in=LIVE, position__isnull=True).count()
    if held >= account.max_open_positions:
        raise EntryRefused({"account": f"{account} already holds its limit of {account.max_open_positions} positions"})
