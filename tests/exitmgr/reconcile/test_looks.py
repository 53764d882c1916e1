"""Looking at an account at the simulated broker: what was changed outside is followed, told, frozen or left alone."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.models import Difference, Heartbeat
from exitmgr.reconcile.differences import Kind
from exitmgr.reconcile.freezing import NotFrozen, release_position
from exitmgr.reconcile.looks import LookRefused, due_accounts, look_once, reconcile_account, ring_for_due_accounts
from exitmgr.reconcile.outside_trades import follow_reduction
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.brokers.registry import connect
from orders.models import Fill, Order
from orders.submit import submit
from orders.updates import apply_reports
from positions.models import Instrument, Position
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


def there(box, quantity, average="100", symbol="AAPL"):
    """Let the broker hold this, with no order."""
    box.control("POST", "/positions", {"symbol": symbol, "qty": quantity, "avg_entry_price": average})


def kinds(seen):
    """Return the kinds of what a look saw."""
    return [one.difference.kind for one in seen]


def send(order):
    """Send an order to the broker."""
    submit(order_ids=[order.pk], worker="test", connect=connect, clock=f.utc_now)


def open_alerts():
    """Return the kinds of unresolved alerts."""
    return sorted(Alert.objects.filter(resolved_at__isnull=True).values_list("kind", flat=True))


def test_books_that_agree_say_nothing(box, account, look):
    f.hold(account=account)
    there(box, "10")
    assert look() == []
    assert (Difference.objects.count(), Alert.objects.count()) == (0, 0)


def test_nothing_is_done_before_a_difference_has_stood_still(box, account, look):
    position = f.hold(account=account)
    assert kinds(look()) == [Kind.CLOSED_OUTSIDE]
    assert kinds(look(later=4)) == [Kind.CLOSED_OUTSIDE]
    assert f.read_again(position).status == "open"
    there(box, "6")
    look(later=8)  # other figures: it is waited with anew
    assert f.read_again(position).remaining == 10
    look(later=14)
    assert f.read_again(position).remaining == 6


def test_what_was_closed_outside_is_closed_here(box, account, look):
    position = f.hold(account=account)
    f.set_quote("104")
    look()
    (seen,) = look(later=6)
    assert seen.done == f"took out 10 of position {position.pk}"
    position = f.read_again(position)
    assert (position.status, position.exit_reason, position.exited) == ("closed", "external", 10)
    assert position.realized_pnl == 40  # at the price that is known
    assert f.bracket_of(position).status == "completed"
    assert set(f.triggers_of(position).values()) == {"cancelled"}
    told = Event.objects.filter(position_ref=position.pk).values_list("kind", flat=True)
    assert {"position_reduced_outside", "position_closed", "difference_handled"} <= set(told)
    assert look(later=12) == []
    assert Difference.objects.get().resolved_at is not None
    assert open_alerts() == ["holding_changed_outside"]


def test_the_oldest_goes_first(box, account, look):
    first, second, third = (f.hold(account=account, quantity=quantity) for quantity in ("4", "5", "6"))
    there(box, "8")
    look()
    look(later=6)
    assert [f.read_again(one).remaining for one in (first, second, third)] == [0, 2, 6]
    assert [f.read_again(one).status for one in (first, second, third)] == ["closed", "partial_exit", "open"]
    assert look(later=12) == []


def test_exits_beyond_what_is_left_are_taken_back_the_least_urgent_first(box, account, look):
    position = f.hold(account=account)
    there(box, "10")
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="60")
    f.exit_order(f.read_again(position), reason="manual", fraction_pct="50")  # of the 4 that are free
    there(box, "5")
    look()
    look(later=6)
    position, target = f.read_again(position), f.read_again(target)
    manual = Order.objects.get(reason="manual")
    assert (position.remaining, position.reserved) == (5, 5)
    assert (manual.quantity, manual.reserved) == (2, 2)
    assert (target.quantity, target.reserved, target.state) == (3, 3, "pending")


def test_a_working_exit_beyond_what_is_left_is_called_off_at_the_broker(box, account, look):
    there(box, "10")
    position = f.hold(account=account)
    order = f.exit_order(position, reason="take_profit_1")
    Order.objects.filter(pk=order.pk).update(order_type="limit", limit_price=D(150))
    send(order)
    there(box, "4")
    look(later=10)
    look(later=16)
    order = f.read_again(order)
    assert (order.state, order.reserved) == ("cancel_requested", 4)
    assert f.read_again(position).reserved == 4


@pytest.mark.parametrize(("what", "alerts"), [("alert", ["books_differ"]), ("ignore", [])])
def test_an_unknown_holding_is_told_or_left_alone(box, look, adopting, what, alerts):
    adopting(what)
    there(box, "7", "50")
    look()
    look(later=6)
    look(later=12)
    assert Position.objects.count() == 0
    assert open_alerts() == alerts
    assert sum(Alert.objects.values_list("count", flat=True)) == len(alerts)  # once, however often it is seen
    there(box, "0")
    assert look(later=18) == []
    assert open_alerts() == []


def test_an_unknown_holding_is_adopted_with_the_default_plan(box, account, look, adopting):
    adopting("adopt")
    box.control("POST", "/assets", {"assets": [{"symbol": "NEWS", "name": "News"}]})
    there(box, "-7", "50", "NEWS")
    look()
    assert Position.objects.count() == 0
    look(later=6)
    position = Position.objects.get()
    assert (position.account, position.instrument.symbol) == (account, "NEWS")
    assert (position.side, position.remaining, position.average_entry) == (-1, 7, 50)
    assert position.strategy == "adopted"
    assert f.bracket_of(position).stop_price == D("50.5")  # 1 % against a short
    assert look(later=12) == []
    assert open_alerts() == []


def test_what_would_be_sold_at_once_is_not_adopted(box, account, look, adopting):
    adopting("adopt")
    f.set_quote("100")
    there(box, "7", "130")
    look()
    (seen,) = look(later=6)
    assert "its plan would sell it at once (stop_loss)" in seen.done
    assert Position.objects.count() == 0
    assert open_alerts() == ["books_differ"]


def test_a_surplus_is_adopted_at_what_it_cost(box, account, look, adopting):
    adopting("adopt")
    f.hold(account=account)
    there(box, "13", "103")
    look()
    look(later=6)
    adopted = Position.objects.latest("pk")
    assert (adopted.remaining, adopted.average_entry, adopted.strategy) == (3, 113, "adopted")
    assert look(later=12) == []


def test_a_surplus_that_may_be_a_split_is_not_adopted(box, account, look, adopting):
    adopting("adopt")
    f.hold(account=account)
    there(box, "40", "100")  # the broker has not divided its average yet
    look()
    look(later=6)
    assert Position.objects.count() == 1
    assert open_alerts() == ["books_differ"]


def test_a_flipped_side_freezes_until_it_is_turned_back(box, account, look):
    position = f.hold(account=account)
    there(box, "-10")
    look()
    assert f.read_again(position).frozen_at is not None
    assert open_alerts() == ["books_differ"]
    f.set_quote("90")
    assert scan(now=f.utc_now(), everything=True).orders == 0
    there(box, "10")
    assert look(later=6) == []
    assert f.read_again(position).frozen_at is None
    assert open_alerts() == []
    assert scan(now=f.utc_now(), everything=True).orders == 1


def test_a_frozen_position_may_be_released_by_a_person(box, account, look):
    position = f.hold(account=account)
    there(box, "-10")
    look()
    release_position(position_id=position.pk, note="seen", now=f.utc_now(), actor="test")
    assert f.read_again(position).frozen_at is None
    with pytest.raises(NotFrozen):
        release_position(position_id=position.pk, note="seen", now=f.utc_now(), actor="test")


def test_a_fill_nobody_told_is_booked_and_the_position_closes_by_it(box, account, look):
    there(box, "10")
    position = f.hold(account=account)
    order = f.exit_order(position)
    send(order)  # a market order: it fills at once, and no stream tells us
    assert f.read_again(order).state == "submitted"
    assert kinds(look()) == [Kind.NOT_OPEN_THERE]
    assert Fill.objects.get().quantity == 10
    position = f.read_again(position)
    assert (position.status, position.exit_reason) == ("closed", "stop_loss")
    assert look(later=10) == []


def test_an_order_on_its_way_keeps_its_symbol_out_of_the_comparison(box, account, look):
    position = f.hold(account=account)
    order = f.exit_order(position)
    for state in ("submitting", "unknown"):
        Order.objects.filter(pk=order.pk).update(state=state)
        assert look(later=20) == []
    assert f.read_again(position).remaining == 10


def test_an_order_the_broker_does_not_know_is_ended_after_a_minute(box, account, look):
    there(box, "10")
    position = f.hold(account=account)
    order = f.exit_order(position)
    now = f.utc_now()
    Order.objects.filter(pk=order.pk).update(state="submitting")
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="gone", heard_at=now)
    for later in (0, 10, 50):
        assert kinds(look(later=later)) == [Kind.GHOST]
        assert f.read_again(order).state == "submitted"
    look(later=61)
    assert (f.read_again(order).state, f.read_again(position).reserved) == ("cancelled", 0)
    assert open_alerts() == ["order_ended_as_unknown"]
    advance(now=f.utc_now())
    assert Order.objects.filter(position=position, state="pending").count() == 1  # the stop goes out again


def test_an_exit_a_restored_database_forgot_is_recognised(box, account, look):
    there(box, "10")
    position = f.hold(account=account)
    order = f.exit_order(position, reason="take_profit_1", fraction_pct="60")
    Order.objects.filter(pk=order.pk).update(order_type="limit", limit_price=D(150))
    send(order)
    Order.objects.filter(pk=order.pk).delete()
    Position.objects.filter(pk=position.pk).update(reserved=0, exit_seq=0, status="open")
    look()
    (seen,) = look(later=6)
    found = Order.objects.get()
    assert "recognised" in seen.done
    assert (found.client_order_id, found.state, found.reserved) == (order.client_order_id, "submitted", 6)
    position = f.read_again(position)
    assert (position.reserved, position.exit_seq, position.status) == (6, 1, "exit_pending")
    assert look(later=12) == []


def test_an_order_of_ours_that_nobody_recognises_freezes_what_it_would_reduce(box, account, look):
    there(box, "10")
    position = f.hold(account=account)
    strange = "xm" + "a" * 26
    body = {"symbol": "AAPL", "qty": "5", "side": "sell", "type": "limit", "limit_price": "150",
            "time_in_force": "day", "client_order_id": strange}  # fmt: skip
    status, made = box.api("POST", "/v2/orders", body)
    assert status == 200
    look()
    look(later=6)
    assert f.read_again(position).frozen_at is not None
    assert open_alerts() == ["books_differ"]
    box.api("DELETE", f"/v2/orders/{made['id']}")
    assert look(later=12) == []
    assert f.read_again(position).frozen_at is None
    assert open_alerts() == []


def test_an_order_of_somebody_else_is_noted_and_left_alone(box, account, look):
    body = {"symbol": "AAPL", "qty": "5", "side": "buy", "type": "limit", "limit_price": "50",
            "time_in_force": "day", "client_order_id": "by-hand"}  # fmt: skip
    assert box.api("POST", "/v2/orders", body)[0] == 200
    look()
    look(later=6)
    look(later=12)
    assert Alert.objects.count() == 0
    assert Event.objects.filter(kind="difference_handled").count() == 1


def test_a_dry_run_writes_nothing(box, account, look):
    f.hold(account=account)
    events = Event.objects.count()
    assert kinds(look(dry_run=True)) == [Kind.CLOSED_OUTSIDE]
    assert kinds(look(later=60, dry_run=True)) == [Kind.CLOSED_OUTSIDE]
    assert (Difference.objects.count(), Heartbeat.objects.count(), Event.objects.count()) == (0, 0, events)


def test_a_broker_that_does_not_answer_is_told_and_changes_nothing(account):
    nobody = f.make_account(name="nobody")
    position = f.hold(account=nobody)
    with pytest.raises(LookRefused, match="did not answer"):
        reconcile_account(account_id=nobody.pk, connect=connect, clock=f.utc_now)
    assert f.read_again(position).status == "open"
    assert open_alerts() == ["reconcile_failed"]


def test_every_account_is_due_at_the_start_and_then_every_half_minute(box, account, look, rung):
    now = f.utc_now()
    assert due_accounts(now=now) == [account.pk]
    look()
    assert due_accounts(now=f.utc_now()) == []
    assert due_accounts(now=now + f.timedelta(seconds=31)) == [account.pk]
    assert ring_for_due_accounts(now=now + f.timedelta(seconds=31)) == 1
    assert rung[-1] == "exitmgr.reconcile"


def test_what_is_waited_with_hastens_the_next_look(box, account, look):
    f.hold(account=account)
    now = f.utc_now()
    look()
    assert due_accounts(now=now + f.timedelta(seconds=3)) == []
    assert due_accounts(now=now + f.timedelta(seconds=7)) == [account.pk]
    look(later=7)
    assert due_accounts(now=now + f.timedelta(seconds=14)) == []


def test_an_account_that_was_just_looked_at_is_not_looked_at_again(box, account, look):
    f.hold(account=account)
    assert look_once(account_id=account.pk, connect=connect, clock=f.utc_now) == 1
    assert look_once(account_id=account.pk, connect=connect, clock=f.utc_now) == 0


def test_the_instrument_of_an_adopted_holding_is_as_the_venue_has_it(box, account, look, adopting):
    adopting("adopt")
    box.control("POST", "/assets", {"assets": [{"symbol": "NEWS", "name": "News"}]})
    there(box, "7", "50", "NEWS")
    look()
    look(later=6)
    assert Instrument.objects.get(symbol="NEWS").tick == D("0.01")
    with connection.cursor() as cursor:  # the lock did not outlive the look
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s", [0x7265636E])
        assert cursor.fetchone()[0] == 0


def test_a_reduction_that_our_books_have_meanwhile_is_not_followed(box, account, look):
    position = f.hold(account=account)
    (seen,) = look()
    Position.objects.filter(pk=position.pk).update(exited=4)
    assert follow_reduction(seen.difference, account_id=account.pk, now=f.utc_now(), actor="test") is None
    assert f.read_again(position).remaining == 6


def test_an_unknown_order_is_kept_while_the_broker_binds_a_part_of_the_holding(box, account, look):
    there(box, "10")
    order = f.exit_order(f.hold(account=account))
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="gone")
    body = {"symbol": "AAPL", "qty": "5", "side": "sell", "type": "limit", "limit_price": "150",
            "time_in_force": "day", "client_order_id": "by-hand"}  # fmt: skip
    assert box.api("POST", "/v2/orders", body)[0] == 200
    for later in (0, 61, 70):
        look(later=later)
    assert f.read_again(order).state == "submitted"


def test_what_was_filled_just_now_may_not_be_in_the_holdings_yet(box, account, look):
    position = f.hold(account=account)
    there(box, "10")
    order = f.exit_order(position, reason="take_profit_1", fraction_pct="60")
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="b")
    report = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("6")])
    apply_reports(account_id=account.pk, reports=[report], now=f.utc_now())
    assert look() == []
    assert kinds(look(later=6)) == [Kind.SURPLUS]
