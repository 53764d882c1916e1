"""What is held by one order cannot be sold by another: exits take turns, and the broker's word on the quantity counts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.exits import AlreadyExiting, request_exit
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.errors import RefusalKind, Refused
from orders.models import Order
from orders.states import LIVE
from orders.submit import submit
from orders.updates import apply_reports
from tests import factories as f
from tests.exitmgr.tape import Tape
from tests.orders.scripted import ScriptedBroker, to

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db
LIMITED = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "order_type": "limit", "time_in_force": "gtc"}]}


def working_target(tape):
    """Return a position whose whole quantity a limit target holds at the broker."""
    tape.trade("100")
    position = f.hold(plan=LIMITED, now=tape.now)
    tape.at(1)
    tape.quote("102")
    scan(now=tape.now, everything=True)
    order = Order.objects.get(position=position)
    apply_reports(account_id=order.account_id, reports=[f.report_of(order)], now=tape.now)
    return position, f.read_again(order)


def leave_by_stop(tape, _position):
    tape.at(1)
    tape.quote("98")
    scan(now=tape.now, everything=True)


def leave_by_hand(tape, position):
    request_exit(position_id=position.pk, now=tape.now, actor="me")


def leave_in_haste(tape, position):
    request_exit(position_id=position.pk, now=tape.now, actor="me", reason="emergency")


@pytest.mark.parametrize(
    ("_case", "leave", "reason"),
    [
        ("a stop", leave_by_stop, "stop_loss"),
        ("a person", leave_by_hand, "manual"),
        ("an emergency", leave_in_haste, "emergency"),
    ],
)
def test_nothing_is_sent_for_what_a_target_holds_until_the_target_has_ended(_case, leave, reason):
    tape = Tape()
    position, target = working_target(tape)
    leave(tape, position)
    advance(now=tape.now)
    broker = ScriptedBroker()
    submit(order_ids=list(Order.objects.values_list("pk", flat=True)), worker="w", connect=to(broker), clock=f.utc_now)
    assert broker.sent == []
    assert f.read_again(target).state == "cancel_requested"
    ended = f.report_of(target, S.CANCELLED, executions=[f.fill_of("4", "102")])
    apply_reports(account_id=target.account_id, reports=[ended], now=tape.now)
    advance(now=tape.now)
    (order,) = Order.objects.filter(state__in=LIVE)
    submit(order_ids=[order.pk], worker="w", connect=to(broker), clock=f.utc_now)
    assert [(sent.quantity, sent.limit_price) for sent in broker.sent] == [(D(6), None)]
    assert (order.reason, f.read_again(position).reserved) == (reason, D(6))


def test_a_second_exit_as_urgent_is_refused_what_the_first_one_holds():
    position = f.hold()
    f.exit_order(position, reason="manual")
    with pytest.raises(AlreadyExiting, match="is already being left by order"):
        request_exit(position_id=position.pk, now=f.utc_now(), actor="me")
    assert Order.objects.count() == 1
    assert f.read_again(position).reserved == D(10)


def test_a_quantity_that_nobody_of_ours_holds_calls_a_person_and_stays_claimed():
    position = f.hold()
    order = f.exit_order(position)
    said = Refused("insufficient balance", kind=RefusalKind.HELD_QUANTITY, available=D(0), related_orders=("theirs",))
    submit(order_ids=[order.pk], worker="w", connect=to(ScriptedBroker(submits=[said])), clock=f.utc_now)
    kept = f.read_again(order)
    assert (kept.state, kept.tries, kept.held_tries) == ("pending", 0, 1)
    assert Alert.objects.get(kind="order_held").data == {"related_orders": ["theirs"]}
    assert f.read_again(position).reserved == D(10)
