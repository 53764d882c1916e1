"""What the database itself refuses, whoever asks: each constraint and trigger, by trying to break it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from orders.models import BrokerHealth, Fill, Order
from orders.states import LIVE, OrderState, transitions
from positions.models import Position
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


def refused(call, *, by):
    """Run a call that the database must refuse by the constraint or trigger of this name."""
    with pytest.raises(DatabaseError, match=by), transaction.atomic():
        call()


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("order_state_is_known|order_ended_has_its_time", {"state": "lost"}),
        ("order_intent_is_known", {"intent": "hope"}),
        ("order_lane_is_known", {"lane": "fast"}),
        ("order_side_is_known", {"side": "both"}),
        ("order_quantity_is_positive", {"quantity": D(0)}),
        ("order_never_fills_beyond_its_quantity", {"filled_quantity": D(2)}),
        ("order_never_fills_beyond_its_quantity", {"filled_quantity": D(-1)}),
        ("order_reserves_what_it_may_still_fill", {"reserved": D(2)}),
        ("order_reserves_what_it_may_still_fill", {"reserved": D(-1)}),
        ("order_reserves_what_it_may_still_fill", {"reserved": D(1), "filled_quantity": D("0.5")}),
        ("order_ended_reserves_nothing", {"state": "cancelled", "ended_at": "now", "reserved": D(1)}),
        ("order_prices_are_positive", {"limit_price": D(0)}),
        ("order_prices_are_positive", {"stop_price": D(-1)}),
        ("order_limit_has_its_price", {"order_type": "limit"}),
        ("order_that_waits_is_unsent", {"waits": True, "state": "submitted"}),
        ("order_that_waits_is_unsent", {"waits": True, "reserved": D(1)}),
        ("order_ended_has_its_time", {"state": "filled", "filled_quantity": D(1)}),
        ("order_ended_has_its_time", {"state": "pending", "ended_at": "now"}),
    ],
)
def test_an_impossible_order_is_refused(constraint, fields):
    position = f.hold()
    fields = fields | ({"ended_at": f.utc_now()} if fields.get("ended_at") == "now" else {})
    refused(lambda: f.raw_order(position, **fields), by=constraint)
    assert Order.objects.count() == 0


def test_a_breaker_is_in_a_state_we_know():
    account = f.make_account()
    refused(lambda: BrokerHealth.objects.create(account=account, breaker="ajar"), by="breaker_is_known")
    assert not BrokerHealth.objects.exists()


def test_an_exit_belongs_to_a_position():
    order = f.raw_order(f.hold())
    refused(lambda: Order.objects.filter(pk=order.pk).update(position=None), by="order_exit_has_a_position")


def test_one_client_order_id_an_account():
    position = f.hold()
    f.raw_order(position, client_order_id="same")
    refused(lambda: f.raw_order(position, client_order_id="same"), by="order_client_id_is_unique")
    f.raw_order(f.hold(), client_order_id="same")


@pytest.mark.parametrize("state", sorted(LIVE))
def test_one_live_exit_a_leg(state):
    position = f.hold()
    f.raw_order(position, leg="stop", state=state)
    refused(lambda: f.raw_order(position, leg="stop"), by="order_one_live_exit_a_leg")
    f.raw_order(position, leg="take_profit_1")
    f.raw_order(f.hold(), leg="stop")


def test_an_ended_exit_frees_its_leg():
    position = f.hold()
    f.raw_order(position, leg="stop", state="cancelled", ended_at=f.utc_now())
    f.raw_order(position, leg="stop")
    assert Order.objects.count() == 2


def test_live_exits_never_exceed_what_remains():
    position = f.hold()
    name = "position_live_exits_never_exceed_the_remainder"
    rows = Position.objects.filter(pk=position.pk)
    for fields in ({"reserved": D("10.001")}, {"exited": D(4), "reserved": D(7)}, {"reserved": D(-1)}):
        refused(lambda fields=fields: rows.update(**fields), by=name)
    refused(lambda: rows.update(exited=D(11)), by=f"position_never_sells_more_than_it_holds|{name}")
    refused(lambda: rows.update(exited=D(-1)), by="position_never_sells_more_than_it_holds")
    assert (f.read_again(position).reserved, f.read_again(position).exited) == (D(0), D(0))


def fill(order, **fields):
    """Insert one fill past every rule but the database's own."""
    wanted = {
        "order": order,
        "account": order.account,
        "execution_id": "e-1",
        "quantity": D(1),
        "price": D(99),
        "filled_at": f.utc_now(),
        "booked_at": f.utc_now(),
    }
    return Fill.objects.create(**wanted | fields)


def test_one_execution_is_one_fill():
    order = f.raw_order(f.hold())
    fill(order)
    refused(lambda: fill(order), by="fill_is_booked_once")
    refused(lambda: fill(order, execution_id="e-2", quantity=D(0)), by="fill_is_positive")
    refused(lambda: fill(order, execution_id="e-2", price=D(-1)), by="fill_is_positive")
    assert Fill.objects.count() == 1


@pytest.mark.parametrize("sql", ["UPDATE orders_fill SET price = 1", "DELETE FROM orders_fill"])
def test_a_fill_is_never_changed_nor_deleted(sql):
    booked = fill(f.raw_order(f.hold()))

    def run():
        with connection.cursor() as cursor:
            cursor.execute(sql)

    refused(run, by="fill_is_append_only|Cannot update or delete rows")
    assert f.read_again(booked).price == 99


def test_an_order_moves_only_as_its_table_says():
    allowed = set(transitions())
    position = f.hold()
    ended = {state for state in OrderState if state not in LIVE}
    for before in OrderState:
        for after in OrderState:
            if before == after or (str(before), str(after)) in allowed:
                continue
            order = f.raw_order(position, state=before, ended_at=f.utc_now() if before in ended else None)
            moved = {"state": after, "ended_at": f.utc_now() if after in ended else None}
            with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
                Order.objects.filter(pk=order.pk).update(**moved)
            assert f.read_again(order).state == before


def test_raw_sql_cannot_bring_a_cancelled_order_back():
    order = f.raw_order(f.hold(), state="cancelled", ended_at=f.utc_now())

    def run():
        with connection.cursor() as cursor:
            cursor.execute("UPDATE orders_order SET state = 'pending', ended_at = NULL WHERE id = %s", [order.pk])

    refused(run, by="Invalid transition")


def test_an_epoch_never_falls():
    order = f.raw_order(f.hold(), epoch=3)
    rows = Order.objects.filter(pk=order.pk)
    refused(lambda: rows.update(epoch=2), by="order_epoch_never_falls|Cannot update rows")
    assert rows.update(epoch=4) == 1


def test_an_account_with_orders_is_not_deleted():
    order = f.raw_order(f.hold())
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM positions_account WHERE id = %s", [order.account_id])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert Order.objects.count() == 1
