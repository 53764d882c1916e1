"""Claim, call, settle: who may send, what is asked first, and what each answer makes of the order."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection

import orders.submit
from alerts.models import Alert
from orders.brokers.protocol import ReportedState
from orders.brokers.registry import connect
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused
from orders.limits import CALL_SECONDS, LEASE_SECONDS
from orders.models import Order
from orders.outcomes import settle_failure
from orders.submit import claim, settle, submit
from orders.sync import due_orders
from positions.models import Account, Position
from positions.values import TradingState
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, client_ids, to

D = Decimal
pytestmark = pytest.mark.django_db


def send(order, broker, *, later=0):
    """Submit one order as a worker would, `later` seconds from now by the worker's clock."""
    return submit(
        order_ids=[order.pk], worker="w", connect=to(broker), clock=lambda: f.utc_now() + timedelta(seconds=later)
    )


def send_one(claimed, broker):
    """Make the call of one claimed order."""
    return orders.submit.send(claimed, lambda _account_id: broker, f.utc_now)


def due_again(order):
    """Let the waits and the lease of an order be over."""
    past = f.utc_now() - timedelta(seconds=60)
    Order.objects.filter(pk=order.pk, next_attempt_at__isnull=False).update(next_attempt_at=past)
    Order.objects.filter(pk=order.pk, lease_until__isnull=False).update(lease_until=past)


# -- the claim


def test_a_claim_takes_an_order_once():
    order = f.exit_order(f.hold())
    (claimed,) = claim(order_ids=[order.pk], worker="one")
    assert (claimed.order_id, claimed.epoch, claimed.request.quantity) == (order.pk, 1, D(10))
    assert claim(order_ids=[order.pk], worker="two") == []
    assert f.read_again(order).claimed_by == "one"


def test_a_lease_is_counted_on_the_database_clock():
    order = f.exit_order(f.hold())
    claim(order_ids=[order.pk], worker="one")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM orders_order WHERE id = %s", [order.pk]
        )
        (left,) = cursor.fetchone()
    assert LEASE_SECONDS - 2 < left <= LEASE_SECONDS


def test_a_lease_that_ran_out_is_taken_over_with_a_higher_epoch():
    order = f.exit_order(f.hold())
    claim(order_ids=[order.pk], worker="one")
    due_again(order)
    (claimed,) = claim(order_ids=[order.pk], worker="two")
    assert claimed.epoch == 2
    assert claimed.maybe_sent_at is not None


def test_the_look_up_before_another_try_names_the_symbol():
    order = f.exit_order(f.hold())
    claim(order_ids=[order.pk], worker="one")
    due_again(order)
    (claimed,) = claim(order_ids=[order.pk], worker="two")
    broker = ScriptedBroker()
    orders.submit.send(claimed, lambda _account_id: broker, f.utc_now)
    assert broker.asked_symbols == ["AAPL"]  # some venues file orders under it


@pytest.mark.parametrize("state", ["submitted", "partially_filled", "cancel_requested", "filled", "cancelled"])
def test_what_the_broker_has_or_has_ended_is_never_claimed(state):
    position = f.hold()
    ended = f.utc_now() if state in ("filled", "cancelled") else None
    filled = D(1) if state == "filled" else D(0)
    order = f.raw_order(position, state=state, ended_at=ended, filled_quantity=filled)
    assert claim(order_ids=[order.pk], worker="w") == []


def test_an_order_is_not_claimed_before_its_time():
    order = f.exit_order(f.hold(), not_before=f.utc_now() + timedelta(seconds=30))
    assert claim(order_ids=[order.pk], worker="w") == []
    assert f.read_again(order).state == "pending"


def test_the_most_urgent_leaves_first():
    position = f.hold()
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="50")
    stop = f.exit_order(position)
    broker = ScriptedBroker()
    claimed = claim(order_ids=[target.pk, stop.pk], worker="w")
    assert [one.order_id for one in claimed] == [stop.pk, target.pk]
    assert broker.sent == []


@pytest.mark.parametrize(
    ("_case", "state", "entry", "target", "stop", "emergency"),
    [
        ("active: all", TradingState.ACTIVE, True, True, True, True),
        ("reduce only: exits", TradingState.REDUCE_ONLY, False, True, True, True),
        ("halted: what a person pressed", TradingState.HALTED, False, False, False, True),
    ],
)
def test_the_kill_switch_is_read_by_the_claim(_case, state, entry, target, stop, emergency):
    account = f.make_account()
    wanted = {}
    order = f.entry_order(account=account, symbol="IBM")
    wanted[order.pk] = entry
    for reason, sent in (("take_profit_1", target), ("stop_loss", stop), ("emergency", emergency)):
        wanted[f.exit_order(f.hold(account=account), reason=reason).pk] = sent
    Account.objects.update(trading_state=state)
    claimed = {one.order_id for one in claim(order_ids=list(wanted), worker="w")}
    assert claimed == {pk for pk, sent in wanted.items() if sent}
    assert set(Order.objects.filter(state="pending").values_list("pk", flat=True)) == set(wanted) - claimed


def test_the_sweep_does_not_ring_for_what_the_switch_holds_back():
    account = f.make_account()
    position = f.hold(account=account)
    f.exit_order(position, fraction_pct="50")
    emergency = f.exit_order(position, reason="emergency")
    Account.objects.update(trading_state=TradingState.HALTED)
    assert due_orders(now=f.utc_now()) == [(emergency.pk, "emergency")]


# -- the call


def test_an_order_goes_out_once_and_a_second_delivery_sends_nothing():
    order, broker = f.exit_order(f.hold()), ScriptedBroker()
    assert send(order, broker) == 1
    assert send(order, broker) == 0
    assert client_ids(broker.sent) == [order.client_order_id]
    kept = f.read_again(order)
    assert (kept.state, kept.broker_order_id, kept.lease_until) == ("submitted", f"at-{order.client_order_id}", None)


def test_a_first_try_is_not_looked_up():
    order, broker = f.exit_order(f.hold()), ScriptedBroker()
    send(order, broker)
    assert broker.asked == []


def test_whoever_takes_over_asks_first_and_sends_nothing_when_it_is_there():
    order = f.exit_order(f.hold())
    claim(order_ids=[order.pk], worker="killed after the broker had accepted")
    due_again(order)
    broker = ScriptedBroker(finds=[f.report_of(order)])
    assert send(order, broker) == 1
    assert (broker.asked, broker.sent) == ([order.client_order_id], [])
    assert f.read_again(order).state == "submitted"


def test_what_is_not_found_is_sent_again_under_the_same_id_only_after_the_settle_window():
    order = f.exit_order(f.hold())
    broker = ScriptedBroker(submits=[OutcomeUnknown("no answer")], settle_after=3.0)
    send(order, broker)
    assert f.read_again(order).state == "unknown"
    due_again(order)
    send(order, broker)
    assert (f.read_again(order).state, len(broker.sent)) == ("unknown", 1), "sent inside the window"
    due_again(order)
    send(order, broker, later=4)
    assert client_ids(broker.sent) == [order.client_order_id] * 2
    assert f.read_again(order).state == "submitted"


def test_asking_too_early_does_not_move_the_settle_window():
    order = f.exit_order(f.hold())
    broker = ScriptedBroker(submits=[OutcomeUnknown("no answer")], settle_after=3.0)
    send(order, broker)
    first = f.read_again(order).maybe_sent_at
    due_again(order)
    send(order, broker, later=2)
    assert f.read_again(order).maybe_sent_at == first


def test_a_killed_worker_may_have_sent_until_its_lease_ended():
    order = f.exit_order(f.hold())
    claim(order_ids=[order.pk], worker="killed")
    Order.objects.filter(pk=order.pk).update(lease_until=f.utc_now() - timedelta(seconds=1))
    broker = ScriptedBroker(settle_after=3.0)
    send(order, broker)
    assert (f.read_again(order).state, broker.sent) == ("unknown", [])


@pytest.mark.parametrize(
    "failure",
    [
        NotSent("no connection"),
        NotSent("wait", retry_after=5.0),
        OutcomeUnknown("no answer"),
        AccountRefused("key revoked", permanent=True),
        ValueError("a defect of the adapter"),
    ],
)
def test_a_lookup_that_fails_proves_nothing_and_frees_nothing(failure):
    position = f.hold()
    order = f.exit_order(position)
    claim(order_ids=[order.pk], worker="killed")
    due_again(order)
    broker = ScriptedBroker(finds=[failure])
    send(order, broker, later=3600)
    kept = f.read_again(order)
    assert (kept.state, kept.reserved, kept.ended_at, broker.sent) == ("unknown", D(10), None, [])
    assert f.read_again(position).reserved == 10


def test_an_order_that_never_left_us_stays_so_while_the_broker_cannot_be_reached():
    order = f.exit_order(f.hold())
    broker = ScriptedBroker(submits=[NotSent("no connection")], finds=[NotSent("no connection")] * 2)
    for _ in range(3):
        send(order, broker)
        due_again(order)
        assert (f.read_again(order).state, f.read_again(order).maybe_sent_at) == ("pending", None)
    assert (len(broker.sent), Alert.objects.get().kind) == (1, "broker_unreachable")
    send(order, broker)
    assert (f.read_again(order).state, len(broker.asked)) == ("submitted", 3)


def test_a_defect_of_an_adapter_leaves_the_outcome_unknown():
    order, broker = f.exit_order(f.hold()), ScriptedBroker(submits=[ZeroDivisionError("adapter")])
    send(order, broker)
    assert f.read_again(order).state == "unknown"
    assert "ZeroDivisionError" in f.read_again(order).last_error


def test_no_call_begins_that_the_lease_may_not_outlast():
    order, broker = f.exit_order(f.hold()), ScriptedBroker()
    for _ in range(4):
        due_again(order)
        (claimed,) = claim(order_ids=[order.pk], worker="w")
        assert claimed.call_before - time.monotonic() <= LEASE_SECONDS - CALL_SECONDS
        settle([send_one(replace(claimed, call_before=time.monotonic() - 1), broker)], clock=f.utc_now)
        left = f.read_again(order)
        assert (left.state, left.maybe_sent_at, left.tries) == ("pending", None, 0)
    assert (broker.sent, Alert.objects.count()) == ([], 0)
    due_again(order)
    send(order, broker)
    assert (len(broker.sent), f.read_again(order).state) == (1, "submitted")


def test_an_exit_larger_than_what_remains_is_not_sent():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(reserved=0)
    Position.objects.filter(pk=position.pk).update(exited=4, reserved=0)
    broker = ScriptedBroker()
    send(order, broker)
    kept = f.read_again(order)
    assert (broker.sent, kept.state) == ([], "cancelled")
    assert Alert.objects.get().severity == "critical"


def test_an_exit_larger_than_what_remains_is_still_looked_up():
    position = f.hold()
    order = f.exit_order(position)
    claim(order_ids=[order.pk], worker="killed")
    due_again(order)
    Order.objects.filter(pk=order.pk).update(reserved=0)
    Position.objects.filter(pk=position.pk).update(exited=4, reserved=0)
    broker = ScriptedBroker(finds=[f.report_of(order)])
    send(order, broker)
    assert (f.read_again(order).state, broker.sent) == ("submitted", [])


def test_one_account_that_names_no_broker_does_not_hold_up_the_others():
    wrong = f.exit_order(f.hold(account=f.make_account(broker="nobody")))
    right = f.exit_order(f.hold())
    submit(order_ids=[wrong.pk, right.pk], worker="w", connect=connect, clock=f.utc_now)
    assert "names broker 'nobody'" in f.read_again(wrong).last_error
    assert (f.read_again(wrong).state, f.read_again(right).state) == ("pending", "pending")
    assert "Connection" in f.read_again(right).last_error


def test_no_transaction_is_open_while_the_broker_is_called(transactional_db):
    seen = []

    class Watching(ScriptedBroker):
        def submit(self, request):
            order = Order.objects.get(
                client_order_id=request.client_order_id
            )  # committed, or another session would not
            seen.append((order.state, connection.in_atomic_block))
            connection.close()
            return super().submit(request)

    order = f.exit_order(f.hold())
    send(order, Watching())
    assert seen == [("submitting", False)]


# -- the settlement


@pytest.mark.parametrize(
    "error", [NotSent("x"), OutcomeUnknown("x"), Refused("x", permanent=True), Refused("x", retry_after=1.0)]
)
def test_a_stale_claim_settles_nothing(error):
    order = f.exit_order(f.hold())
    (first,) = claim(order_ids=[order.pk], worker="paused")
    due_again(order)
    claim(order_ids=[order.pk], worker="took over")
    before = Order.objects.filter(pk=order.pk).values().get()
    assert settle_failure(order_id=order.pk, epoch=first.epoch, error=error, now=f.utc_now()) is None
    assert Order.objects.filter(pk=order.pk).values().get() == before
    assert Alert.objects.count() == 0


def test_a_failure_told_after_the_stream_said_accepted_changes_nothing():
    order = f.exit_order(f.hold())
    (claimed,) = claim(order_ids=[order.pk], worker="w")
    Order.objects.filter(pk=order.pk).update(state="submitted")
    error = Refused("no", permanent=True, kind=RefusalKind.INVALID)
    assert settle_failure(order_id=order.pk, epoch=claimed.epoch, error=error, now=f.utc_now()) is None
    assert f.read_again(order).state == "submitted"


def test_reports_and_failures_of_one_doorbell_are_settled_each_for_itself():
    orders = [f.exit_order(f.hold()) for _ in range(3)]
    by_id = {order.client_order_id: order for order in orders}

    class Mixed(ScriptedBroker):
        def submit(self, request):
            if by_id[request.client_order_id] is orders[1]:
                raise OutcomeUnknown("lost")
            return super().submit(request)

    submit(order_ids=[order.pk for order in orders], worker="w", connect=to(Mixed()), clock=f.utc_now)
    assert [f.read_again(order).state for order in orders] == ["submitted", "unknown", "submitted"]


def test_a_broker_that_answers_again_settles_its_alerts():
    order = f.exit_order(f.hold())
    broker = ScriptedBroker(submits=[NotSent("refused")] * 3)
    for _ in range(3):
        send(order, broker)
        due_again(order)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.resolved_at) == ("broker_unreachable", "critical", None)
    send(order, broker)
    assert f.read_again(order).state == "submitted"
    assert f.read_again(alert).resolved_at is not None


def test_a_found_order_that_already_filled_is_booked_from_the_lookup():
    position = f.hold()
    order = f.exit_order(position)
    claim(order_ids=[order.pk], worker="killed")
    due_again(order)
    broker = ScriptedBroker(finds=[f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10", "98.5")])])
    send(order, broker)
    assert f.read_again(order).state == "filled"
    closed = f.read_again(position)
    assert (closed.status, closed.realized_pnl, closed.reserved) == ("closed", D("-15"), D(0))


def test_nobody_starts_a_call_that_the_lease_may_not_outlast(monkeypatch):
    order, broker = f.exit_order(f.hold()), ScriptedBroker()
    monkeypatch.setattr("orders.submit.CALL_SECONDS", LEASE_SECONDS + 1)  # as if the claim were that old
    send(order, broker)
    assert broker.sent == []
    left = f.read_again(order)
    assert (left.state, left.tries, left.epoch) == ("pending", 0, 1)
    assert not Alert.objects.exists()

    monkeypatch.undo()
    due_again(order)
    send(order, broker)
    assert client_ids(broker.sent) == [order.client_order_id]
