"""Half-filled orders and small rests: a stop outranks every rule about sizes, and follows whatever is filled later."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.advance import advance
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.states import LIVE
from orders.updates import apply_reports
from positions.models import Instrument
from tests import factories as f
from tests.exitmgr.tape import Tape

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db
LIMITED = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit", "time_in_force": "gtc"}]}


def tell(tape, order, state, *fills):
    """Let the broker tell of an order, and follow it up; fills are (quantity, price)."""
    executions = [f.fill_of(quantity, price) for quantity, price in fills]
    total = f.read_again(order).filled_quantity + f.sum_of(executions)
    report = f.report_of(order, state, executions=executions, filled=str(total))
    apply_reports(account_id=order.account_id, reports=[report], now=tape.now)
    advance(now=tape.now)


def fall(tape, price):
    tape.at(1)
    tape.quote(price)
    return scan(now=tape.now, everything=True).orders


@pytest.mark.parametrize(
    ("_case", "sold", "rest"),
    [
        ("a rest nobody would buy by itself", "9.95", "0.05"),
        ("a rest below a lot", "9.9995", "0.0005"),
        ("half of it", "5", "5"),
    ],
)
def test_a_stop_takes_what_a_half_filled_target_holds_however_little(_case, sold, rest):
    tape = Tape()
    Instrument.objects.update(lot=D("0.001"), dust=D("0.0001"), min_notional=D(10))
    tape.trade("100")
    position = f.hold(plan=LIMITED, now=tape.now)
    fall(tape, "102")
    target = Order.objects.get(position=position)
    tell(tape, target, S.WORKING, (sold, "102"))
    assert fall(tape, "98") == 0
    advance(now=tape.now)
    assert f.read_again(target).state == "cancel_requested"
    tell(tape, target, S.CANCELLED)
    (stop,) = Order.objects.filter(position=position, state__in=LIVE)
    assert (stop.reason, stop.quantity, f.read_again(position).reserved) == ("stop_loss", D(rest), D(rest))


def test_a_rest_below_dust_is_no_position():
    tape = Tape()
    Instrument.objects.update(lot=D("0.001"), dust=D("0.001"))
    tape.trade("100")
    position = f.hold(plan=LIMITED, now=tape.now)
    fall(tape, "102")
    target = Order.objects.get(position=position)
    tell(tape, target, S.WORKING)
    tell(tape, target, S.CANCELLED, ("9.9995", "102"))
    assert (f.read_again(position).status, f.read_again(position).reserved) == ("closed", D(0))
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("_case", "first", "later"),
    [("a part, and the rest as the stop is out", "4", "6"), ("one share, then none", "1", "")],
)
def test_a_stop_that_fires_on_a_half_filled_entry_sells_what_there_is_and_then_the_rest(_case, first, later):
    tape = Tape()
    tape.trade("100")
    entry = f.entry_order()
    tell(tape, entry, S.WORKING, (first, "100"))
    position = f.read_again(entry).position
    assert fall(tape, "98") == 1
    stop = Order.objects.get(position=position, intent="exit")
    assert stop.quantity == D(first)
    advance(now=tape.now)
    assert f.read_again(entry).state == "cancel_requested"
    tell(tape, entry, S.CANCELLED, *([(later, "100")] if later else []))
    tell(tape, stop, S.FILLED, (first, "98"))
    rest = list(Order.objects.filter(position=position, intent="exit", state__in=LIVE))
    assert [(row.reason, row.quantity) for row in rest] == ([("stop_loss", D(later))] if later else [])
    assert f.read_again(position).remaining == D(later or 0)
    assert f.read_again(position).status == ("exit_pending" if later else "closed")


def test_an_exit_that_fills_a_little_each_time_ends_and_never_sells_more_than_there_is():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan=LIMITED, now=tape.now)
    fall(tape, "98")
    asked = []
    for part in ("3", "3", "4"):
        (order,) = Order.objects.filter(position=position, state__in=LIVE)
        asked.append(order.quantity)
        tell(tape, order, S.WORKING)
        tell(tape, order, S.FILLED if part == "4" else S.CANCELLED, (part, "98"))
    assert asked == [D(10), D(7), D(4)]
    assert (f.read_again(position).status, f.read_again(position).exited) == ("closed", D(10))
    assert Order.objects.filter(position=position).count() == 3


@pytest.mark.parametrize(
    ("_case", "rest", "sold"),
    [
        ("enough by itself", "2", "2"),
        ("too little, so what the venue takes", "0.5", "1"),
    ],
)
def test_the_rest_of_a_half_filled_exit_is_never_too_small_to_be_sold(_case, rest, sold):
    f.make_instrument("BTC/USD", lot=D("0.1"), min_notional=D(100))
    position = f.hold(symbol="BTC/USD")
    assert f.exit_order(position, expected="100", at_most=D(rest)).quantity == D(sold)


def test_no_more_is_sold_than_there_is_even_where_the_venue_takes_only_more():
    f.make_instrument("BTC/USD", lot=D("0.1"), min_notional=D(5000))
    position = f.hold(symbol="BTC/USD")
    assert f.exit_order(position, expected="100", at_most=D("0.5")).quantity == D(10)
