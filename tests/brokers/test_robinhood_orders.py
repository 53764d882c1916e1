"""What the Robinhood adapter sends and tells, against a server of our own that keeps its own books."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.protocol import (
    OrderClass,
    OrderRef,
    OrderReport,
    OrderSide,
    OrderType,
    Replacement,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.brokers.registry import UnknownBroker
from orders.brokers.registry import connect as broker_of
from orders.brokers.robinhood import RobinhoodBroker, connect
from orders.brokers.robinhood_payloads import ref_id
from orders.errors import NotSent, OutcomeUnknown, RefusalKind, Refused
from tests.brokers.conformance.desk import eventually
from tests.brokers.stub_robinhood import PAGE, StubRobinhood
from tests.factories import make_account

D = Decimal
K = RefusalKind
S = ReportedState
BUY, SELL = OrderSide.BUY, OrderSide.SELL


@pytest.fixture(scope="module")
def server() -> Iterator[StubRobinhood]:
    """Run one server for the module."""
    running = StubRobinhood(token="a token", symbols=("AAPL", "MSFT"))
    yield running
    running.close()


@pytest.fixture
def stub(server: StubRobinhood) -> StubRobinhood:
    """Give the server emptied, AAPL quoted at 100 to 100.10 and ten of it held."""
    server.reset()
    server.set_price("AAPL", bid=D(100), ask=D("100.10"))
    server.held["AAPL"] = (D(10), D(90))
    return server


@pytest.fixture
def broker(stub: StubRobinhood) -> Iterator[RobinhoodBroker]:
    """Give an adapter of the server's account."""
    adapter = connect(base_url=stub.url, token=stub.token)
    yield adapter
    adapter.close()


def wanted(side: OrderSide = SELL, quantity: str = "10", client_order_id: str = "xm-1", **fields: Any) -> SubmitRequest:
    return SubmitRequest(client_order_id=client_order_id, symbol="AAPL", side=side, quantity=D(quantity), **fields)


# -- what is sent


GFD_MARKET = {"type": "market", "trigger": "immediate", "time_in_force": "gfd"}


@pytest.mark.parametrize(
    ("_case", "request_", "expected"),
    [
        ("a market sale", wanted(), GFD_MARKET),
        ("a market sale is never good till cancelled", wanted(time_in_force=TimeInForce.GTC), GFD_MARKET),
        ("parts of shares by market", wanted(quantity="2.500000"), GFD_MARKET | {"quantity": "2.5"}),
        (
            "a market purchase is a limit 5 % above the ask",
            wanted(BUY),
            GFD_MARKET | {"type": "limit", "price": "105.11", "preset_percent_limit": "0.05"},
        ),
        (
            "outside the session a sale is a limit 5 % below the bid",
            wanted(extended_hours=True),
            GFD_MARKET | {"type": "limit", "price": "95", "market_hours": "extended_hours", "extended_hours": True},
        ),
        (
            "a stop",
            wanted(order_type=OrderType.STOP, stop_price=D("95.00"), time_in_force=TimeInForce.GTC),
            {"type": "market", "trigger": "stop", "stop_price": "95", "time_in_force": "gtc"},
        ),
        (
            "a stop with a limit",
            wanted(order_type=OrderType.STOP_LIMIT, stop_price=D(95), limit_price=D("94.50")),
            {"type": "limit", "trigger": "stop", "stop_price": "95", "price": "94.5", "time_in_force": "gfd"},
        ),
        (
            "a limit",
            wanted(order_type=OrderType.LIMIT, limit_price=D("101.10"), time_in_force=TimeInForce.GTC),
            {"type": "limit", "trigger": "immediate", "price": "101.1", "time_in_force": "gtc"},
        ),
    ],
)
def test_an_order_becomes_a_body(
    _case: str, request_: SubmitRequest, expected: dict[str, Any], broker: RobinhoodBroker, stub: StubRobinhood
) -> None:
    broker.submit(request_)
    (sent,) = stub.bodies
    assert (
        sent
        == {
            "account": f"{stub.url}/accounts/5RY82436/",
            "instrument": f"https://api.robinhood.com/instruments/{stub.symbols['AAPL']}/",
            "symbol": "AAPL",
            "ref_id": ref_id("xm-1"),
            "side": str(request_.side),
            "quantity": "10",
            "market_hours": "regular_hours",
            "extended_hours": False,
            "order_form_version": 4,
        }
        | expected
    )


def test_a_second_order_asks_for_nothing_but_itself(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    broker.submit(wanted(quantity="1"))
    stub.requests.clear()
    broker.submit(wanted(quantity="1", client_order_id="xm-2"))
    assert stub.requests == [("POST", "/orders/")]


@pytest.mark.parametrize(
    ("_case", "fields"),
    [
        ("a group", {"order_class": OrderClass.OCO, "stop_leg_stop": D(90)}),
        ("a trail", {"order_type": OrderType.TRAILING_STOP, "trail_percent": D(2)}),
        ("at once or never", {"time_in_force": TimeInForce.IOC}),
    ],
)
def test_what_there_is_no_such_thing_of_is_refused_without_asking(
    _case: str, fields: dict[str, Any], broker: RobinhoodBroker, stub: StubRobinhood
) -> None:
    with pytest.raises(Refused) as caught:
        broker.submit(wanted(**fields))
    assert (caught.value.kind, caught.value.permanent) == (K.INVALID, True)
    assert stub.requests == []


def test_there_is_no_replacing(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    assert not broker.capabilities.replace
    with pytest.raises(Refused):
        broker.replace(OrderRef(client_order_id="xm-1"), Replacement(client_order_id="xm-2", stop_price=D(96)))
    assert stub.requests == []


def test_parts_of_shares_have_no_stop(broker: RobinhoodBroker) -> None:
    with pytest.raises(Refused) as caught:
        broker.submit(wanted(quantity="2.5", order_type=OrderType.STOP, stop_price=D(95)))
    assert (caught.value.kind, caught.value.permanent) == (K.INVALID, True)
    assert broker.open_orders() == []


@pytest.mark.parametrize("fault", ["server_error", "lose_answer"])
def test_while_a_question_fails_the_order_was_not_sent(
    fault: str, broker: RobinhoodBroker, stub: StubRobinhood
) -> None:
    stub.inject(fault)
    with pytest.raises(NotSent):
        broker.submit(wanted())
    assert stub.bodies == []


def test_a_purchase_nobody_quotes_is_not_sent(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    stub.quotes["AAPL"] = (D(0), D(0))
    with pytest.raises(NotSent):
        broker.submit(wanted(BUY))
    assert stub.bodies == []


def test_the_same_order_twice_is_one_order(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    request = wanted(order_type=OrderType.STOP, stop_price=D(95))
    first, second = broker.submit(request), broker.submit(request)
    assert second.broker_order_id == first.broker_order_id
    assert len(stub.of_client("xm-1")) == 1


# -- what comes back


def test_an_odd_order_does_not_hide_the_others(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    broker.submit(wanted(quantity="3", order_type=OrderType.STOP, stop_price=D(95)))
    broker.submit(wanted(quantity="3", order_type=OrderType.STOP, stop_price=D(94), client_order_id="xm-2"))
    stub.of_client("xm-1")[0].side = "sideways"
    assert [report.client_order_id for report in broker.open_orders()] == ["xm-2"]


def test_an_order_is_found_beyond_the_first_page_at_our_own_address(
    broker: RobinhoodBroker, stub: StubRobinhood
) -> None:
    stub.held["AAPL"] = (D(100), D(90))
    for number in range(PAGE * 2 + 1):
        broker.submit(wanted(quantity="1", order_type=OrderType.STOP, stop_price=D(95), client_order_id=f"xm-{number}"))
    found = broker.find_order(OrderRef(client_order_id="xm-0"))
    assert found is not None
    assert (found.client_order_id, found.symbol, found.state) == ("xm-0", "AAPL", S.WORKING)
    assert len(broker.open_orders()) == PAGE * 2 + 1


def test_pages_without_end_do_not_prove_that_there_is_no_order(
    broker: RobinhoodBroker, stub: StubRobinhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.brokers.robinhood_transport.MOST_PAGES", 1)
    for number in range(PAGE + 1):
        broker.submit(wanted(BUY, "1", f"xm-{number}"))
    with pytest.raises(OutcomeUnknown, match="more than 1 pages"):
        broker.find_order(OrderRef(client_order_id="xm-none"))


def test_an_order_of_somebody_else_is_named_by_its_ref_id(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    broker.submit(wanted(order_type=OrderType.STOP, stop_price=D(95)))
    stub.of_client("xm-1")[0].ref_id = "11111111-1111-4111-8111-111111111111"
    (report,) = broker.open_orders()
    assert report.client_order_id == "11111111-1111-4111-8111-111111111111"


def test_an_order_under_anothers_id_is_not_ours(broker: RobinhoodBroker) -> None:
    placed = broker.submit(wanted(order_type=OrderType.STOP, stop_price=D(95)))
    with pytest.raises(OutcomeUnknown):
        broker.find_order(OrderRef(client_order_id="xm-2", broker_order_id=placed.broker_order_id))


def test_holdings_and_money(broker: RobinhoodBroker, stub: StubRobinhood) -> None:
    broker.submit(wanted(quantity="4", order_type=OrderType.STOP, stop_price=D(95)))
    (holding,) = broker.positions()
    assert (holding.symbol, holding.quantity, holding.available) == ("AAPL", D(10), D(6))
    assert holding.average_entry == D(90)
    account = broker.account()
    assert (account.account_number, account.cash, account.equity) == ("5RY82436", D(1_000_000), D(1_000_900))
    assert not account.blocked


def test_an_account_the_token_does_not_open(stub: StubRobinhood) -> None:
    broker = connect(base_url=stub.url, token=stub.token, account_number="777")
    with pytest.raises(NotSent, match="777"):
        broker.submit(wanted())
    assert stub.bodies == []
    broker.close()


# -- following


def test_changes_are_told_by_asking_and_a_deaf_caller_is_told_again(
    broker: RobinhoodBroker, stub: StubRobinhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.brokers.robinhood_watch.POLL_SECONDS", 0.01)
    told: list[OrderReport] = []
    connects: list[None] = []
    deaf = [True]

    def hear(reports: Any) -> None:
        if deaf.pop() if deaf else False:
            raise RuntimeError("a handler of this test fails on purpose")
        told.extend(reports)

    done = threading.Event()
    follow = connect(base_url=stub.url, token=stub.token)
    thread = threading.Thread(
        target=lambda: follow.watch_orders(
            on_reports=hear, on_connected=lambda: connects.append(None), until=done.is_set
        )
    )
    broker.submit(wanted(order_type=OrderType.STOP, stop_price=D(95)))
    thread.start()
    try:
        eventually(lambda: told)
        assert len(connects) == 2
        stub.inject("server_error")
        eventually(lambda: len(connects) == 3)
        stub.set_price("AAPL", bid=D(94), ask=D("94.10"))
        eventually(lambda: [report for report in told if report.state is S.FILLED])
    finally:
        done.set()
        thread.join(timeout=5)
        follow.close()
    assert [fill.price for fill in told[-1].executions] == [D(94)]


# -- from an account


@pytest.mark.django_db
def test_an_account_that_names_robinhood_is_served_by_it(stub: StubRobinhood) -> None:
    account = make_account(broker="robinhood", url=stub.url)
    account.credentials = {"token": stub.token}
    account.save()
    served = broker_of([account.pk])(account.pk)
    assert isinstance(served, RobinhoodBroker)
    assert [holding.symbol for holding in served.positions()] == ["AAPL"]
    served.close()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("_case", "credentials"),
    [("another broker's", {"key": "k", "secret": "s"}), ("empty", {"token": ""}), ("none", {})],
)
def test_an_account_without_a_token_waits_for_one(_case: str, credentials: dict[str, str], stub: StubRobinhood) -> None:
    account = make_account(broker="robinhood", url=stub.url)
    account.credentials = credentials
    account.save()
    with pytest.raises(UnknownBroker, match=account.name):
        broker_of([account.pk])(account.pk)
    assert stub.requests == []
