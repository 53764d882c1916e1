"""Reconciliation beside everything else: two lookers, an exit that fills while the account is compared."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection

from exitmgr.reconcile.looks import LookRefused, reconcile_account
from orders.brokers.protocol import BrokerAccount, BrokerPosition, OrderReport, ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.models import Position
from tests import factories as f
from tests.orders.scripted import to

D = Decimal
pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Listing:
    """A broker that holds what it is told to, and waits where it is told to."""

    held: str = "0"
    enter: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    orders: list[OrderReport] = field(default_factory=list)

    def open_orders(self) -> list[OrderReport]:
        """Return what is open, once it may."""
        self.enter.set()
        assert self.go_on.wait(10)
        return self.orders

    def positions(self) -> list[BrokerPosition]:
        """Return one holding, or none."""
        if D(self.held) == 0:
            return []
        return [BrokerPosition(symbol="AAPL", quantity=D(self.held), available=D(self.held), average_entry=D(100))]

    def account(self) -> BrokerAccount:
        """Return some money."""
        return BrokerAccount(account_number="1", equity=D(1), cash=D(1), buying_power=D(1))

    def find_order(self, _ref: object) -> None:
        """Know nothing."""


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("orders.lanes.ring", "orders.cancel.ring", "exitmgr.brackets.ring"):
        monkeypatch.setattr(place, lambda *_args, **_options: True)


def look(account_id: int, broker: Listing, *, later: float = 0) -> list[str] | str:
    """Look at the account in a thread of its own and return the kinds it saw, or why it did not."""
    try:
        seen = reconcile_account(
            account_id=account_id, connect=to(broker), clock=lambda: f.utc_now() + timedelta(seconds=later)
        )
        return [str(one.difference.kind) for one in seen]
    except LookRefused as error:
        return str(error)
    finally:
        connection.close()


def test_one_looker_an_account_at_a_time():
    position = f.hold()
    broker = Listing()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(look, position.account_id, broker)
        assert broker.enter.wait(10)
        second = pool.submit(look, position.account_id, broker).result(10)
        broker.go_on.set()
        assert first.result(10) == ["closed_outside"]
    assert "is being reconciled already" in second
    assert look(position.account_id, broker) == ["closed_outside"]  # the lock is free again


def test_a_fill_that_is_booked_while_the_account_is_compared_is_no_trade_from_outside():
    position = f.hold()
    order = f.exit_order(position, reason="take_profit_1", fraction_pct="60")
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="b")
    broker = Listing(held="4")
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look, position.account_id, broker)
        assert broker.enter.wait(10)
        report = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("6")])
        apply_reports(account_id=position.account_id, reports=[report], now=f.utc_now())
        broker.go_on.set()
        assert looking.result(10) == []
    assert f.read_again(position).remaining == 4


def test_an_exit_that_fills_before_the_reduction_is_followed_is_not_taken_out_twice():
    position = f.hold()
    broker = Listing(held="4")
    broker.go_on.set()
    assert look(position.account_id, broker) == ["reduced_outside"]
    order = f.exit_order(position, reason="take_profit_1", fraction_pct="60")
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="b")
    report = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("6")])
    apply_reports(account_id=position.account_id, reports=[report], now=f.utc_now())
    assert look(position.account_id, broker, later=6) == []
    assert Position.objects.get().remaining == 4


def test_a_position_that_is_told_of_while_the_account_is_compared_is_compared_later():
    account = f.make_account()
    broker = Listing(held="15")
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look, account.pk, broker)
        assert broker.enter.wait(10)
        f.hold(account=account)
        broker.go_on.set()
        assert looking.result(10) == []
    assert look(account.pk, broker) == ["surplus"]
