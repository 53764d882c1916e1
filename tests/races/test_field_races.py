"""Moves, fills, outside hands and people in the same moment: whichever comes first, the books end true."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest
from django.db.models import Sum

from exitmgr.advance import advance
from exitmgr.exits import AlreadyClosed, AlreadyExiting, request_exit
from exitmgr.reconcile.differences import Difference, Kind
from exitmgr.reconcile.outside_trades import follow_reduction
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.replace import request_replace
from orders.states import LIVE
from orders.updates import apply_reports
from tests import factories as f
from tests.exitmgr.test_resting import at_rest, market
from tests.factories import D
from tests.races.crowd import at_once

S = ReportedState
ROUNDS = 8
pytestmark = pytest.mark.django_db(transaction=True)


def bound_of(position):
    """Return what live exits of a position have claimed."""
    live = Order.objects.filter(position=position, intent="exit", state__in=LIVE)
    return live.aggregate(sum=Sum("reserved"))["sum"] or D(0)


def tell(account_id, reports):
    for report in reports:
        apply_reports(account_id=account_id, reports=[report], now=f.utc_now())


def leave(position):
    return request_exit(position_id=position.pk, now=f.utc_now(), actor="me")


def errors_among(ends):
    """Return what came back as an error, but for what a person is told who comes too late."""
    return [end for end in ends if isinstance(end, Exception) and not isinstance(end, AlreadyClosed | AlreadyExiting)]


def news_of_a_move(stop):
    """Return what the broker says of a stop that filled in part, was moved, and filled as its successor, in order."""
    first, last = f.fill_of("3"), f.fill_of("7")
    successor = {
        "client_order_id": stop.replacing["client_order_id"],
        "broker_order_id": f"successor-{stop.pk}",
        "quantity": D(7),
    }
    gone = f.report_of(stop, S.REPLACED, executions=[first])
    return [
        f.report_of(stop, S.WORKING, executions=[first]),
        replace(gone, replaced_by=successor["broker_order_id"]),
        replace(f.report_of(stop, S.WORKING), **successor),
        replace(f.report_of(stop, S.FILLED, executions=[last]), **successor),
    ]


def test_a_stop_that_is_moved_while_it_fills_and_a_person_leaves_sells_everything_once():
    chance = random.Random(11)
    for _ in range(ROUNDS):
        position, stop = at_rest(market())
        request_replace(order_id=stop.pk, now=f.utc_now(), actor="test", stop_price=D("99.5"))
        stop = f.read_again(stop)
        news = news_of_a_move(stop)
        told = [chance.sample(news, len(news)) for _ in range(2)]
        ends = at_once(
            *(partial(tell, stop.account_id, reports) for reports in told),
            partial(leave, position),
            partial(advance, now=f.utc_now()),
        )
        assert errors_among(ends) == []
        assert f.read_again(position).reserved == bound_of(position)
        tell(stop.account_id, news)
        advance(now=f.utc_now())
        advance(now=f.utc_now())
        left = f.read_again(position)
        assert (left.status, left.exited, left.reserved) == ("closed", D(10), D(0))
        assert not Order.objects.filter(position=position, state__in=LIVE).exists()


def test_a_holding_that_is_sold_outside_while_stop_and_person_leave_it_is_left_by_nobody_twice():
    account = f.make_account()
    for _ in range(ROUNDS):
        f.set_quote("100")
        position = f.hold(account=account)
        f.push_price("98")
        gone = Difference(
            kind=Kind.CLOSED_OUTSIDE,
            key="holding:AAPL",
            symbol="AAPL",
            figures={"here": "10", "there": "0"},
            position_ids=(position.pk,),
        )
        follow = partial(follow_reduction, gone, account_id=account.pk, now=f.utc_now(), actor="test")
        ends = at_once(
            follow,
            partial(leave, position),
            partial(scan, now=f.utc_now(), everything=True),
            partial(advance, now=f.utc_now()),
        )
        assert errors_among(ends) == []
        follow()
        advance(now=f.utc_now())
        left = f.read_again(position)
        assert (left.status, left.exited, left.reserved, bound_of(position)) == ("closed", D(10), D(0), D(0))
        assert not Order.objects.filter(position=position, state__in=LIVE).exists()
