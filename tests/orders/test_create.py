"""Orders as they are written down: side, lane, id and evidence; the same decision twice is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from alerts.models import Event
from orders.client_ids import client_order_id, is_ours
from orders.create import create_entry_order, market_time_in_force
from orders.models import Lane, Order, lane_for
from positions.values import AssetClass, Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("urgency", "lane"),
    [(0, Lane.EMERGENCY), (9, Lane.EMERGENCY), (10, Lane.STOP_LOSS), (20, Lane.STOP_LOSS), (29, Lane.STOP_LOSS)]
    + [(30, Lane.TAKE_PROFIT), (40, Lane.TAKE_PROFIT), (49, Lane.TAKE_PROFIT), (50, Lane.ENTRY), (99, Lane.ENTRY)],
)
def test_each_urgency_has_its_lane(urgency, lane):
    assert lane_for(urgency) == lane


@pytest.mark.parametrize(("side", "order_side"), [(Side.LONG, "sell"), (Side.SHORT, "buy")])
def test_an_exit_order_says_what_it_is_and_what_it_reserves(side, order_side):
    position = f.hold(side=side)
    order = f.read_again(f.exit_order(position))
    assert (order.side, order.quantity, order.reserved, order.order_type) == (order_side, D(10), D(10), "market")
    assert (order.state, order.epoch, order.tries, order.attempt) == ("pending", 0, 0, 1)
    assert order.client_order_id == client_order_id(
        account_id=position.account_id, subject=f"position {position.pk}", leg="1", attempt=1
    )
    assert is_ours(order.client_order_id)
    event = Event.objects.get(kind="exit_requested")
    assert (event.order_ref, event.position_ref) == (order.pk, position.pk)
    assert event.data["client_order_id"] == order.client_order_id


def test_the_same_entry_request_twice_is_refused_by_the_database():
    account, instrument = f.make_account(), f.make_instrument()
    asked = {
        "account": account, "instrument": instrument, "side": Side.LONG, "quantity": D(1), "subject": "entry 7",
        "urgency": 50, "actor": "test",
    }  # fmt: skip
    create_entry_order(**asked, now=f.utc_now())
    with pytest.raises(IntegrityError, match="order_client_id_is_unique"), transaction.atomic():
        create_entry_order(**asked, now=f.utc_now())
    assert (Order.objects.count(), Event.objects.filter(kind="entry_requested").count()) == (1, 1)


def test_crypto_knows_no_trading_day():
    assert market_time_in_force(AssetClass.CRYPTO) == "gtc"
    assert market_time_in_force(AssetClass.EQUITY) == "day"
