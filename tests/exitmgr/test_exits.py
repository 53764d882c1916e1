"""Exit orders on a person's word: one maker, exact quantities, and refusals that write nothing."""

from __future__ import annotations

from decimal import Decimal

import pytest

from alerts.models import Event
from exitmgr.exits import AlreadyClosed, AlreadyExiting, ExitRefused, request_exit
from orders.models import Lane, Order
from positions.models import Position
from positions.values import Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("_case", "side", "percentage", "quantity", "order_side"),
    [
        ("all of a long is sold", Side.LONG, "100", "10", "sell"),
        ("all of a short is bought back", Side.SHORT, "100", "10", "buy"),
        ("half", Side.LONG, "50", "5", "sell"),
        ("a part is rounded down to whole lots", Side.LONG, "39", "3", "sell"),
        ("a part below one lot sells one lot", Side.LONG, "1", "1", "sell"),
    ],
)
def test_a_person_leaves_a_percentage(_case, side, percentage, quantity, order_side):
    position = f.hold(side=side)
    order = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(percentage))
    assert (order.quantity, order.side, order.lane, order.reason) == (D(quantity), order_side, Lane.STOP_LOSS, "manual")
    assert f.read_again(position).reserved == D(quantity)
    assert Event.objects.get(kind="exit_requested").actor == "ann"


def test_the_quote_it_was_decided_on_is_kept_with_the_order():
    f.set_quote("99.5", "99.6")
    order = request_exit(position_id=f.hold().pk, now=f.utc_now(), actor="ann")
    kept = f.read_again(order)
    assert kept.expected_price == D("99.5")
    assert (kept.priced_from["bid"], kept.priced_from["ask"], kept.priced_from["source"]) == ("99.5", "99.6", "test")


def test_a_short_expects_the_ask():
    f.set_quote("99.5", "99.6")
    order = request_exit(position_id=f.hold(side=Side.SHORT).pk, now=f.utc_now(), actor="ann")
    assert order.expected_price == D("99.6")


@pytest.mark.parametrize("percentage", ["0", "-5", "100.01", "NaN", "Infinity"])
def test_a_percentage_that_makes_no_sense_is_refused(percentage):
    position = f.hold()
    with pytest.raises(ExitRefused, match="above 0 and at most 100"):
        request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(percentage))
    assert Order.objects.count() == 0
    assert f.read_again(position).reserved == 0


def test_a_second_full_exit_is_refused_and_names_the_first():
    position = f.hold()
    first = f.exit_order(position)
    with pytest.raises(AlreadyExiting, match=f"order {first.pk} .stop_loss, 10, pending"):
        request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    assert list(Order.objects.values_list("pk", flat=True)) == [first.pk]
    assert f.read_again(position).reserved == 10


def test_the_same_leg_twice_is_refused_even_with_quantity_left():
    position = f.hold()
    request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(20))
    with pytest.raises(AlreadyExiting):
        request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(20))
    assert f.read_again(position).reserved == 2


def test_another_leg_takes_only_what_is_left():
    position = f.hold()
    request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(30))
    assert f.exit_order(position).quantity == 7
    assert f.read_again(position).available == 0


def test_a_closed_position_is_refused():
    position = f.hold()
    Position.objects.filter(pk=position.pk).update(status="closed", exited=10, closed_at=f.utc_now())
    with pytest.raises(AlreadyClosed):
        request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    assert Order.objects.count() == 0


def test_an_unknown_position_is_refused():
    with pytest.raises(Position.DoesNotExist, match="there is no position 0"):
        request_exit(position_id=0, now=f.utc_now(), actor="ann")


def test_each_exit_of_a_position_has_an_id_of_its_own():
    position = f.hold()
    one = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann", percentage=D(20))
    two = f.exit_order(position, reason="take_profit_1", fraction_pct="20")
    assert one.client_order_id != two.client_order_id
    assert f.read_again(position).exit_seq == 2
