"""What the database itself refuses, constraint by constraint, and that it keeps every digit of money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.db import DataError, IntegrityError, models, transaction

from positions.models import (
    Account,
    Bar,
    Instrument,
    LossWatch,
    Position,
    Quote,
    RefusedPrice,
    Session,
    TradingSwitch,
)

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ACCOUNT: dict[str, Any] = {"name": "a", "broker": "paper", "created_at": NOW, "updated_at": NOW}
POSITION: dict[str, Any] = {"side": 1, "quantity": 10, "entry_cost": 1000, "opened_at": NOW}
QUOTE: dict[str, Any] = {
    **dict.fromkeys(("bid", "bid_low", "bid_high"), 99),
    **dict.fromkeys(("last", "last_low", "last_high", "mid_low", "mid_high"), 100),
    **dict.fromkeys(("ask", "ask_low", "ask_high"), 101),
    "source": "test",
    "source_at": NOW,
    "received_at": NOW,
}
BAR: dict[str, Any] = {"start": NOW, "seconds": 60, "open": 100, "high": 110, "low": 90, "close": 105}
SESSION: dict[str, Any] = {"calendar": "XNYS", "opens_at": NOW, "closes_at": NOW + timedelta(hours=6)}
WATCH: dict[str, Any] = {"since": NOW, "pnl": 0, "noted_at": NOW, "day": NOW.date(), "day_start_pnl": 0}
REFUSED: dict[str, Any] = {"symbol": "AAPL", "reason": "stale", "count": 1, "last_seen_at": NOW}
ZERO_BOOK = dict.fromkeys(("bid", "ask", "last", "bid_low", "ask_low", "last_low"), 0)


@pytest.fixture
def stored(db: None) -> dict[str, models.Model]:
    """Return one lawful row of each model."""
    account = Account.objects.create(**ACCOUNT)
    instrument = Instrument.objects.create(symbol="AAPL")
    return {
        "account": account,
        "instrument": instrument,
        "position": Position.objects.create(account=account, instrument=instrument, **POSITION),
        "quote": Quote.objects.create(instrument=instrument, **QUOTE),
        "bar": Bar.objects.create(instrument=instrument, **BAR),
        "session": Session.objects.create(**SESSION),
        "losswatch": LossWatch.objects.create(account=account, **WATCH),
        "tradingswitch": TradingSwitch.objects.create(),
        "refusedprice": RefusedPrice.objects.create(**REFUSED),
    }


BREACHES: list[tuple[str, str, dict[str, Any]]] = [
    ("account_trading_state_is_known", "account", {"trading_state": "sleepy"}),
    ("account_notional_limit_is_positive", "account", {"max_order_notional": 0}),
    ("account_loss_limits_are_positive", "account", {"max_daily_loss": 0}),
    ("account_loss_limits_are_positive", "account", {"max_drawdown": -1}),
    ("account_loss_action_is_known", "account", {"loss_action": "panic"}),
    ("losswatch_breach_is_whole", "losswatch", {"hit_at": NOW}),
    ("losswatch_breach_is_whole", "losswatch", {"reason": "daily_loss"}),
    ("losswatch_day_has_its_start", "losswatch", {"day_start_pnl": None}),
    ("losswatch_day_has_its_start", "losswatch", {"day": None}),
    ("switch_state_is_known", "tradingswitch", {"state": "sleepy"}),
    ("switch_is_one_row", "tradingswitch", {"id": 2}),
    ("instrument_steps_are_positive", "instrument", {"tick": 0}),
    ("instrument_steps_are_positive", "instrument", {"lot": 0}),
    ("instrument_steps_are_positive", "instrument", {"dust": Decimal("-0.1")}),
    ("instrument_steps_are_positive", "instrument", {"min_notional": -1}),
    ("instrument_steps_are_positive", "instrument", {"collar_pct": 0}),
    ("instrument_ages_and_spread_are_positive", "instrument", {"max_age_seconds": 0}),
    ("instrument_ages_and_spread_are_positive", "instrument", {"max_spread_pct": 0}),
    ("instrument_confirms_before_it_ages", "instrument", {"confirm_seconds": 60}),
    ("instrument_symbol_is_not_empty", "instrument", {"symbol": ""}),
    ("position_side_is_long_or_short", "position", {"side": 0}),
    ("position_status_is_known", "position", {"status": "lost"}),
    ("position_quantity_is_positive", "position", {"quantity": 0}),
    ("position_cost_is_positive", "position", {"entry_cost": 0}),
    ("position_never_sells_more_than_it_holds", "position", {"exited": -1}),
    # both constraints refuse this one; the database names the first by alphabet
    ("position_live_exits_never_exceed_the_remainder", "position", {"exited": Decimal("10.000000001")}),
    ("position_live_exits_never_exceed_the_remainder", "position", {"reserved": Decimal("10.000000001")}),
    ("position_live_exits_never_exceed_the_remainder", "position", {"exited": 4, "reserved": 7}),
    ("position_live_exits_never_exceed_the_remainder", "position", {"reserved": -1}),
    ("position_closed_has_its_time", "position", {"status": "closed"}),
    ("position_closed_has_its_time", "position", {"closed_at": NOW}),
    ("quote_prices_are_positive", "quote", ZERO_BOOK),
    ("quote_is_not_crossed", "quote", {"bid": 102, "bid_high": 102}),
    ("quote_extremes_hold_the_price", "quote", {"bid_low": Decimal("99.01")}),
    ("quote_extremes_hold_the_price", "quote", {"bid_high": Decimal("98.99")}),
    ("quote_extremes_hold_the_price", "quote", {"ask_low": Decimal("101.01")}),
    ("quote_extremes_hold_the_price", "quote", {"ask_high": Decimal("100.99")}),
    ("quote_extremes_hold_the_price", "quote", {"last_low": Decimal("100.01")}),
    ("quote_extremes_hold_the_price", "quote", {"last_high": Decimal("99.99")}),
    ("quote_extremes_hold_the_price", "quote", {"mid_low": Decimal("100.01")}),
    ("quote_suspect_is_whole", "quote", {"suspect": 50}),
    ("session_ends_after_it_begins", "session", {"closes_at": NOW}),
    ("bar_extremes_hold_open_and_close", "bar", {"high": 104}),
    ("bar_extremes_hold_open_and_close", "bar", {"open": 111}),
    ("bar_extremes_hold_open_and_close", "bar", {"low": 101}),
    ("bar_extremes_hold_open_and_close", "bar", {"close": 89}),
    ("bar_extremes_hold_open_and_close", "bar", {"low": 0}),
    ("bar_extremes_hold_open_and_close", "bar", {"volume": -1}),
    ("bar_extremes_hold_open_and_close", "bar", {"seconds": 0}),
]


@pytest.mark.parametrize(("constraint", "model", "breach"), BREACHES)
def test_the_database_refuses(
    stored: dict[str, models.Model], constraint: str, model: str, breach: dict[str, Any]
) -> None:
    row = stored[model]
    rows = type(row)._default_manager.filter(pk=row.pk)
    before = rows.values().get()

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        rows.update(**breach)

    assert rows.values().get() == before


@pytest.mark.parametrize(
    ("constraint", "model", "fields"),
    [
        ("account_name", Account, ACCOUNT),
        ("instrument_symbol", Instrument, {"symbol": "AAPL"}),
        ("bar_is_unique", Bar, BAR),
        ("session_is_unique", Session, SESSION),
        ("refused_price_is_counted_once", RefusedPrice, REFUSED),
    ],
)
def test_the_database_refuses_a_second(
    stored: dict[str, models.Model], constraint: str, model: type[models.Model], fields: dict[str, Any]
) -> None:
    if model is Bar:
        fields = {**fields, "instrument": stored["instrument"]}

    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        model._default_manager.create(**fields)

    assert model._default_manager.count() == 1


def test_every_constraint_of_the_room_is_shown_to_refuse() -> None:
    declared = {
        constraint.name
        for model in apps.get_app_config("positions").get_models()
        for constraint in model._meta.constraints
    }

    assert declared == {name for name, *_ in BREACHES} | {
        "bar_is_unique", "refused_price_is_counted_once", "session_is_unique",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["account", "instrument"])
def test_what_positions_refer_to_cannot_be_removed(stored: dict[str, models.Model], name: str) -> None:
    with pytest.raises(models.ProtectedError):
        stored[name].delete()

    assert Position.objects.count() == 1


@pytest.mark.parametrize(
    ("_case", "price", "quantity"),
    [
        ("BRK.A, a fund's worth", "742150.015", "150000"),
        ("one satoshi", "0.00000001", "0.00000001"),
        ("a token of 18 digits", "0.000000000000000001", "1"),
        ("many of it", "0.00000763", "98765432109.12345678"),
        ("twenty digits", "1", "12345678901234567890"),
    ],
)
def test_money_keeps_every_digit(stored: dict[str, models.Model], _case: str, price: str, quantity: str) -> None:
    cost = Decimal(price) * Decimal(quantity)
    Position.objects.update(quantity=Decimal(quantity), entry_cost=cost, last_exit_price=Decimal(price))

    held = Position.objects.get()
    assert (held.quantity, held.entry_cost, held.last_exit_price) == (Decimal(quantity), cost, Decimal(price))
    assert held.average_entry == Decimal(price)


@pytest.mark.parametrize(
    ("written", "read"),
    [("100", "100"), ("100.50", "100.5"), ("0", "0"), ("1E+3", "1000"), ("0.10", "0.1"), ("-5.00", "-5")],
)
def test_money_is_read_without_padding(stored: dict[str, models.Model], written: str, read: str) -> None:
    Position.objects.update(realized_pnl=Decimal(written))

    assert str(Position.objects.get().realized_pnl) == read


def test_a_number_too_large_for_the_column_is_refused(stored: dict[str, models.Model]) -> None:
    with pytest.raises((DataError, ValueError, ArithmeticError)), transaction.atomic():
        Position.objects.update(entry_cost=Decimal("1e20"))

    assert Position.objects.get().entry_cost == 1000


def test_what_a_position_still_holds() -> None:
    held = Position(quantity=Decimal(10), exited=Decimal(3), reserved=Decimal("2.5"), entry_cost=Decimal(1005))

    assert (held.remaining, held.available, held.average_entry) == (7, Decimal("4.5"), Decimal("100.5"))
