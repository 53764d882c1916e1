"""What people see of a position: the price it could be left at, its gain, its extremes, and at what cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from positions.bars import peak_and_trough, save_bars
from positions.feeds.protocol import Tick
from positions.models import Account, Instrument, Position, Quote
from positions.pnl import profit_pct, unrealized_pnl
from positions.queries import open_positions, with_worth
from positions.quotes import write_quotes
from positions.values import Side
from tests.positions.test_bars import bar

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
D = Decimal


@pytest.fixture
def account(db: None) -> Account:
    """Return an account without positions."""
    return Account.objects.create(name="a", broker="paper", created_at=NOON, updated_at=NOON)


def hold(account: Account, symbol: str = "AAPL", *, side: Side = Side.LONG, **fields: Any) -> Position:
    """Return a stored position of 3 at 100."""
    instrument, _ = Instrument.objects.get_or_create(symbol=symbol, defaults={"collar_pct": 1_000})
    lawful = {"quantity": D(3), "entry_cost": D(300), "opened_at": NOON, **fields}
    return Position.objects.create(account=account, instrument=instrument, side=side, **lawful)


def price(bid: Any, ask: Any, last: Any, *, seconds: float = 90, symbol: str = "AAPL") -> None:
    """Write one price, so many seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    write_quotes(ticks=[Tick(symbol, D(bid), D(ask), D(last), at)], source="test", now=at, ring=lambda: None)


@pytest.mark.parametrize(
    ("_case", "side", "exited", "worth"),
    [
        ("a long leaves at the bid", Side.LONG, 0, (102, 6, 2)),
        ("what was sold gains no more", Side.LONG, 1, (102, 4, 2)),
        ("a short leaves at the ask", Side.SHORT, 0, (104, -12, -4)),
    ],
)
def test_a_position_is_worth_what_it_could_be_left_at(
    account: Account, _case: str, side: Side, exited: int, worth: tuple[int, int, int]
) -> None:
    hold(account, side=side, exited=exited)
    price(102, 104, 103)
    Quote.objects.update(scanned_at=NOON + timedelta(seconds=91))

    (seen,) = open_positions()

    assert (seen.price, seen.unrealized_pnl, seen.unrealized_pct) == worth
    assert seen.priced_at == NOON + timedelta(seconds=90)
    assert seen.evaluated_at == NOON + timedelta(seconds=91)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("quantity", "cost"), [("0.00000003", "0.00213"), ("7", "5195050.105"), ("3", "100")])
def test_the_database_reckons_as_the_arithmetic_does(account: Account, side: Side, quantity: str, cost: str) -> None:
    held = hold(account, side=side, quantity=D(quantity), entry_cost=D(cost))
    price("742150.015", "742199.99", "742180")

    (seen,) = open_positions()

    figures = {"side": side, "average_entry": held.average_entry, "price": seen.price}
    assert seen.unrealized_pnl == pytest.approx(unrealized_pnl(quantity=D(quantity), **figures), rel=D("1e-12"))
    assert seen.unrealized_pct == pytest.approx(profit_pct(**figures), rel=D("1e-12"))


def test_a_position_without_a_price_is_shown_without_worth(account: Account) -> None:
    hold(account)

    (seen,) = open_positions()

    assert (seen.price, seen.priced_at, seen.evaluated_at) == (None, None, None)
    assert (seen.unrealized_pnl, seen.unrealized_pct) == (None, None)
    assert (seen.highest, seen.lowest) == (100, 100)


@pytest.mark.parametrize(
    ("_case", "opened"),
    [
        ("before everything", 0),
        ("within the first bar", 1),
        ("as the minute in the making began", 120),
        ("within it", 121),
        ("after the newest price", 140),
    ],
)
def test_extremes_are_those_of_the_bars(account: Account, _case: str, opened: int) -> None:
    held = hold(account, opened_at=NOON + timedelta(seconds=opened))
    save_bars(instrument_id=held.instrument_id, seconds=60, bars=[bar(0, 100, 160, 50, 100), bar(1, 100, 130, 80, 100)])
    for seconds, last in ((122, 140), (124, 70), (130, 104)):
        price(last, last, last, seconds=seconds)

    (seen,) = open_positions()

    assert (seen.highest, seen.lowest) == peak_and_trough(held, until=NOON + 3 * MINUTE)


def test_closed_positions_are_left_out(account: Account) -> None:
    kept = hold(account)
    hold(account, status="closed", closed_at=NOON)

    assert [seen.pk for seen in open_positions()] == [kept.pk]
    assert with_worth(Position.objects.all()).count() == 2


def test_a_page_takes_one_query(account: Account, django_assert_num_queries: Any) -> None:
    for symbol in ("AAPL", "MSFT"):
        for _ in range(5):
            hold(account, symbol)
        price(102, 104, 103, symbol=symbol)

    with django_assert_num_queries(1):
        shown = [
            (seen.account.name, seen.instrument.symbol, seen.price, seen.highest)
            for seen in open_positions().order_by("-opened_at", "pk")[:8]
        ]

    assert shown == [("a", "AAPL", 102, 103)] * 5 + [("a", "MSFT", 102, 103)] * 3
