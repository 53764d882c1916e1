"""Many at the same moment: threads with sessions of their own on the real database, and one outcome."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial

import pytest
from django.db import connection, transaction

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.entries import EntryRefused
from exitmgr.exits import AlreadyExiting, request_exit
from exitmgr.models import Bracket, Trigger
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Fill, Order
from orders.submit import claim, submit
from orders.sync import due_orders
from orders.updates import apply_reports
from positions.locks import lock_position
from positions.models import Position, Quote
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, client_ids, to
from tests.races.crowd import at_once
from tests.simulator.box import eventually

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db(transaction=True)


def test_eight_ask_for_one_exit_and_one_gets_it():
    position = f.hold()
    ends = at_once(*[partial(request_exit, position_id=position.pk, now=f.utc_now(), actor=f"p{n}") for n in range(8)])
    orders = [end for end in ends if isinstance(end, Order)]
    assert len(orders) == 1
    assert [type(end) for end in ends if end is not orders[0]] == [AlreadyExiting] * 7
    assert list(Order.objects.values_list("pk", "quantity")) == [(orders[0].pk, D(10))]
    assert (f.read_again(position).reserved, f.read_again(position).exit_seq) == (D(10), 1)


def test_two_scanners_of_the_same_prices_make_one_exit_each_trigger():
    f.set_quote("100")
    positions = [f.hold() for _ in range(20)]
    f.push_price("98.90")
    ends = at_once(*[partial(scan, now=f.utc_now(), everything=True) for _ in range(4)])
    assert sum(end.orders for end in ends) == 20, ends
    assert Order.objects.count() == 20
    assert {f.read_again(position).reserved for position in positions} == {D(10)}
    assert set(Trigger.objects.filter(reason="stop_loss").values_list("status", flat=True)) == {"fired"}


def test_a_scan_passes_over_prices_another_scan_holds():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.90")
    with transaction.atomic():
        Quote.objects.select_for_update().get(instrument=position.instrument)
        (end,) = at_once(partial(scan, now=f.utc_now()))
        assert (end.symbols, end.orders) == (0, 0)
    assert scan(now=f.utc_now()).orders == 1


def scan_while_held(position, change):
    """Let a scan find a breach while the position is locked, change its triggers under the lock, and return its end."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        with transaction.atomic():
            lock_position(position.pk)
            waiting = pool.submit(at_once, partial(scan, now=f.utc_now()))
            eventually(someone_waits_for_a_lock)
            change(Trigger.objects.filter(position=position, reason="stop_loss"))
        (end,) = waiting.result(timeout=10)
    return end


def someone_waits_for_a_lock():
    """Return whether a session waits for another one's lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0] > 0


def test_a_level_that_moves_away_while_the_scan_waits_does_not_fire():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.90")
    end = scan_while_held(position, lambda stops: stops.update(level=D("89.1")))
    assert end.orders == 0
    assert (Order.objects.count(), f.triggers_of(position)["stop_loss"]) == (0, "armed")


def test_a_trigger_cancelled_while_the_scan_waits_neither_fires_nor_spoils_the_scan():
    f.set_quote("100")
    position, other = f.hold(), f.hold()
    f.push_price("98.90")
    end = scan_while_held(position, lambda stops: stops.update(status="cancelled"))
    assert end.orders == 1
    assert list(Order.objects.values_list("position_id", flat=True)) == [other.pk]


def test_a_stop_and_a_person_at_the_same_moment():
    account = f.make_account()
    for round_number in range(25):
        f.set_quote("100")
        position = f.hold(account=account, plan={"stop_loss": {"pct": "1"}})
        f.push_price("98.90")
        scanned, asked = at_once(
            partial(scan, now=f.utc_now()),
            partial(request_exit, position_id=position.pk, now=f.utc_now(), actor="ann"),
        )
        (order,) = Order.objects.filter(position=position)
        stop = Trigger.objects.get(position=position)
        assert (order.quantity, f.read_again(position).reserved) == (D(10), D(10))
        if order.reason == "manual":
            assert (scanned.orders, stop.status) == (0, "breached"), round_number
        else:
            assert (scanned.orders, stop.status, type(asked)) == (1, "fired", AlreadyExiting), round_number


def test_two_workers_with_the_same_ids_claim_each_order_once():
    orders = [f.exit_order(f.hold()) for _ in range(30)]
    ids = [order.pk for order in orders]
    ends = at_once(*[partial(claim, order_ids=ids, worker=f"w{n}") for n in range(4)])
    claimed = [one.order_id for end in ends for one in end]
    assert sorted(claimed) == ids
    assert set(Order.objects.values_list("epoch", "state")) == {(1, "submitting")}


def test_a_doorbell_delivered_four_times_at_once_sends_each_order_once():
    orders = [f.exit_order(f.hold()) for _ in range(10)]
    broker = ScriptedBroker()
    ids = [order.pk for order in orders]
    at_once(
        *[
            partial(submit, order_ids=random.Random(n).sample(ids, 10), worker="w", connect=to(broker), clock=f.utc_now)
            for n in range(4)
        ]
    )
    assert sorted(client_ids(broker.sent)) == sorted(order.client_order_id for order in orders)
    assert set(Order.objects.values_list("state", flat=True)) == {"submitted"}


def test_two_sweeps_hand_each_order_out_once():
    orders = [f.exit_order(f.hold()) for _ in range(20)]
    ends = at_once(*[partial(due_orders, now=f.utc_now()) for _ in range(4)])
    assert sorted(pk for end in ends for pk, _ in end) == [order.pk for order in orders]


def books_of(positions):
    """Return what must not depend on who told what first."""
    return [
        Position.objects.filter(pk=position.pk)
        .values_list("status", "quantity", "exited", "reserved", "entry_cost", "exit_value", "fees", "realized_pnl")
        .get()
        for position in positions
    ]


def story_of(order, executions):
    """Return all the reports an order makes, each of its fills apart and then all of them together."""
    apart = [
        f.report_of(order, executions=[execution], filled=str(f.sum_of(executions[: number + 1])))
        for number, execution in enumerate(executions)
    ]
    return [f.report_of(order), *apart, f.report_of(order, S.FILLED, executions=executions)]


def test_four_tellers_of_the_same_shuffled_reports_book_what_one_would_in_order():
    account = f.make_account()
    prices = ("99.10", "99.05", "98.95")

    def tell(reports):
        return apply_reports(account_id=account.pk, reports=reports, now=f.utc_now())

    def stories():
        orders = [f.exit_order(f.hold(account=account)) for _ in range(4)]
        told = [
            story_of(
                order, [f.fill_of(quantity, price, fee="0.02") for quantity, price in zip("352", prices, strict=True)]
            )
            for order in orders
        ]
        return orders, told

    ordered, told = stories()
    for story in told:
        for report in story:
            tell([report])
    expected = books_of([order.position for order in ordered])

    raced, told = stories()
    flat = [report for story in told for report in story]

    def tell_all(seed):
        chance = random.Random(seed)
        mine = chance.sample(flat, len(flat)) + chance.sample(flat, 5)
        while mine:
            size = chance.randint(1, 6)
            tell(mine[:size])
            mine = mine[size:]

    ends = at_once(*[partial(tell_all, seed) for seed in range(4)])
    assert ends == [None] * 4
    assert books_of([order.position for order in raced]) == expected
    assert Fill.objects.filter(order__in=raced).count() == 12
    assert Event.objects.filter(kind="order_fill", order_ref__in=[order.pk for order in raced]).count() == 12
    assert Alert.objects.count() == 0


def test_an_entry_whose_fills_are_told_by_four_at_once_is_one_position():
    entry = f.entry_order()
    fills = [f.fill_of("2", "100") for _ in range(5)]
    reports = [f.report_of(entry, executions=[one], filled="10") for one in fills]

    def tell(seed):
        for report in random.Random(seed).sample(reports, 5):
            apply_reports(account_id=entry.account_id, reports=[report], now=f.utc_now())

    assert at_once(*[partial(tell, seed) for seed in range(4)]) == [None] * 4
    position = Position.objects.get()
    assert (position.quantity, position.entry_cost, Fill.objects.count()) == (D(10), D(1000), 5)
    assert f.read_again(entry).filled_quantity == 10


def test_three_who_follow_up_the_same_news_do_it_once():
    account = f.make_account()
    closing = [f.exit_order(f.hold(account=account)) for _ in range(6)]
    failing = [f.exit_order(f.hold(account=account)) for _ in range(6)]
    apply_reports(
        account_id=account.pk,
        reports=[
            *[f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")]) for order in closing],
            *[f.report_of(order, S.CANCELLED, executions=[f.fill_of("4", "99")]) for order in failing],
        ],
        now=f.utc_now(),
    )
    ends = at_once(*[partial(advance, now=f.utc_now()) for _ in range(3)])
    assert sum(ends) == 12, ends
    assert set(Bracket.objects.filter(position__status="closed").values_list("status", flat=True)) == {"completed"}
    again = Order.objects.filter(attempt=2)
    assert sorted(again.values_list("retry_of_id", flat=True)) == [order.pk for order in failing]
    assert set(again.values_list("quantity", flat=True)) == {D(6)}
    assert Event.objects.filter(kind="bracket_completed").count() == 6


def test_entries_that_come_together_do_not_pass_the_accounts_limit_together():
    account = f.make_account(max_open_positions=3)
    f.make_instrument()
    ends = at_once(*[partial(f.entry_order, account=account, request_id=f"r{n}") for n in range(8)])
    assert len([end for end in ends if isinstance(end, Order)]) == 3
    assert len([end for end in ends if isinstance(end, EntryRefused)]) == 5
    assert Order.objects.count() == 3


def test_the_same_request_from_eight_at_once_is_one_entry():
    account = f.make_account()
    f.make_instrument()
    ends = at_once(*[partial(f.entry_order, account=account, request_id="same") for _ in range(8)])
    assert len([end for end in ends if isinstance(end, Order)]) == 1
    assert len([end for end in ends if isinstance(end, EntryRefused)]) == 7
    assert (Order.objects.count(), Bracket.objects.count()) == (1, 1)


def test_fills_and_a_new_exit_at_the_same_moment_never_sell_more_than_is_held():
    account = f.make_account()
    for _ in range(20):
        position = f.hold(account=account)
        order = f.exit_order(position, reason="take_profit_1", fraction_pct="50")
        report = f.report_of(order, S.FILLED, executions=[f.fill_of("5", "102")])
        at_once(
            partial(apply_reports, account_id=account.pk, reports=[report], now=f.utc_now()),
            partial(request_exit, position_id=position.pk, now=f.utc_now(), actor="ann"),
            partial(apply_reports, account_id=account.pk, reports=[report], now=f.utc_now()),
        )
        rest = Order.objects.get(position=position, reason="manual", waits=False)
        assert (rest.quantity, f.read_again(position).exited, f.read_again(position).reserved) == (D(5), D(5), D(5))
