"""Resting stops against the broker in a box: whatever the price does while legs change places, nothing is sold twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import F

from exitmgr.entries import register_position
from exitmgr.exits import request_exit
from exitmgr.plan_edits import change_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.scans import scan
from exitmgr.sweep import beat, sweep
from orders.models import Fill, Order
from orders.states import CLAIMABLE, LIVE
from orders.tasks import submit_orders, sync_orders
from positions.models import Position
from positions.values import Side
from tests import factories as f
from tests.simulator.box import Box, eventually, start_box

D = Decimal
pytestmark = pytest.mark.django_db(transaction=True)
MODES = ("resting", "native")
RUNGS = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "40"}, {"pct": "4"}]}
TIMED = {**f.PLAN, "trailing": {"pct": "1.5"}, "time_limit_seconds": 1}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def box(running: Box) -> Box:
    """Return the simulator with ten AAPL held at 100."""
    running.control("POST", "/reset")
    return running


def trade(box: Box, price: str, *, hear: bool = True) -> None:
    """Make a price at the broker, and let us hear of it or not."""
    box.quote("AAPL", price)
    if hear:
        f.push_price(price, price)


def guarded(box: Box, *, plan: Any, mode: str) -> Position:
    """Return a position of ten whose stop rests at the broker."""
    f.set_quote("100", "100")
    box.quote("AAPL", "100")
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": "10", "avg_entry_price": "100"})
    position, _ = register_position(
        account=f.make_account(url=box.url, key=box.key, secret=box.secret),
        symbol="AAPL",
        side=Side.LONG,
        quantity=D(10),
        entry_price=D(100),
        opened_at=f.utc_now(),
        now=f.utc_now(),
        actor="test",
        plan=plan,
        settings={"trade_exit": {"bracket_orders": {"mode": mode, "backstop_seconds": 1}}},
    )
    return eventually(lambda: work() and resting(position) == [("submitted", D(10))] and position)


def work() -> bool:
    """Do one round of everything the workers do, time being no object."""
    minute = timedelta(seconds=60)
    Order.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=F("next_attempt_at") - minute)
    ids = list(Order.objects.filter(state__in=CLAIMABLE, waits=False).order_by("urgency").values_list("pk", flat=True))
    if ids:
        submit_orders(order_ids=ids)
    Order.objects.filter(state__in=LIVE).update(heard_at=None)
    sync_orders()
    beat(name="scan", now=f.utc_now())
    scan(now=f.utc_now(), everything=True)
    sweep(now=f.utc_now())
    return True


def resting(position: Position) -> list[tuple[str, Decimal]]:
    rows = Order.objects.filter(position=position, resting=True, order_type="stop", state__in=LIVE)
    return list(rows.values_list("state", "quantity"))


def held_there(box: Box) -> Decimal:
    """Return what the broker truly holds; a short is negative."""
    held = box.control("GET", "/ledger")["positions"]
    return sum((D(str(row["qty"])) for row in held), D(0))


def until_closed(position: Position) -> Position:
    """Work until the position is closed and nothing is live any more."""

    def closed() -> Position | None:
        work()
        kept = Position.objects.get(pk=position.pk)
        quiet = not Order.objects.filter(position=position, state__in=LIVE).exists()
        return kept if kept.status == "closed" and quiet else None

    return eventually(closed, within=20)


def assert_sold_once(box: Box, position: Position) -> None:
    """Everything was sold, once, there and here."""
    assert held_there(box) == 0
    kept = Position.objects.get(pk=position.pk)
    assert (kept.status, kept.exited, kept.reserved) == ("closed", D(10), D(0))
    assert sum(Fill.objects.filter(order__position=position).values_list("quantity", flat=True)) == 10
    assert f.bracket_of(position).status == "completed"


@pytest.mark.parametrize("mode", MODES)
def test_the_broker_sells_by_itself_while_we_hear_nothing(box, mode):
    position = guarded(box, plan=f.PLAN, mode=mode)
    trade(box, "98.9", hear=False)
    kept = until_closed(position)
    assert_sold_once(box, position)
    orders = Order.objects.filter(position=position).count()
    assert (kept.exit_reason, orders) == ("stop_loss", 1 if mode == "resting" else 2)


def test_a_target_takes_the_place_of_the_stop(box):
    position = guarded(box, plan=f.PLAN, mode="resting")
    trade(box, "102")
    kept = until_closed(position)
    assert_sold_once(box, position)
    assert kept.exit_reason == "take_profit_1"
    states = Order.objects.filter(position=position).order_by("pk").values_list("resting", "state")
    assert list(states) == [(True, "cancelled"), (False, "filled")]


def test_a_group_sells_at_its_target_while_we_hear_nothing(box):
    position = guarded(box, plan=f.PLAN, mode="native")
    (parent,) = (row for row in box.control("GET", "/ledger")["orders"] if row["type"] == "limit")
    trade(box, "102.5", hear=False)
    kept = until_closed(position)
    assert_sold_once(box, position)
    assert kept.exit_reason == "take_profit_1"
    target, stop = Order.objects.filter(position=position).order_by("pk")
    assert (target.client_order_id, target.state, target.limit_price) == (parent["client_order_id"], "filled", D(102))
    assert (stop.state, stop.group, stop.stop_price) == ("cancelled", target.group, D(99))


def test_a_target_that_fills_in_part_shrinks_the_stop_beside_it(box):
    position = guarded(box, plan=f.PLAN, mode="native")
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.4", "count": 1})
    trade(box, "102.5", hear=False)
    eventually(lambda: work() and resting(position) == [("submitted", D(6))], within=20)
    kept = Position.objects.get(pk=position.pk)
    assert (kept.remaining, kept.reserved, held_there(box)) == (D(6), D(6), 6)
    trade(box, "98.5", hear=False)
    until_closed(position)
    assert_sold_once(box, position)


def test_a_changed_plan_moves_both_legs(box):
    position = guarded(box, plan=f.PLAN, mode="native")
    plan = parse_plan({"stop_loss": {"price": "97"}, "take_profits": [{"price": "105"}]})
    change_plan(position_id=position.pk, plan=plan, now=f.utc_now(), actor="me")
    Order.objects.filter(position=position).update(created_at=F("created_at") - timedelta(seconds=10))

    def moved() -> bool:
        work()
        live = Order.objects.filter(position=position, state="submitted").order_by("pk")
        return list(live.values_list("order_type", "stop_price")) == [("limit", D(97)), ("stop", D(97))]

    eventually(moved, within=20)
    assert Order.objects.get(position=position, state="submitted", order_type="limit").limit_price == D(105)
    assert held_there(box) == 10
    trade(box, "96", hear=False)
    until_closed(position)
    assert_sold_once(box, position)


def test_a_trail_moves_the_stop_at_the_broker_in_one_step(box):
    position = guarded(box, plan={"trailing": {"pct": "1"}}, mode="resting")
    trade(box, "110")
    work()
    Order.objects.filter(position=position).update(created_at=F("created_at") - timedelta(seconds=10))

    def moved() -> bool:
        work()
        live = Order.objects.filter(position=position, state="submitted")
        return list(live.values_list("order_type", "stop_price", "reserved")) == [("stop", D("108.9"), D(10))]

    eventually(moved, within=20)
    (live,) = (row for row in box.control("GET", "/ledger")["orders"] if row["status"] in ("new", "accepted"))
    assert D(live["stop_price"]) == D("108.9")
    assert {row["status"] for row in box.control("GET", "/ledger")["orders"]} == {"replaced", "new"}
    trade(box, "108", hear=False)
    kept = until_closed(position)
    assert_sold_once(box, position)
    assert kept.exit_reason == "trailing_stop"


def test_a_rung_leaves_a_stop_for_the_remainder_which_sells_it(box):
    position = guarded(box, plan=RUNGS, mode="resting")
    trade(box, "102")
    eventually(lambda: work() and resting(position) == [("submitted", D(6))], within=20)
    assert held_there(box) == 6
    trade(box, "98.5", hear=False)
    until_closed(position)
    assert_sold_once(box, position)


@pytest.mark.parametrize("mode", MODES)
def test_a_person_leaves_through_a_resting_stop(box, mode):
    position = guarded(box, plan=f.PLAN, mode=mode)
    request_exit(position_id=position.pk, now=f.utc_now(), actor="me")
    kept = until_closed(position)
    assert_sold_once(box, position)
    assert kept.exit_reason == "manual"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("mode", "plan"), [("resting", RUNGS), ("native", f.PLAN), ("native", TIMED)])
def test_wherever_the_price_goes_while_legs_change_places_nothing_is_sold_twice(box, mode, plan, seed):
    chance = random.Random(seed)
    position = guarded(box, plan=plan, mode=mode)
    for _ in range(8):
        trade(box, chance.choice(["98.5", "99.5", "101", "101.9", "102", "104"]), hear=chance.random() < 0.8)
        for _ in range(chance.randrange(3)):
            work()
        remaining = Position.objects.get(pk=position.pk).remaining
        assert 0 <= held_there(box) <= remaining <= 10
    trade(box, "97")
    until_closed(position)
    assert_sold_once(box, position)
