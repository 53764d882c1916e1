"""More urgent exits take what less urgent ones hold: called off, waited for, sold once, whoever crashes in between."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.advance import advance
from exitmgr.exits import AlreadyExiting, request_exit
from exitmgr.preemption import pre_empt
from exitmgr.waiting import serve_waiting
from orders.brokers.protocol import ReportedState
from orders.cancel import request_cancel
from orders.models import Order
from orders.submit import claim
from orders.sync import due_orders
from orders.updates import apply_reports
from tests import factories as f

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def tell(order, state=S.WORKING, *fills):
    """Let the broker say something of an order, and follow it up; fills are (quantity, price)."""
    executions = [f.fill_of(quantity, price) for quantity, price in fills]
    apply_reports(
        account_id=order.account_id, reports=[f.report_of(order, state, executions=executions)], now=f.utc_now()
    )
    advance(now=f.utc_now())
    return f.read_again(order)


def working(position, **fields):
    """Return an exit that works at the broker."""
    return tell(f.exit_order(position, **fields))


def exits_of(position):
    """Return reason, quantity, state and whether it waits of each exit, in the order they were made."""
    rows = Order.objects.filter(position=position, intent="exit").order_by("pk")
    return list(rows.values_list("reason", "quantity", "state", "waits"))


def leave(position, reason="emergency", **fields):
    """Leave as a person would."""
    return request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", reason=reason, **fields)


@pytest.mark.parametrize(
    ("_case", "held_by", "reason"),
    [
        ("an emergency takes it from a target", "take_profit_1", "emergency"),
        ("from a timer", "time_limit", "emergency"),
        ("from a person", "manual", "emergency"),
        ("and from a stop", "stop_loss", "emergency"),
        ("a person from a target", "take_profit_1", "manual"),
        ("and from a timer", "time_limit", "manual"),
    ],
)
def test_a_more_urgent_exit_waits_for_what_a_working_one_gives_back(_case, held_by, reason):
    position = f.hold()
    held = working(position, reason=held_by)
    wish = leave(position, reason)
    assert (wish.waits, wish.quantity, wish.reserved, wish.state) == (True, D(10), D(0), "pending")
    assert claim(order_ids=[wish.pk], worker="w") == []
    assert pre_empt(now=f.utc_now()) == 1
    assert f.read_again(held).state == "cancel_requested"
    tell(held, S.CANCELLED, ("3", "99"))
    sent = f.read_again(wish)
    assert (sent.waits, sent.quantity, sent.reserved, sent.next_attempt_at) == (False, D(7), D(7), None)
    assert f.read_again(position).reserved == 7
    assert [one.order_id for one in claim(order_ids=[wish.pk], worker="w")] == [wish.pk]
    assert len(exits_of(position)) == 2


@pytest.mark.parametrize(
    ("_case", "held_by", "reason"),
    [
        ("a person does not take it from a stop", "stop_loss", "manual"),
        ("nor from an emergency", "emergency", "manual"),
        ("nor an emergency from another", "emergency", "emergency"),
    ],
)
def test_what_is_as_urgent_is_left_alone(_case, held_by, reason):
    position = f.hold()
    held = working(position, reason=held_by)
    with pytest.raises(AlreadyExiting):
        leave(position, reason)
    assert pre_empt(now=f.utc_now()) == 0
    assert exits_of(position) == [(held_by, D(10), "submitted", False)]
    assert f.read_again(held).state == "submitted"


def test_what_is_free_leaves_at_once_and_the_rest_follows():
    position = f.hold()
    target = working(position, reason="take_profit_1", fraction_pct="40")
    now = leave(position)
    assert exits_of(position) == [
        ("take_profit_1", D(4), "submitted", False),
        ("emergency", D(6), "pending", False),
        ("emergency", D(4), "pending", True),
    ]
    assert not now.waits
    advance(now=f.utc_now())
    tell(target, S.CANCELLED)
    assert exits_of(position)[1:] == [("emergency", D(6), "pending", False), ("emergency", D(4), "pending", False)]
    assert f.read_again(position).reserved == 10


def test_of_two_that_give_way_the_first_to_end_is_sold_at_once():
    position = f.hold()
    first = working(position, reason="take_profit_1", fraction_pct="40")
    second = working(position, reason="take_profit_2")
    leave(position)
    advance(now=f.utc_now())
    tell(first, S.CANCELLED)
    assert exits_of(position)[2:] == [("emergency", D(4), "pending", False), ("emergency", D(6), "pending", True)]
    tell(second, S.CANCELLED, ("1", "102"))
    assert exits_of(position)[2:] == [("emergency", D(4), "pending", False), ("emergency", D(5), "pending", False)]
    assert f.read_again(position).available == 0


def test_an_unsent_exit_gives_way_without_the_broker():
    position = f.hold()
    f.exit_order(position, reason="take_profit_1")
    leave(position)
    advance(now=f.utc_now())
    advance(now=f.utc_now())
    assert exits_of(position) == [("take_profit_1", D(10), "cancelled", False), ("emergency", D(10), "pending", False)]


def test_asking_twice_is_one_wish():
    position = f.hold()
    working(position, reason="take_profit_1")
    leave(position)
    with pytest.raises(AlreadyExiting):
        leave(position)
    assert [waits for *_, waits in exits_of(position)] == [False, True]


def test_a_wish_ends_when_what_it_waited_for_is_sold():
    position = f.hold()
    target = working(position, reason="take_profit_1")
    wish = leave(position)
    advance(now=f.utc_now())
    tell(target, S.FILLED, ("10", "102"))
    advance(now=f.utc_now())
    kept, closed = f.read_again(wish), f.read_again(position)
    assert (kept.state, kept.waits, kept.last_error) == ("cancelled", False, "nothing is left for it")
    assert (closed.status, closed.reserved) == ("closed", D(0))


def test_a_wish_that_a_person_takes_back_ends_and_holds_nothing():
    position = f.hold()
    working(position, reason="take_profit_1")
    wish = leave(position)
    request_cancel(order_id=wish.pk, now=f.utc_now(), actor="ann")
    assert (f.read_again(wish).state, f.read_again(position).reserved) == ("cancelled", D(10))


def test_news_that_nobody_worked_off_is_made_up_for():
    position = f.hold()
    target = working(position, reason="take_profit_1")
    wish = leave(position)
    pre_empt(now=f.utc_now())
    apply_reports(account_id=target.account_id, reports=[f.report_of(target, S.CANCELLED)], now=f.utc_now())
    Order.objects.update(news=False)
    assert due_orders(now=f.utc_now()) == []
    assert [serve_waiting(now=f.utc_now()) for _ in range(2)] == [1, 0]
    assert f.read_again(wish).reserved == 10


def test_an_emergency_goes_before_a_stop_that_waits_for_the_same():
    position = f.hold()
    target = working(position, reason="take_profit_1")
    position.triggers.filter(reason="stop_loss").update(status="breached", fired_at=f.utc_now())
    leave(position)
    advance(now=f.utc_now())
    tell(target, S.CANCELLED)
    assert exits_of(position)[1:] == [("emergency", D(10), "pending", False)]
    assert f.triggers_of(position)["stop_loss"] == "breached"


def test_a_part_that_a_person_takes_leaves_the_target_waiting_for_the_rest():
    f.set_quote("100")
    position = f.hold()
    target = working(position, reason="take_profit_1")
    position.triggers.filter(reason="take_profit_1").update(status="fired", fired_at=f.utc_now(), order=target)
    leave(position, "manual", percentage=D(50))
    advance(now=f.utc_now())
    tell(target, S.CANCELLED)
    assert exits_of(position)[1:] == [("manual", D(5), "pending", False)]
    again = position.triggers.get(status="armed", reason="take_profit_1")
    assert (again.level, again.fraction_pct) == (D(102), D(100))
