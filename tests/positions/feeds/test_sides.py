"""Trades between quotes: what bid and ask were when they were printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from positions.feeds.protocol import Tick
from positions.feeds.sides import LONGEST, Sides

NOW = datetime(2026, 3, 2, 15, 30, 30, tzinfo=UTC)


def tick(bid: Any = None, ask: Any = None, last: Any = None, *, symbol: str = "AAPL", at: datetime = NOW) -> Tick:
    """Return a tick with prices given as int or text."""
    return Tick(symbol, *(None if price is None else Decimal(price) for price in (bid, ask, last)), at)


@pytest.mark.parametrize(
    ("_case", "trade", "completed"),
    [
        ("between the sides", tick(last=101), tick(100, 102, 101)),
        ("at the bid", tick(last=100), tick(100, 102, 100)),
        ("at the ask", tick(last=102), tick(100, 102, 102)),
        ("below the bid: the book has moved", tick(last=99), tick(last=99)),
        ("above the ask: the book has moved", tick(last=103), tick(last=103)),
        ("as late as the sides are known", tick(last=101, at=NOW + LONGEST), tick(100, 102, 101, at=NOW + LONGEST)),
        (
            "later",
            tick(last=101, at=NOW + LONGEST + timedelta(microseconds=1)),
            tick(last=101, at=NOW + LONGEST + timedelta(microseconds=1)),
        ),
        ("of another symbol", tick(last=101, symbol="MSFT"), tick(last=101, symbol="MSFT")),
        ("infinite", tick(last="Infinity"), tick(last="Infinity")),
        ("a whole quote", tick(98, 99, 98), tick(98, 99, 98)),
        ("a bid alone", tick(98), tick(98)),
    ],
)
def test_a_trade_has_the_sides_it_was_printed_between(_case: str, trade: Tick, completed: Tick) -> None:
    sides = Sides()

    assert sides.complete([tick(100, 102), trade]) == [tick(100, 102), completed]


def test_the_newest_sides_count() -> None:
    sides = Sides()
    sides.complete([tick(100, 102), tick(104, 106), tick(99)])

    assert sides.complete([tick(last=105)]) == [tick(104, 106, 105)]


@pytest.mark.parametrize(("bid", "ask", "last"), [("NaN", "102", "101"), ("100", "NaN", "101"), ("100", "102", "NaN")])
def test_what_is_no_number_is_passed_on_to_be_refused(bid: str, ask: str, last: str) -> None:
    (_, trade) = Sides().complete([tick(bid, ask), tick(last=last)])

    assert (trade.bid, trade.ask, str(trade.last)) == (None, None, last)
