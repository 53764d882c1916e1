"""The live scan and the replay decide the same: one price after the other, through Postgres and through bars."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import transaction
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exitmgr.advance import advance
from exitmgr.entries import register_position
from exitmgr.replay.engine import Settings, prepare, replay
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.models import Instrument
from positions.values import Side
from tests import factories as f
from tests.exitmgr.replay.cases import D, holding_of, random_plan, series_of

pytestmark = pytest.mark.django_db
CENT = D("0.01")
STEP = timedelta(seconds=60)


def random_prices(rng, count):
    """Return prices in cents that wander around the entry price, with jumps now and then."""
    cents, found = 10_000, []
    for _ in range(count):
        cents += rng.choice((0, 10, 20, 50)) * rng.choice((-1, 1)) if rng.random() < 0.85 else rng.randint(-250, 250)
        found.append(D(cents) * CENT)
    return found


def live_exits(plan, side, prices, *, opened_at):
    """Let each price through the scan, fill what it decides at that price, and return the exits."""
    instrument = Instrument.objects.create(symbol="AAPL", lot=D("0.1"))
    push(D(100), side, at=opened_at)
    position, _ = register_position(
        account=f.make_account(), symbol="AAPL", side=side, quantity=D(10), entry_price=D(100), opened_at=opened_at,
        now=opened_at, actor="test", plan=plan,
    )  # fmt: skip
    scan(now=opened_at, instrument_ids=[instrument.pk])
    found = []
    for number, price in enumerate(prices):
        now = opened_at + (number + 1) * STEP
        push(price, side, at=now)
        scan(now=now, everything=True)
        for order in Order.objects.filter(position=position, state="pending").order_by("pk"):
            found.append((order.reason, number, order.trigger_price, price, order.quantity))
            fill = f.fill_of(str(order.quantity), str(price))
            report = f.report_of(order, ReportedState.FILLED, executions=[fill])
            apply_reports(account_id=order.account_id, reports=[report], now=now)
            advance(now=now)
    return found


def push(price, side, *, at):
    """Write a price at which the position could be left."""
    bid, ask = (price, price + CENT) if side is Side.LONG else (price - CENT, price)
    f.push_price(str(bid), str(ask), received=at)


def replayed_exits(plan, side, prices, *, opened_at):
    """Replay the same prices as bars that do not move."""
    position = {
        "id": "p", "symbol": "AAPL", "side": side.word, "qty": "10", "entry_price": "100",
        "opened_at": opened_at.isoformat(), "plan": plan,
    }  # fmt: skip
    bars = [(opened_at + (number + 1) * STEP, *[price] * 4) for number, price in enumerate(prices)]
    chosen = Settings(lot=D("0.1"))
    series = {"AAPL": series_of(bars)}
    (outcome,) = replay(prepare([holding_of(position)], series, settings=chosen, source="test"), settings=chosen)
    return [(e.reason, e.at, e.trigger_price, e.exit_price, e.quantity) for e in outcome.exits]


def both(plan, side, prices):
    """Return the exits of the scan, everything undone, and of the replay."""
    opened_at = f.utc_now().replace(microsecond=0)
    before = transaction.savepoint()  # not atomic(): what is tested opens the outermost block itself
    try:
        live = live_exits(plan, side, prices, opened_at=opened_at)
    finally:
        transaction.savepoint_rollback(before)
    return live, replayed_exits(plan, side, prices, opened_at=opened_at)


#: Shrinking would repeat hundreds of queries for minutes; the assertion shows the whole case anyway.
_UNSHRUNK = (Phase.explicit, Phase.generate)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, phases=_UNSHRUNK)
def test_the_live_scan_and_the_replay_make_the_same_exits(seed):
    rng = random.Random(seed)
    side = rng.choice(list(Side))
    plan = random_plan(rng, side)
    plan.pop("session_close", None)
    prices = random_prices(rng, 20)
    live, replayed = both(plan, side, prices)
    assert live == replayed, (plan, side, prices)


@pytest.mark.parametrize(
    ("_case", "plan", "prices", "reasons"),
    [
        (
            "a trail that has started is no stop that has fired: what a rung leaves is held",
            {"take_profits": [{"pct": "1", "fraction_pct": "50"}], "trailing": {"distance": "1", "activation_pct": "0.5"}},
            ("100.6", "101.2", "101.1", "100.2"), ["take_profit_1", "trailing_stop"],
        ),
        (
            "nor is a break-even that was set",
            {"take_profits": [{"pct": "1", "fraction_pct": "50"}], "break_even": {"at_profit_pct": "0.5"}},
            ("101.2", "101.1", "99.9"), ["take_profit_1", "break_even"],
        ),
        (
            "a time limit outranks a target met at the same moment",
            {"take_profits": [{"pct": "1"}], "time_limit_seconds": 120},
            ("100", "101.5"), ["time_limit"],
        ),
        (
            "a stop outranks a time limit",
            {"stop_loss": {"pct": "1"}, "time_limit_seconds": 120}, ("100", "98.5"), ["stop_loss"],
        ),
        (
            "a stagnation that is due is not put off by that very price",
            {"stagnation": {"seconds": 120, "move_pct": "1"}}, ("100", "103"), ["stagnation"],
        ),
    ],
)  # fmt: skip
def test_a_case_worth_remembering(_case, plan, prices, reasons):
    live, replayed = both(plan, Side.LONG, [D(price) for price in prices])
    assert [reason for reason, *_ in replayed] == reasons
    assert live == replayed
