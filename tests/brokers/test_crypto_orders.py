"""Orders of an account at a crypto exchange, sent and asked about as workers do it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from orders.brokers import registry
from orders.models import Order
from orders.states import OrderState
from orders.submit import submit
from orders.sync import poll_quiet_orders
from positions.models import Instrument
from positions.values import AssetClass
from tests import factories as f
from tests.brokers.stub_exchange import KEY, SECRET, StubServer

pytest.importorskip("ccxt", reason="crypto exchanges need the packages of requirements-crypto.txt")
pytestmark = pytest.mark.django_db

D = Decimal


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    """Run one exchange for the module."""
    server = StubServer()
    yield server
    server.stop()


@pytest.fixture
def order(stub: StubServer) -> Order:
    """Hold ten coins at the exchange and decide to leave them."""
    stub.exchange.reset()
    stub.exchange.quote("CONF1USDT", D("98.99"), D("99.01"))
    stub.exchange.balances["CONF1"] = D(10)
    Instrument.objects.create(symbol="CONF1/USDT", asset_class=AssetClass.CRYPTO, tick=D("0.0001"), lot=D("0.001"))
    account = f.make_account(broker="ccxt:binance", url=stub.url, key=KEY, secret=SECRET)
    return f.exit_order(f.hold(account=account, symbol="CONF1/USDT"))


def _send(order: Order) -> None:
    submit(order_ids=[order.pk], worker="w", connect=registry.connect, clock=f.utc_now)


def _due_again(order: Order) -> None:
    past = f.utc_now() - timedelta(seconds=60)
    Order.objects.filter(pk=order.pk).update(next_attempt_at=past)
    Order.objects.filter(pk=order.pk, lease_until__isnull=False).update(lease_until=past)
    Order.objects.filter(pk=order.pk, maybe_sent_at__isnull=False).update(maybe_sent_at=past)


def _forget_what_threads_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next try be that of a worker which knows nothing of the first."""
    monkeypatch.setattr("orders.brokers.crypto.CryptoBroker._remember", lambda *_: None)


def test_an_exit_is_sold_and_booked_once(stub: StubServer, order: Order) -> None:
    _send(order)
    poll_quiet_orders(connect=registry.connect, now=f.utc_now() + timedelta(seconds=60))
    poll_quiet_orders(connect=registry.connect, now=f.utc_now() + timedelta(seconds=120))
    done = f.read_again(order)
    assert (done.state, done.filled_quantity, done.average_fill_price) == (OrderState.FILLED, D(10), D("98.99"))
    assert done.broker_order_id.endswith("@CONF1/USDT")
    assert done.fills.count() == 1
    assert f.read_again(order.position).remaining == 0
    assert stub.exchange.balances["CONF1"] == 0


def test_an_exit_that_was_turned_away_is_sent_by_another_worker(
    stub: StubServer, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_what_threads_sent(monkeypatch)
    quote = stub.exchange.quotes.pop("CONF1USDT")  # the market is closed
    _send(order)
    assert f.read_again(order).state == OrderState.PENDING
    assert stub.exchange.placed == {}
    stub.exchange.quote("CONF1USDT", *quote)
    _due_again(order)
    _send(order)
    assert f.read_again(order).broker_order_id
    assert [placed.status for placed in stub.exchange.placed.values()] == ["FILLED"]


def test_an_exit_whose_answer_was_lost_is_found_by_another_worker_and_not_sent_again(
    stub: StubServer, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_what_threads_sent(monkeypatch)
    stub.exchange.fault("lose_answer", order.client_order_id)
    _send(order)
    assert f.read_again(order).state == OrderState.UNKNOWN
    _due_again(order)
    _send(order)
    assert f.read_again(order).broker_order_id
    assert len(stub.exchange.placed) == 1


def test_an_exit_whose_request_was_lost_is_never_sent_again_by_itself(
    stub: StubServer, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_what_threads_sent(monkeypatch)
    stub.exchange.fault("lose_request", order.client_order_id)
    _send(order)
    for _ in range(3):
        _due_again(order)
        _send(order)
    assert f.read_again(order).state == OrderState.UNKNOWN
    assert stub.exchange.placed == {}
