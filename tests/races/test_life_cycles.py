"""Exits that cross each other and the news of them: whoever comes first, the sums agree and nothing is sold twice."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
from django.db import connection
from django.db.models import Q, Sum

from exitmgr.advance import advance
from exitmgr.exits import AlreadyExiting, request_exit
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.cancel import NotCancellable, request_cancel
from orders.models import Fill, Order
from orders.states import LIVE
from orders.updates import apply_reports
from tests import factories as f
from tests.factories import D

S = ReportedState
#: Each finds another order of events; more of them find rarer ones.
ROUNDS = int(os.environ.get("EXITMGR_RACE_ROUNDS", "100"))
pytestmark = pytest.mark.django_db(transaction=True)


class Ring:
    """Threads that keep their sessions from round to round and start each round together."""

    def __init__(self, size):
        self.size, self.pool = size, ThreadPoolExecutor(max_workers=size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        together = Barrier(self.size)
        for end in [self.pool.submit(lambda: (together.wait(10), connection.close())) for _ in range(self.size)]:
            end.result()
        self.pool.shutdown()

    def at_once(self, *calls):
        """Return what each call returned or raised."""
        together = Barrier(len(calls))

        def run(call):
            together.wait(10)
            try:
                return call()
            except (AlreadyExiting, NotCancellable) as error:
                return error

        return [end.result(timeout=30) for end in [self.pool.submit(run, call) for call in calls]]


def sums_of(position):
    """Return what is held, sold and bound as the position says it, and as its orders and fills do."""
    position = f.read_again(position)
    orders = Order.objects.filter(position=position, intent="exit")
    sold = Fill.objects.filter(order__in=orders).aggregate(sum=Sum("quantity"))["sum"] or D(0)
    bound = orders.filter(state__in=LIVE).aggregate(sum=Sum("reserved"))["sum"] or D(0)
    return (position.exited, position.reserved), (sold, bound)


def working(position, reason, fraction_pct="100"):
    """Return an exit that works at the broker."""
    order = f.exit_order(position, reason=reason, fraction_pct=fraction_pct)
    apply_reports(account_id=order.account_id, reports=[f.report_of(order)], now=f.utc_now())
    return order


def something_waits(position):
    """Return whether there is news to be worked off, or an exit that waits for its turn."""
    orders = Order.objects.filter(position=position).filter(Q(news=True) | Q(waits=True))
    return orders.exists() or position.triggers.filter(status="breached").exists()


def play_out(position, chance):
    """Let the broker confirm every cancel, some after a last fill, and fill everything else, until all is over."""
    for _ in range(12):
        advance(now=f.utc_now())
        live = list(Order.objects.filter(position=position, state__in=LIVE, waits=False))
        for order in live:
            rest = order.quantity - order.filled_quantity
            if order.state == "cancel_requested" and chance.random() < 0.7:
                part = min(rest, D(chance.randint(0, 2)))
                fills = [f.fill_of(str(part))] if 0 < part < rest else []
                told = order.filled_quantity + f.sum_of(fills)
                report = f.report_of(order, S.CANCELLED, executions=fills, filled=str(told))
            else:
                report = f.report_of(order, S.FILLED, executions=[f.fill_of(str(rest))], filled=str(order.quantity))
            apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
        if not live and not something_waits(position):
            return
    raise AssertionError("it does not come to an end")


def test_a_stop_and_a_person_while_a_target_works():
    account, chance = f.make_account(), random.Random(7)
    plan = {"stop_loss": {"pct": "1"}}
    with Ring(2) as ring:
        for number in range(ROUNDS):
            f.set_quote("100")
            position = f.hold(account=account, plan=plan)
            if number % 2:
                working(position, "take_profit_1", fraction_pct=chance.choice(["30", "100"]))
            f.push_price("98.90")
            ring.at_once(
                partial(scan, now=f.utc_now(), everything=True),
                partial(request_exit, position_id=position.pk, now=f.utc_now(), actor="ann"),
            )
            said, counted = sums_of(position)
            assert said == counted, number
            if number % 10 == 0 or number % 10 == 1:
                play_out(position, chance)
                assert sums_of(position) == ((D(10), D(0)), (D(10), D(0))), number
                assert f.read_again(position).status == "closed", number


def test_an_emergency_against_fills_and_a_stop():
    account, chance = f.make_account(), random.Random(11)
    with Ring(3) as ring:
        for number in range(40):
            f.set_quote("100")
            position = f.hold(account=account, plan={"stop_loss": {"pct": "1"}})
            target = working(position, "take_profit_1", fraction_pct="60")
            f.push_price("98.90")
            filled = f.report_of(target, executions=[f.fill_of("2", "102")])
            ring.at_once(
                partial(scan, now=f.utc_now(), everything=True),
                partial(request_exit, position_id=position.pk, now=f.utc_now(), actor="ann", reason="emergency"),
                partial(apply_reports, account_id=account.pk, reports=[filled], now=f.utc_now()),
            )
            said, counted = sums_of(position)
            assert said == counted, number
            play_out(position, chance)
            assert sums_of(position) == ((D(10), D(0)), (D(10), D(0))), number
            assert f.read_again(position).status == "closed", number


def test_a_fill_that_overtakes_its_acknowledgement_and_crosses_a_cancel():
    account = f.make_account()
    with Ring(4) as ring:
        for number in range(60):
            position = f.hold(account=account)
            order = f.exit_order(position)
            Order.objects.filter(pk=order.pk).update(state="submitting")
            fills = [f.fill_of("4", "99"), f.fill_of("6", "98")]
            reports = [
                f.report_of(order),
                f.report_of(order, executions=fills[:1], filled="4"),
                f.report_of(order, S.FILLED, executions=fills),
            ]
            chance = random.Random(number)
            ring.at_once(
                *[
                    partial(apply_reports, account_id=account.pk, reports=[report], now=f.utc_now())
                    for report in chance.sample(reports, 3)
                ],
                partial(request_cancel, order_id=order.pk, now=f.utc_now(), actor="ann"),
            )
            assert f.read_again(order).state == "filled", number
            assert sums_of(position) == ((D(10), D(0)), (D(10), D(0))), number


def test_an_order_given_up_for_late_fills_as_it_is_called_off():
    account = f.make_account()
    with Ring(3) as ring:
        for number in range(40):
            position = f.hold(account=account)
            order = working(position, "stop_loss")
            report = f.report_of(order, S.CANCELLED, executions=[f.fill_of("4", "99")])
            request_cancel(order_id=order.pk, now=f.utc_now(), actor="exitmgr", cancel_for="overdue")
            ring.at_once(
                partial(apply_reports, account_id=account.pk, reports=[report], now=f.utc_now()),
                partial(advance, now=f.utc_now()),
                partial(advance, now=f.utc_now()),
            )
            advance(now=f.utc_now())
            made = list(Order.objects.filter(position=position).order_by("pk").values_list("attempt", "quantity"))
            assert made == [(1, D(10)), (2, D(6))], number
            assert sums_of(position) == ((D(4), D(6)), (D(4), D(6))), number
