"""A person changes a plan while prices are scanned: one outcome, and nothing that was reached is forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial

import pytest
from django.db import transaction

from exitmgr.models import Bracket, TrailCohort, Trigger
from exitmgr.plan_edits import PlanChangedMeanwhile, WouldFireNow, change_plan
from exitmgr.queries import stops_now
from exitmgr.rules.plan import parse_plan
from exitmgr.scans import scan
from orders.models import Order
from positions.models import Position, Quote
from tests import factories as f
from tests.races.crowd import at_once
from tests.races.test_races import someone_waits_for_a_lock
from tests.simulator.box import eventually

D = Decimal
pytestmark = pytest.mark.django_db(transaction=True)


def changing(position, plan, **options):
    return partial(change_plan, position_id=position.pk, plan=parse_plan(plan), now=f.utc_now(), actor="ann", **options)


def test_a_stop_that_is_moved_away_while_it_is_reached_fires_first_or_not_at_all():
    account = f.make_account()
    for _ in range(30):
        f.set_quote("100")
        position = f.hold(account=account, plan={"stop_loss": {"price": "99"}})
        f.push_price("98.90")
        scanned, changed = at_once(partial(scan, now=f.utc_now()), changing(position, {"stop_loss": {"price": "95"}}))
        assert not isinstance(changed, Exception), changed
        assert not isinstance(scanned, Exception), scanned
        stop = Trigger.objects.get(position=position)
        fired = Order.objects.filter(position=position).count()
        assert (stop.status, stop.level, fired) in (("fired", D(99), 1), ("armed", D(95), 0))
        scan(now=f.utc_now(), everything=True)
        assert Order.objects.filter(position=position).count() == fired


def test_a_trail_that_is_tightened_while_its_best_price_moves_keeps_the_best_one():
    account = f.make_account()
    for _ in range(30):
        f.set_quote("100")
        position = f.hold(account=account, plan={"trailing": {"pct": "5"}})
        f.push_price("110")
        f.push_price("108.5")
        ends = at_once(partial(scan, now=f.utc_now()), changing(position, {"trailing": {"pct": "2"}}))
        assert not [end for end in ends if isinstance(end, Exception)], ends
        scan(now=f.utc_now())
        assert Order.objects.filter(position=position).count() == 0
        assert stops_now([position.pk]) == {position.pk: D("107.8")}


def test_a_change_waits_for_the_scan_that_holds_the_price_and_leaves_the_position_to_it():
    f.set_quote("100")
    position = f.hold(plan={"trailing": {"pct": "5"}})
    with ThreadPoolExecutor(max_workers=1) as pool:
        with transaction.atomic():
            Quote.objects.select_for_update(no_key=True).get(pk=position.instrument_id)
            waiting = pool.submit(at_once, changing(position, {"trailing": {"pct": "2"}}))
            eventually(someone_waits_for_a_lock)
            Position.objects.select_for_update(nowait=True).get(pk=position.pk)
            TrailCohort.objects.update(best=D(101))
        (end,) = waiting.result(timeout=10)
    assert not isinstance(end, Exception), end
    assert stops_now([position.pk]) == {position.pk: D("98.98")}


def test_of_two_people_who_change_the_same_plan_the_second_is_told():
    f.set_quote("100")
    position = f.hold()
    plans = [{"stop_loss": {"price": "98"}}, {"stop_loss": {"price": "97"}}]
    ends = at_once(*[changing(position, plan, based_on=f.PLAN) for plan in plans])
    refused = [end for end in ends if isinstance(end, PlanChangedMeanwhile)]
    assert len(refused) == 1, ends
    assert Bracket.objects.get().plan in plans


def test_a_price_that_falls_as_a_stop_is_moved_up_is_refused_or_fires():
    account = f.make_account()
    for _ in range(20):
        f.set_quote("100")
        position = f.hold(account=account, plan={"stop_loss": {"price": "95"}})
        _, changed = at_once(partial(f.push_price, "98.9"), changing(position, {"stop_loss": {"price": "99"}}))
        scan(now=f.utc_now())
        sold = Order.objects.filter(position=position).count()
        assert (isinstance(changed, WouldFireNow), sold) in ((True, 0), (False, 1)), changed
