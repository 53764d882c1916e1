"""Doorbells lost, repeated and reordered, and a broker that breaks in every way: one order there, one outcome here.

The truth is read from the ledger of the broker in a box, a process of its own, never from our tables alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.tasks import scan as scan_task
from orders.limits import HELD_ATTEMPTS
from orders.models import Fill, Order
from orders.tasks import submit_orders, sync_orders
from positions.models import Account, Position
from tests import factories as f
from tests.simulator.box import Box, eventually, start_box

D = Decimal
pytestmark = pytest.mark.django_db
POSTS = {"method": "POST", "path": "/v2/orders"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def box(running: Box) -> Box:
    """Return the simulator with ten AAPL held at 100, and nothing else."""
    running.control("POST", "/reset")
    return stocked(running)


def stocked(box: Box) -> Box:
    """Give the broker a price and a holding."""
    box.quote("AAPL", "98.90", "98.92")
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": "10", "avg_entry_price": "100"})
    return box


def exit_at(box: Box, *, secret: str = "", quantity: str = "10", **fields: Any) -> Order:
    """Decide to leave a position that is held at this broker."""
    account = f.make_account(url=box.url, key=box.key, secret=secret or box.secret)
    return f.exit_order(f.hold(account=account, quantity=quantity), **fields)


def break_with(box: Box, kind: str, **options: Any) -> None:
    """Install one rule."""
    box.control("POST", "/faults", {"kind": kind, **options})


def deliver(*orders: Order) -> int:
    """Run the task of one doorbell."""
    return submit_orders(order_ids=[order.pk for order in orders])


def let_time_pass(order: Order) -> None:
    """Move every wait of an order a minute into the past."""
    minute = timedelta(seconds=60)
    rows = Order.objects.filter(pk=order.pk)
    for name in ("next_attempt_at", "lease_until", "maybe_sent_at", "heard_at"):
        rows.filter(**{f"{name}__isnull": False}).update(**{name: F(name) - minute})


def until_filled(order: Order) -> Order:
    """Deliver, ask and follow up as the sweep does, until the order has filled."""

    def filled() -> Order | None:
        let_time_pass(order)
        deliver(order)
        Order.objects.filter(pk=order.pk).update(heard_at=None)
        sync_orders()
        kept: Order = f.read_again(order)
        return kept if kept.state == "filled" else None

    return eventually(filled, within=20)


def at_broker(box: Box, symbol: str = "AAPL") -> list[dict[str, Any]]:
    """Return every order the broker truly has."""
    orders: list[dict[str, Any]] = box.control("GET", f"/ledger?symbol={symbol}")["orders"]
    return orders


def held_at_broker(box: Box) -> list[tuple[str, str]]:
    """Return what the broker truly holds."""
    return [(held["symbol"], held["qty"]) for held in box.control("GET", "/ledger")["positions"] if held["qty"] != "0"]


def assert_left_once(box: Box, order: Order) -> None:
    """The broker has one order under our id, holds nothing any more, and our books say the same."""
    (there,) = at_broker(box)
    assert (there["client_order_id"], there["filled_qty"], there["status"]) == (order.client_order_id, "10", "filled")
    assert held_at_broker(box) == []
    position = f.read_again(order.position)
    assert (position.status, position.exited, position.reserved) == ("closed", D(10), D(0))
    assert Fill.objects.filter(order=order).count() == 1


# -- doorbells


def test_the_same_doorbell_three_times_is_one_order(box):
    order = exit_at(box)
    assert [deliver(order) for _ in range(3)] == [1, 0, 0]
    until_filled(order)
    assert_left_once(box, order)


def test_a_doorbell_with_ids_of_nobody_does_nothing(box):
    assert submit_orders(order_ids=[0, -1, 2**40]) == 0
    assert submit_orders(order_ids=[], added_by_a_later_release=True) == 0
    assert at_broker(box) == []


def test_an_old_doorbell_after_the_end_sends_nothing(box):
    order = exit_at(box)
    until_filled(order)
    let_time_pass(order)
    assert deliver(order) == 0
    assert_left_once(box, order)


def test_a_worker_that_wakes_up_after_another_finished_is_refused_by_the_broker(box):
    """The zombie holds a claim whose lease ran out; its POST carries the same id, so there is still one order."""
    from orders.brokers.registry import connect
    from orders.submit import claim, send, settle

    order = exit_at(box)
    (zombie,) = claim(order_ids=[order.pk], worker="zombie")
    until_filled(order)
    answer = send(zombie, connect([order.account_id]), f.utc_now)
    settle([answer], clock=f.utc_now)
    assert_left_once(box, order)


# -- a broker that breaks


@pytest.mark.parametrize(
    ("_case", "fault"),
    [
        ("the answer is lost", {"kind": "drop_after_accept"}),
        ("the request is lost", {"kind": "drop_before_accept"}),
        ("500 before", {"kind": "status", "status": 500}),
        ("502 after", {"kind": "status", "status": 502, "after_accept": True}),
        ("503 before", {"kind": "status", "status": 503}),
        ("504 after", {"kind": "status", "status": 504, "after_accept": True}),
    ],
)
def test_an_outcome_nobody_knows_is_looked_up_and_ends_as_one_order(box, _case, fault):
    order = exit_at(box)
    break_with(box, **fault, match=POSTS, count=1)
    deliver(order)
    lost = f.read_again(order)
    assert (lost.state, lost.reserved) == ("unknown", D(10))
    assert lost.maybe_sent_at is not None
    assert deliver(order) == 0, "sent again before its time"
    until_filled(order)
    assert_left_once(box, order)


def test_a_lost_request_is_not_sent_again_inside_the_settle_window(box):
    order = exit_at(box)
    break_with(box, "drop_before_accept", match=POSTS, count=1)
    deliver(order)
    Order.objects.filter(pk=order.pk).update(next_attempt_at=None)
    deliver(order)
    assert (f.read_again(order).state, f.read_again(order).epoch) == ("unknown", 2)
    assert at_broker(box) == []


def test_the_lookup_that_fails_sends_nothing(box):
    order = exit_at(box)
    break_with(box, "drop_after_accept", match=POSTS, count=1)
    deliver(order)
    break_with(box, "status", status=500, match={"method": "GET"}, count=2)
    for _ in range(2):
        let_time_pass(order)
        deliver(order)
        assert f.read_again(order).state == "unknown"
        assert len(at_broker(box)) == 1
    until_filled(order)
    assert_left_once(box, order)


def test_too_many_requests_waits_as_told_and_spends_no_try(box):
    order = exit_at(box)
    break_with(box, "status", status=429, retry_after=7, match=POSTS, count=5)
    for _ in range(5):
        deliver(order)
        waiting = f.read_again(order)
        assert (waiting.state, waiting.tries, waiting.reserved) == ("pending", 0, D(10))
        assert 5 < (waiting.next_attempt_at - f.utc_now()).total_seconds() <= 7
        let_time_pass(order)
    until_filled(order)
    assert_left_once(box, order)


def test_the_rest_of_a_part_filled_exit_follows_on_the_same_order(box):
    order = exit_at(box)
    break_with(box, "partial_fill", fraction="0.4", seconds=0.3, count=1)
    deliver(order)

    def part() -> bool:
        Order.objects.filter(pk=order.pk).update(heard_at=None)
        sync_orders()
        return f.read_again(order).filled_quantity == 4

    eventually(part)
    held = f.read_again(order.position)
    assert (held.remaining, held.reserved) == (D(6), D(6))
    until_filled(order)
    (there,) = at_broker(box)
    assert (there["filled_qty"], held_at_broker(box)) == ("10", [])
    assert Fill.objects.filter(order=order).count() == 2
    assert f.read_again(order.position).status == "closed"


def test_what_the_broker_rejects_goes_out_again_under_a_new_id(box):
    order = exit_at(box)
    break_with(box, "reject", count=1)
    deliver(order)

    def rejected() -> bool:
        Order.objects.filter(pk=order.pk).update(heard_at=None)
        sync_orders()
        return f.read_again(order).state == "rejected"

    eventually(rejected)
    advance(now=f.utc_now())
    again = Order.objects.get(retry_of=order)
    until_filled(again)
    assert [there["status"] for there in at_broker(box)] == ["rejected", "filled"]
    assert held_at_broker(box) == []
    assert f.read_again(order.position).status == "closed"


def test_a_broker_killed_in_the_middle_knows_the_order_when_it_is_back(tmp_path):
    box = start_box(tmp_path)
    try:
        stocked(box)
        order = exit_at(box)
        break_with(box, "drop_after_accept", match=POSTS, count=1)
        deliver(order)
        box.kill()
        let_time_pass(order)
        deliver(order)
        assert f.read_again(order).state == "unknown", "a lookup that cannot be made freed the order"
        box.start()
        box.quote("AAPL", "98.90", "98.92")
        until_filled(order)
        assert_left_once(box, order)
    finally:
        box.stop()


def test_a_broker_that_is_away_is_tried_for_ever_and_calls_a_person(tmp_path):
    box = start_box(tmp_path)
    try:
        stocked(box)
        order = exit_at(box)
        box.stop()
        for _ in range(6):
            deliver(order)
            let_time_pass(order)
        waiting = f.read_again(order)
        assert (waiting.tries, waiting.reserved, waiting.ended_at) == (0, D(10), None)
        alert = Alert.objects.get()
        assert (alert.kind, alert.severity) == ("broker_unreachable", "critical")
        box.start()
        box.quote("AAPL", "98.90", "98.92")
        until_filled(order)
        assert_left_once(box, order)
        assert f.read_again(alert).resolved_at is not None
    finally:
        box.stop()


def test_a_refused_key_calls_a_person_and_spares_the_other_accounts(box):
    wrong = exit_at(box, secret="revoked")
    right = exit_at(box)
    deliver(wrong, right)
    until_filled(right)
    refused = f.read_again(wrong)
    assert (refused.state, refused.reserved, refused.tries) == ("pending", D(10), 0)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.account_ref) == ("account_refused", "critical", wrong.account_id)
    assert "revoked" not in f"{alert.message} {refused.last_error}"
    assert_left_once(box, right)
    account = wrong.account
    account.credentials, account.updated_at = {"key": box.key, "secret": box.secret}, f.utc_now()
    account.save()
    until_filled(wrong)
    assert f.read_again(alert).resolved_at is not None


def test_a_key_refused_while_the_outcome_is_unknown_does_not_free_the_order(box):
    order = exit_at(box)
    break_with(box, "drop_after_accept", match=POSTS, count=1)
    deliver(order)
    Account.objects.filter(pk=order.account_id).update(
        credentials={"key": box.key, "secret": "revoked"}, updated_at=f.utc_now()
    )
    let_time_pass(order)
    deliver(order)
    assert (f.read_again(order).state, f.read_again(order).reserved) == ("unknown", D(10))
    assert len(at_broker(box)) == 1


def test_credentials_no_key_opens_hold_up_only_their_own_account(box):
    sealed, right = exit_at(box), exit_at(box)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE positions_account SET credentials = 'garbage' WHERE id = %s", [sealed.account_id])
    deliver(sealed, right)
    until_filled(right)
    waiting = f.read_again(sealed)
    assert (waiting.state, waiting.tries, waiting.reserved) == ("pending", 0, D(10))
    assert "EXITMGR_KEYS" in waiting.last_error


def test_what_is_held_by_another_order_at_the_broker_is_tried_again_and_then_given_up_with_an_alert(box):
    resting = {"symbol": "AAPL", "qty": "10", "side": "sell", "type": "limit", "limit_price": "200"}
    assert box.api("POST", "/v2/orders", {**resting, "time_in_force": "gtc"})[0] == 200
    order = exit_at(box)
    waits = [(number, 0) for number in range(1, HELD_ATTEMPTS + 1)]
    for held, tries in [*waits, (HELD_ATTEMPTS, 1), (HELD_ATTEMPTS, 2)]:
        deliver(order)
        kept = f.read_again(order)
        assert (kept.state, kept.held_tries, kept.tries) == ("pending", held, tries)
        let_time_pass(order)
    assert Alert.objects.get().kind == "order_held"
    deliver(order)
    assert f.read_again(order).state == "cancelled"
    assert set(Alert.objects.values_list("kind", flat=True)) == {"order_held", "exit_failed"}
    assert len(at_broker(box)) == 1


def test_from_a_price_to_a_closed_position_by_tasks_alone(box):
    f.set_quote("100")
    account = f.make_account(url=box.url, key=box.key, secret=box.secret)
    position = f.hold(account=account)
    f.push_price("98.90", "98.92")
    for _ in range(2):  # each task is delivered twice
        scan_task()
    order = Order.objects.get(position=position)
    until_filled(order)
    for _ in range(2):
        advance(now=f.utc_now())
    assert_left_once(box, order)
    closed = Position.objects.get(pk=position.pk)
    assert (closed.realized_pnl, closed.exit_reason, f.bracket_of(position).status) == (
        D("-11"), "stop_loss", "completed",
    )  # fmt: skip
