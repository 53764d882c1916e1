"""What happens between an acknowledgement and the turn that follows it, with the loop held still."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orders.brokers.simulator.book import Book
from orders.brokers.simulator.exchange import Exchange
from orders.brokers.simulator.faults import Faults
from orders.brokers.simulator.ledger import Ledger
from orders.brokers.simulator.matching import Quote
from orders.brokers.simulator.records import Order, Refusal
from orders.brokers.simulator.validation import read_amendment, read_order

NOW = datetime(2026, 1, 2, 15, tzinfo=UTC)


class Floor:
    """An exchange of our own, its events, and a loop that turns only when told."""

    def __init__(self, ledger: Ledger) -> None:
        self.events: list[tuple[str, str]] = []
        self.faults = Faults()
        self.book = Book(ledger=ledger, cash=Decimal(100_000))
        self.book.start(symbols=["AAPL"], account_id="account")
        ids = itertools.count(1)
        self.exchange = Exchange(
            book=self.book,
            faults=self.faults,
            emit=lambda event, order, **_: self.events.append((event, order.client_order_id)),
            new_id=lambda: f"id-{next(ids)}",
            clock=lambda: NOW,
            later=lambda seconds, call: None,
        )

    def quote(self, price: str) -> None:
        number = Decimal(price)
        self.exchange.take_quotes([Quote("AAPL", number, number, number, "2026-01-02T15:00:00.000000Z")])

    def submit(self, name: str, **fields: Any) -> Order:
        body = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "gtc", **fields}
        return self.exchange.submit(read_order({**body, "client_order_id": name}), now=NOW)


def on_the_floor(tmp_path: Path, play: Callable[[Floor], Any]) -> Floor:
    """Play a scene that awaits exchange.settled() wherever the loop may turn."""

    async def run() -> Floor:
        floor = Floor(Ledger(tmp_path / "floor.sqlite3"))
        floor.quote("100")
        await play(floor)
        await floor.exchange.settled()
        await floor.book.ledger.committed()
        floor.book.ledger.close()
        return floor

    return asyncio.run(run())


def test_an_order_that_fills_while_its_replacement_is_pending_wins(tmp_path: Path) -> None:
    async def play(floor: Floor) -> None:
        old = floor.submit("old", type="limit", limit_price="90")
        await floor.exchange.settled()
        floor.exchange.amend(old, read_amendment({"limit_price": "91", "client_order_id": "new"}), now=NOW)
        floor.quote("89")

    floor = on_the_floor(tmp_path, play)
    assert floor.events[-3:] == [("pending_replace", "old"), ("fill", "old"), ("rejected", "new")]
    assert floor.book.position_qty("AAPL") == 10


@pytest.mark.parametrize(
    ("_case", "change", "events", "held"),
    [
        ("the rest goes over", {"limit_price": "91"}, [("replaced", "old"), ("new", "new"), ("fill", "new")], "10"),
        ("a larger order shrinks by what filled", {"qty": "9", "limit_price": "91"}, None, "9"),
        ("too small by now", {"qty": "3"}, [("rejected", "new")], "4"),
    ],
)
def test_what_fills_while_a_replacement_is_pending_does_not_fill_again(
    _case: str, change: dict[str, str], events: list[tuple[str, str]] | None, held: str, tmp_path: Path
) -> None:
    async def play(floor: Floor) -> None:
        old = floor.submit("old", type="limit", limit_price="90")
        await floor.exchange.settled()
        floor.exchange.amend(old, read_amendment({"client_order_id": "new", **change}), now=NOW)
        floor.faults.install([{"kind": "partial_fill", "fraction": "0.4", "count": 1}])
        floor.quote("90")
        assert floor.events[-1] == ("partial_fill", "old")

    floor = on_the_floor(tmp_path, play)
    if events is not None:
        assert floor.events[-len(events) :] == events
    assert floor.book.position_qty("AAPL") == Decimal(held)


def test_an_order_that_fills_while_its_cancel_is_pending_is_filled(tmp_path: Path) -> None:
    async def play(floor: Floor) -> None:
        order = floor.submit("one", type="limit", limit_price="90")
        await floor.exchange.settled()
        floor.exchange.cancel(order, now=NOW)
        floor.quote("89")

    floor = on_the_floor(tmp_path, play)
    assert floor.events == [("new", "one"), ("pending_cancel", "one"), ("fill", "one")]


def test_a_cancel_before_the_order_was_new_ends_it_unfilled(tmp_path: Path) -> None:
    async def play(floor: Floor) -> None:
        floor.exchange.cancel(floor.submit("one"), now=NOW)

    floor = on_the_floor(tmp_path, play)
    assert floor.events == [("pending_cancel", "one"), ("canceled", "one")]
    assert floor.book.position_qty("AAPL") == 0


def test_two_exits_in_the_same_turn_cannot_sell_twice(tmp_path: Path) -> None:
    async def play(floor: Floor) -> None:
        floor.submit("entry")
        await floor.exchange.settled()
        floor.submit("exit-1", side="sell")
        with pytest.raises(Refusal) as refused:
            floor.submit("exit-2", side="sell")
        assert refused.value.body["available"] == "0"
        with pytest.raises(Refusal, match="client_order_id must be unique"):
            floor.submit("exit-1", side="sell", qty="1")

    floor = on_the_floor(tmp_path, play)
    assert floor.book.position_qty("AAPL") == 0
    assert [event for event in floor.events if event[0] == "fill"] == [("fill", "entry"), ("fill", "exit-1")]
