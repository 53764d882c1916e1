"""Trails that stood still, fell over another price, or needed the venue: here they follow every price of every plan."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.brackets import open_bracket
from exitmgr.entries import register_position
from orders.models import Order
from positions.feeds.protocol import Tick
from positions.models import Instrument
from positions.quotes import write_quotes
from positions.values import Side
from tests import factories as f
from tests.exitmgr.tape import Tape, exits_of

D = Decimal
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("source", ["tradable", "last", "mid"])
@pytest.mark.parametrize(
    ("_case", "trail", "prices", "fired_at"),
    [
        ("at once", {"pct": "1"}, ["110", "108.9"], "108.9"),
        ("from a profit on", {"pct": "1", "activation_pct": "5"}, ["104", "110", "108.9"], "108.9"),
        ("not reached its profit", {"pct": "1", "activation_pct": "20"}, ["110", "108"], None),
        ("by a distance", {"distance": "2", "activation_pct": "5"}, ["110", "108"], "108"),
    ],
)
def test_a_trail_follows_whatever_price_its_plan_names(_case, trail, prices, fired_at, source):
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"price_source": source, "trailing": trail}, now=tape.now)
    tape.trade(*prices)
    assert [(reason, price) for reason, _, price in exits_of(position)] == (
        [("trailing_stop", D(fired_at))] if fired_at else []
    )


@pytest.mark.parametrize(
    ("_case", "fields"), [("a share", {"asset_class": "equity"}), ("a coin, at any hour", {"asset_class": "crypto"})]
)
@pytest.mark.parametrize("broker", ["paper", "robinhood"])
def test_a_trail_needs_no_trailing_orders_of_the_venue(_case, fields, broker):
    tape = Tape()
    Instrument.objects.update(**fields)
    tape.trade("100")
    position, _ = register_position(
        account=f.make_account(broker=broker),
        symbol=tape.symbol,
        side=Side.LONG,
        quantity=D("1.5"),
        entry_price=D(100),
        opened_at=tape.now,
        now=tape.now,
        actor="test",
        plan={"trailing": {"pct": "1"}},
    )
    assert open_bracket(position).mode == "synthetic"
    tape.trade("110", "108.9")
    assert exits_of(position) == [("trailing_stop", D("1.5"), D("108.9"))]
    assert {row.order_type for row in Order.objects.all()} == {"market"}


def test_no_price_between_two_looks_is_lost_to_a_trail():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"trailing": {"pct": "1"}}, now=tape.now)
    tape.at(1)
    tape.quote("115", "113.9")
    tape.look()
    tape.trade("113.85")
    assert exits_of(position) == [("trailing_stop", D(10), D("113.85"))]


@pytest.mark.parametrize(
    ("_case", "wick", "after", "exits"),
    [
        ("a wick that an ordinary price contradicts", "70", "100", []),
        ("a fall that goes on", "70", "70", [("stop_loss", D(10), D(70))]),
    ],
)
def test_a_wick_beyond_the_collar_waits_for_a_second_print(_case, wick, after, exits):
    tape = Tape(collar_pct="10")
    tape.trade("100")
    position = f.hold(now=tape.now)
    tape.at(1)
    _say(tape, wick)
    tape.look()
    assert exits_of(position) == []
    tape.at(1)
    _say(tape, after)
    tape.look()
    assert exits_of(position) == exits


def _say(tape, price):
    """Tell a price that is not believed at once."""
    tick = Tick(symbol=tape.symbol, bid=D(price), ask=D(price), last=D(price), source_at=tape.now)
    write_quotes(ticks=[tick], source="test", now=tape.now, ring=lambda: None)
