"""What a restart, another hand at the broker, or a list with a hole in it leads to: nothing is doubled, nothing left bare."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert
from exitmgr.models import Trigger
from exitmgr.reconcile.compare import compare
from exitmgr.reconcile.differences import Difference, Kind, OurOrder, OurPosition, Ours, Theirs
from exitmgr.reconcile.lost_orders import end_ghost
from exitmgr.scans import scan
from orders.brokers.protocol import BrokerPosition
from orders.client_ids import client_order_id, is_ours
from orders.models import Order
from positions.models import Position
from tests import factories as f
from tests.exitmgr.reconcile.conftest import account, box, look, rung, running  # noqa: F401
from tests.exitmgr.tape import Tape

D = Decimal
pytestmark = pytest.mark.django_db


def there(box, quantity):  # noqa: F811
    """Let the broker hold this, with no order."""
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": quantity, "avg_entry_price": "100"})


@pytest.mark.parametrize(
    ("_case", "held", "remaining", "status"),
    [
        ("fees took a little", "9.99", "9.99", "partial_exit"),
        ("somebody sold a part", "4", "4", "partial_exit"),
        ("somebody, or the broker, sold everything", "0", "0", "closed"),
    ],
)
def test_exits_are_as_large_as_the_broker_says_the_holding_is(_case, held, remaining, status, box, account, look):  # noqa: F811
    position = f.hold(account=account)
    there(box, "10")
    assert look() == []
    there(box, held)
    look(later=40)
    look(later=46)
    left = f.read_again(position)
    assert (left.remaining, left.status) == (D(remaining), status)
    assert Alert.objects.get().kind == "holding_changed_outside"
    if left.status == "closed":
        assert set(f.triggers_of(position).values()) == {"cancelled"}
    else:
        assert f.exit_order(left).quantity == D(remaining)


def test_what_rests_in_the_tables_fires_after_any_restart():
    tape = Tape()
    tape.trade("100")
    position = f.hold(now=tape.now)
    kept = list(Trigger.objects.order_by("pk").values_list("reason", "status", "level"))
    tape.at(86_400)
    tape.quote("98")
    assert scan(now=tape.now, everything=True).orders == 1
    assert kept == [("stop_loss", "armed", D(99)), ("take_profit_1", "armed", D(102))]
    assert Order.objects.get(position=position).quantity == D(10)


def test_the_same_decision_made_again_after_a_restart_has_the_same_id():
    ids = {client_order_id(account_id=1, subject="position 7", leg="1", attempt=1) for _ in range(3)}
    assert len(ids) == 1
    assert is_ours(ids.pop())
    others = {client_order_id(account_id=1, subject="position 7", leg="1", attempt=n) for n in range(2, 12)}
    assert len(others) == 10


def our_order(number, **fields):
    wanted = {"client_order_id": f"em-{number}", "broker_order_id": f"b-{number}", "symbol": "AAPL", "filled": D(0)}
    return OurOrder(order_id=number, at_broker=True, position_id=1, **wanted | fields)


def our_position(**fields):
    wanted = {"side": 1, "remaining": D(10), "average_entry": D(100), "lot": D("0.001"), "dust": D("0.001")}
    return OurPosition(
        position_id=1, symbol="AAPL", opened_at=f.utc_now() - timedelta(days=900), frozen=False, **wanted | fields
    )


def test_an_order_missing_in_one_list_is_looked_up_before_anything_is_concluded():
    ours = Ours(
        positions=(our_position(),), orders=(our_order(1),), moving=frozenset(), ended=frozenset(), expired_resting=()
    )
    seen = compare(ours, Theirs(orders=(), positions=(), account=None))
    assert [one.kind for one in seen.found] == [Kind.NOT_OPEN_THERE]
    assert seen.left_out == {"AAPL"}


@pytest.mark.parametrize(("_case", "age"), [("opened today", 0), ("held for years, history long gone", 4000)])
def test_a_holding_is_protected_whatever_is_known_of_its_history(_case, age):
    tape = Tape()
    tape.trade("100")
    position = f.hold(now=tape.now)
    Position.objects.filter(pk=position.pk).update(opened_at=tape.now - timedelta(days=age))
    tape.at(1)
    tape.quote("98")
    assert scan(now=tape.now, everything=True).orders == 1


def test_a_holding_of_many_years_and_no_fill_is_compared_by_its_quantity_alone():
    held = BrokerPosition(symbol="AAPL", quantity=D(10), available=D(10), average_entry=D(1))
    ours = Ours(positions=(our_position(),), orders=(), moving=frozenset(), ended=frozenset(), expired_resting=())
    assert compare(ours, Theirs(orders=(), positions=(held,), account=None)).found == ()


def test_an_order_is_not_ended_while_its_coins_are_bound_however_the_broker_spells_the_pair():
    position = f.hold(symbol="BTC/USD")
    order = f.exit_order(position)
    bound = BrokerPosition(symbol="BTCUSD", quantity=D(10), available=D(0), average_entry=D(100))
    ghost = Difference(kind=Kind.GHOST, key=str(order.pk), symbol="BTC/USD", order_id=order.pk)
    ended = end_ghost(ghost, account_id=order.account_id, theirs=Theirs(positions=(bound,)), now=f.utc_now())
    assert ended is None
    assert f.read_again(order).state == "pending"
