"""How positions come to be: by an entry order of ours, whose fill arms the bracket, or by telling us of a holding."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction

from alerts.events import Happening, write_events
from exitmgr.account_models import Verdict
from exitmgr.brackets import create_bracket, create_pending_bracket
from exitmgr.external_risk import (
    Answer,
    Question,
    ask_system,
    entry_refusal,
    note_answer,
    note_entry_not_allowed,
    system_for,
)
from exitmgr.history import refresh_bars
from exitmgr.measures import expected_entry
from exitmgr.models import Bracket
from exitmgr.policy.current import policy_for
from exitmgr.policy.plan_choice import ChosenPlan, plan_for, range_terms
from exitmgr.policy.validation import override_problems
from exitmgr.risk import objections
from exitmgr.rules.compile import compile_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.risk_checks import EntryAsk
from exitmgr.rules.types import Urgency
from orders.brokers.protocol import OrderType
from orders.brokers.registry import connect
from orders.client_ids import client_order_id
from orders.create import create_entry_order, opening_side
from orders.lanes import ring_lanes_on_commit
from orders.models import Intent, Order
from orders.rounding import round_quantity
from positions import ledger
from positions.models import Account, Instrument, Position, Quote
from positions.values import Side


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
    allow_duplicate: bool = False,
) -> Order:
    """Write an entry order and its pending bracket down, and queue its sending once that is committed.

    `request_id` makes the request repeatable: the same one again is refused. A missing plan means the one that the
    configuration, with this position's own `settings` over it, comes to. An entry that names a `strategy` counts as
    automatic. `allow_duplicate` says that one just like the last one is meant.

    :raises EntryRefused: a field is wrong, the account may not enter now, or the external risk system did not allow it.
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
    ask = EntryAsk(
        account=account.name, symbol=symbol, side=side, quantity=quantity, price=expected, limit_price=limit_price,
        automatic=bool(strategy), allow_duplicate=allow_duplicate,
    )  # fmt: skip
    subject = f"entry {request_id}"
    answer = _ask_outside(ask, account=account, instrument=instrument, subject=subject, strategy=strategy, now=now)
    try:
        with transaction.atomic(durable=True):
            account = _lock_account(account)
            _require_new(account, subject=subject)
            _require_allowed(ask, account=account, instrument=instrument, now=now)
            order = create_entry_order(
                account=account,
                instrument=instrument,
                side=side,
                quantity=quantity,
                subject=subject,
                urgency=Urgency.ENTRY,
                order_type=OrderType.LIMIT if limit_price is not None else OrderType.MARKET,
                limit_price=limit_price,
                expected_price=expected,
                strategy=strategy,
                now=now,
                actor=actor,
            )
            create_pending_bracket(entry_order=order, chosen=chosen, settings=own, now=now)
            if answer is not None:
                note_answer(answer, order_id=order.pk, now=now)
            ring_lanes_on_commit([order])
    except IntegrityError as error:
        if "order_client_id_is_unique" not in str(error):
            raise
        raise _duplicate(subject) from None
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


def _require_new(account: Account, *, subject: str) -> None:
    """Refuse a request that was made before, whatever else speaks against it now.

    :raises DuplicateEntry: there is an order for it already.
    """
    known = client_order_id(account_id=account.pk, subject=subject, leg="entry", attempt=1)
    if Order.objects.filter(account=account, client_order_id=known).exists():
        raise _duplicate(subject)


def _duplicate(subject: str) -> DuplicateEntry:
    return DuplicateEntry({"request_id": f"{subject.removeprefix('entry ')!r} was used before; choose a new one"})


def _require_allowed(ask: EntryAsk, *, account: Account, instrument: Instrument, now: datetime) -> None:
    """Refuse what the switches and limits forbid; exits never come through here.

    The account is locked, so entries that come together cannot pass its limits together.

    :raises EntryRefused: with everything that speaks against it.
    """
    problems = objections(ask, account=account, instrument=instrument, now=now)
    if problems:
        raise EntryRefused(problems)


def _ask_outside(
    ask: EntryAsk, *, account: Account, instrument: Instrument, subject: str, strategy: str, now: datetime
) -> Answer | None:
    """Ask the external risk system, where there is one, about an entry that passes our own limits.

    No transaction is open meanwhile.

    :raises EntryRefused: the entry has no chance here, or that system refused it or did not answer.
    """
    system = system_for(account=account.name, symbol=instrument.symbol, now=now)
    if system is None:
        return None
    account = Account.objects.defer("credentials").get(pk=account.pk)
    _require_new(account, subject=subject)
    _require_allowed(ask, account=account, instrument=instrument, now=now)
    question = Question(
        intent=Intent.ENTRY,
        account=account.name,
        symbol=instrument.symbol,
        side=opening_side(ask.side),
        quantity=ask.quantity,
        price=ask.price,
        order_type=OrderType.MARKET if ask.limit_price is None else OrderType.LIMIT,
        reason="entry",
        strategy=strategy,
        client_order_id=client_order_id(account_id=account.pk, subject=subject, leg="entry", attempt=1),
    )
    answer = ask_system(system, question, now=now)
    if answer.verdict != Verdict.ALLOWED:
        note_entry_not_allowed(answer, question, account_id=account.pk, now=now)
        raise EntryRefused({"account": entry_refusal(answer)})
    return answer
