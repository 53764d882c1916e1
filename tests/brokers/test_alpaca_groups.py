"""Grouped, replaced and extended-hours orders: the Alpaca adapter against the broker in a box."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.alpaca import AlpacaBroker, connect
from orders.brokers.alpaca_groups import group_report, missing_stop
from orders.brokers.alpaca_stream import watch
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
from orders.errors import NotSent, OutcomeUnknown, RefusalKind, Refused
from tests.brokers.conformance.desk import eventually
from tests.brokers.test_alpaca_mapping import order
from tests.simulator.box import Box, start_box

D = Decimal
S = ReportedState
BUY, SELL = OrderSide.BUY, OrderSide.SELL


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    running = start_box(tmp_path_factory.mktemp("box"))
    yield running
    running.stop()


@pytest.fixture
def broker(box: Box) -> Iterator[AlpacaBroker]:
    """Give an adapter of an empty account, AAPL quoted at 100."""
    box.control("POST", "/reset")
    box.quote("AAPL", "100")
    adapter = connect(base_url=box.url, key=box.key, secret=box.secret)
    yield adapter
    adapter.close()
    box.control("DELETE", "/faults")


def hold(box: Box, quantity: str = "10") -> None:
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": quantity, "avg_entry_price": "100"})


def wanted(client_order_id: str, side: OrderSide = SELL, **fields: Any) -> SubmitRequest:
    fields = {"quantity": D(10), "time_in_force": TimeInForce.GTC} | fields
    return SubmitRequest(client_order_id=client_order_id, symbol="AAPL", side=side, **fields)


def oco(client_order_id: str = "oco", **fields: Any) -> SubmitRequest:
    prices = {"limit_price": D(103), "stop_leg_stop": D(98)} | fields
    return wanted(client_order_id, order_type=OrderType.LIMIT, order_class=OrderClass.OCO, **prices)


def stop(client_order_id: str = "stop", **fields: Any) -> SubmitRequest:
    return wanted(client_order_id, **{"order_type": OrderType.STOP, "stop_price": D(95)} | fields)


def found(broker: AlpacaBroker, client_order_id: str = "", broker_order_id: str = "") -> OrderReport:
    report = broker.find_order(OrderRef(client_order_id=client_order_id, broker_order_id=broker_order_id))
    assert report is not None
    return report


def becomes(broker: AlpacaBroker, state: ReportedState, client_order_id: str) -> OrderReport:
    return eventually(lambda: report if (report := found(broker, client_order_id)).state is state else None)


# -- groups


def test_an_oco_comes_back_with_its_stop_and_one_fill_ends_the_other(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    placed = broker.submit(oco())
    (leg,) = placed.legs
    assert (placed.state, leg.state, leg.raw_status) == (S.WORKING, S.WORKING, "held")
    assert (leg.side, leg.quantity) == (SELL, D(10))
    alone = found(broker, broker_order_id=leg.broker_order_id)
    assert (alone.broker_order_id, alone.legs, alone.reason) == (leg.broker_order_id, (), "")
    box.quote("AAPL", "97")
    ended = becomes(broker, S.CANCELLED, "oco")
    (leg,) = ended.legs
    assert (leg.state, leg.filled_quantity, leg.average_fill_price) == (S.FILLED, D(10), D(97))
    assert [(fill.quantity, fill.price) for fill in leg.executions] == [(D(10), D(97))]
    assert (ended.filled_quantity, ended.executions) == (D(0), ())
    assert found(broker, broker_order_id=leg.broker_order_id).executions == leg.executions
    assert broker.positions() == []


def test_a_bracket_waits_with_held_legs_and_its_target_ends_its_stop(broker: AlpacaBroker, box: Box) -> None:
    entry = wanted("entry", BUY, order_class=OrderClass.BRACKET, target_limit=D(103), stop_leg_stop=D(98))
    placed = broker.submit(entry)
    assert [leg.side for leg in placed.legs] == [SELL, SELL]
    target, protecting = becomes(broker, S.FILLED, "entry").legs
    assert (target.state, protecting.state, protecting.raw_status) == (S.WORKING, S.WORKING, "held")
    box.quote("AAPL", "103.5")
    eventually(lambda: found(broker, broker_order_id=target.broker_order_id).state is S.FILLED)
    eventually(lambda: found(broker, broker_order_id=protecting.broker_order_id).state is S.CANCELLED)
    assert broker.positions() == []


def test_an_entry_with_a_stop_alone(broker: AlpacaBroker) -> None:
    broker.submit(wanted("entry", BUY, order_class=OrderClass.OTO, stop_leg_stop=D(98)))
    filled = becomes(broker, S.FILLED, "entry")
    assert [(leg.side, leg.quantity, leg.state) for leg in filled.legs] == [(SELL, D(10), S.WORKING)]


def test_open_orders_list_a_group_and_each_of_its_legs(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    placed = broker.submit(oco())
    listed = {report.broker_order_id for report in broker.open_orders()}
    assert listed == {placed.broker_order_id, placed.legs[0].broker_order_id}


def test_a_group_that_came_twice_is_one_group(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    first, second = broker.submit(oco()), broker.submit(oco())
    assert (second.broker_order_id, second.legs[0].broker_order_id) == (
        first.broker_order_id,
        first.legs[0].broker_order_id,
    )


@pytest.mark.parametrize(
    ("_case", "request_", "kind"),
    [
        ("an OCO needs a position to leave", oco(), RefusalKind.INVALID),
        ("a group without its stop", oco(stop_leg_stop=None), RefusalKind.INVALID),
        ("a stop of a group above its target", oco(stop_leg_stop=D(104)), RefusalKind.INVALID),
        ("groups are of whole shares", oco(quantity=D("2.5"), time_in_force=TimeInForce.DAY), RefusalKind.INVALID),
    ],
)
def test_a_group_that_cannot_be_leaves_nothing_behind(
    _case: str, request_: SubmitRequest, kind: RefusalKind, broker: AlpacaBroker
) -> None:
    with pytest.raises(Refused) as caught:
        broker.submit(request_)
    assert caught.value.kind in (kind, RefusalKind.PRICE)
    assert broker.open_orders() == []


LEG = {"id": "leg", "side": "sell", "type": "stop", "stop_price": "98", "qty": "10", "status": "held"}


def group(*legs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return order(
        order_class="oco",
        type="limit",
        side="sell",
        qty="10",
        status="new",
        legs=[order(**leg) for leg in legs],
        **fields,
    )


@pytest.mark.parametrize(
    ("_case", "placed", "fault"),
    [
        ("as asked for", group(LEG), ""),
        ("more digits, same price", group(LEG | {"stop_price": "98.00"}), ""),
        ("no legs at all", group(), "the group has no stop"),
        ("only a target", group(LEG | {"type": "limit"}), "the group has no stop"),
        ("a stop that ended", group(LEG | {"status": "rejected"}), "the group has no stop"),
        ("for less", group(LEG | {"qty": "4"}), "the stop of the group is to sell 4 at 98"),
        ("at another price", group(LEG | {"stop_price": "89"}), "the stop of the group is to sell 10 at 89"),
        ("the wrong way", group(LEG | {"side": "buy"}), "the stop of the group is to buy 10 at 98"),
        ("a group that ended protects nothing, nor need it", group() | {"status": "rejected"}, ""),
    ],
)
def test_a_group_is_only_there_with_the_stop_that_was_asked_for(_case: str, placed: dict[str, Any], fault: str) -> None:
    assert missing_stop(placed, request=oco()) == fault


@pytest.mark.parametrize(
    ("_case", "read", "reason"),
    [
        ("with a stop", group(LEG), ""),
        ("the stop is gone while the target works", group(LEG | {"status": "canceled"}), "its group has no stop"),
        ("the stop itself", group() | {"type": "stop"}, ""),
        ("all is over", group(LEG | {"status": "filled"}) | {"status": "canceled"}, ""),
    ],
)
def test_a_group_that_is_read_says_when_it_protects_nothing(_case: str, read: dict[str, Any], reason: str) -> None:
    assert group_report(read).reason == reason


def test_a_group_without_its_stop_is_called_off(
    broker: AlpacaBroker, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(box)
    send, ask = broker._transport.send, broker._transport.ask

    def without_legs(answer: Any) -> Any:
        if isinstance(answer.body, dict) and "legs" in answer.body:
            answer.body["legs"] = None
        return answer

    monkeypatch.setattr(broker._transport, "send", lambda *args: without_legs(send(*args)))
    monkeypatch.setattr(broker._transport, "ask", lambda *args: without_legs(ask(*args)))
    with pytest.raises(OutcomeUnknown, match="the group has no stop, and it was called off"):
        broker.submit(oco())
    monkeypatch.undo()
    assert becomes(broker, S.CANCELLED, "oco").filled_quantity == 0


# -- replacing


def test_a_stop_is_moved_and_the_chain_can_be_followed(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    placed = broker.submit(stop("first"))
    becomes(broker, S.WORKING, "first")
    ref = OrderRef(client_order_id="first", broker_order_id=placed.broker_order_id)
    successor = broker.replace(ref, Replacement(client_order_id="second", stop_price=D(97)))
    assert (successor.client_order_id, successor.quantity, successor.state) == ("second", D(10), S.WORKING)
    replaced = becomes(broker, S.REPLACED, "first")
    assert replaced.replaced_by == successor.broker_order_id
    assert found(broker, broker_order_id=replaced.replaced_by).client_order_id == "second"
    box.quote("AAPL", "96.5")
    assert becomes(broker, S.FILLED, "second").filled_quantity == D(10)
    assert broker.positions() == []


def test_the_stop_of_an_oco_is_moved_by_its_brokers_id(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    leg = broker.submit(oco()).legs[0]
    becomes(broker, S.WORKING, "oco")
    ref = OrderRef(client_order_id="", broker_order_id=leg.broker_order_id)
    moved = eventually(
        lambda: _try(lambda: broker.replace(ref, Replacement(client_order_id="leg-2", stop_price=D(99))))
    )
    eventually(lambda: found(broker, broker_order_id=leg.broker_order_id).state is S.REPLACED)
    box.quote("AAPL", "98.5")
    assert becomes(broker, S.FILLED, "leg-2").broker_order_id == moved.broker_order_id
    assert becomes(broker, S.CANCELLED, "oco").filled_quantity == 0


def _try(act: Any) -> Any:
    try:
        return act()
    except Refused:
        return None


def test_of_an_order_in_part_filled_the_rest_alone_is_changed(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    box.control("POST", "/faults", {"kind": "partial_fill", "fraction": "0.4", "seconds": 600, "count": 1})
    placed = broker.submit(wanted("first", order_type=OrderType.LIMIT, limit_price=D(99)))
    eventually(lambda: found(broker, "first").filled_quantity == D(4))
    bodies: list[dict[str, object]] = []
    change = broker._transport.change
    broker._transport.change = lambda path, body: bodies.append(body) or change(path, body)  # type: ignore[method-assign]
    ref = OrderRef(client_order_id="first", broker_order_id=placed.broker_order_id)
    successor = broker.replace(ref, Replacement(client_order_id="second", limit_price=D("99.5")))
    assert bodies == [{"client_order_id": "second", "qty": "6", "limit_price": "99.5"}]
    assert successor.quantity == D(6)
    assert becomes(broker, S.FILLED, "second").filled_quantity == D(6)
    assert becomes(broker, S.REPLACED, "first").filled_quantity == D(4)
    assert broker.positions() == []


def test_the_same_replacement_twice_is_one_successor(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    broker.submit(stop("first"))
    becomes(broker, S.WORKING, "first")
    change = Replacement(client_order_id="second", stop_price=D(96))
    ref = OrderRef(client_order_id="first")
    successor = eventually(lambda: _try(lambda: broker.replace(ref, change)))
    becomes(broker, S.REPLACED, "first")
    with pytest.raises(Refused) as caught:
        broker.replace(ref, change)
    assert caught.value.kind is RefusalKind.NOT_CANCELABLE
    again = broker.replace(OrderRef(client_order_id="second"), change)
    assert again.broker_order_id == successor.broker_order_id
    assert [report.client_order_id for report in broker.open_orders()] == ["second"]


@pytest.mark.parametrize(
    ("_case", "change", "kind", "permanent"),
    [
        ("an order that never was", None, RefusalKind.NOT_FOUND, True),
        ("parts of shares", {"quantity": D("2.5")}, RefusalKind.INVALID, True),
        ("a stop above the market", {"stop_price": D(105)}, RefusalKind.PRICE, False),
        ("more than is held", {"quantity": D(11)}, RefusalKind.HELD_QUANTITY, False),
    ],
)
def test_what_cannot_be_replaced_works_on_as_it_was(
    _case: str, change: dict[str, Any] | None, kind: RefusalKind, permanent: bool, broker: AlpacaBroker, box: Box
) -> None:
    hold(box)
    broker.submit(stop("first"))
    becomes(broker, S.WORKING, "first")
    ref = OrderRef(client_order_id="first" if change else "nobody")
    with pytest.raises(Refused) as caught:
        broker.replace(ref, Replacement(client_order_id="second", **(change or {"stop_price": D(96)})))
    assert (caught.value.kind, caught.value.permanent) == (kind, permanent)
    assert found(broker, "first").state is S.WORKING
    assert broker.find_order(OrderRef(client_order_id="second")) is None


@pytest.mark.parametrize(
    ("_case", "fault", "changed"),
    [
        ("the answer is lost", {"kind": "drop_after_accept"}, True),
        ("the request is lost", {"kind": "drop_before_accept"}, False),
        ("an error page", {"kind": "status", "status": 503}, False),
    ],
)
def test_a_replacement_without_an_answer_is_unknown_and_its_own_id_tells(
    _case: str, fault: dict[str, Any], changed: bool, broker: AlpacaBroker, box: Box
) -> None:
    hold(box)
    placed = broker.submit(stop("first"))
    becomes(broker, S.WORKING, "first")
    box.control("POST", "/faults", {"faults": [fault | {"count": 1, "match": {"method": "PATCH"}}]})
    ref = OrderRef(client_order_id="first", broker_order_id=placed.broker_order_id)
    with pytest.raises(OutcomeUnknown):
        broker.replace(ref, Replacement(client_order_id="second", stop_price=D(96)))
    becomes(broker, S.REPLACED if changed else S.WORKING, "first")
    assert (broker.find_order(OrderRef(client_order_id="second")) is not None) is changed


def test_a_filled_order_cannot_be_replaced(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    broker.submit(wanted("gone", time_in_force=TimeInForce.DAY))
    becomes(broker, S.FILLED, "gone")
    with pytest.raises(Refused) as caught:
        broker.replace(OrderRef(client_order_id="gone"), Replacement(client_order_id="next", quantity=D(5)))
    assert caught.value.kind is RefusalKind.NOT_CANCELABLE


def test_an_order_that_waits_for_the_session_cannot_be_replaced_yet(broker: AlpacaBroker, box: Box) -> None:
    hold(box)
    box.control("POST", "/clock", {"is_open": False})
    broker.submit(stop("waiting"))
    eventually(lambda: found(broker, "waiting").raw_status == "accepted")
    with pytest.raises(Refused) as caught:
        broker.replace(OrderRef(client_order_id="waiting"), Replacement(client_order_id="next", stop_price=D(96)))
    assert (caught.value.kind, caught.value.permanent) == (RefusalKind.NOT_CANCELABLE, False)


# -- outside the session, and parts of shares


@pytest.mark.parametrize(
    ("_case", "is_open", "type_", "limit"), [("in it", True, "market", None), ("outside", False, "limit", "99")]
)
def test_a_market_order_for_all_hours(
    _case: str, is_open: bool, type_: str, limit: str | None, broker: AlpacaBroker, box: Box
) -> None:
    hold(box)
    box.control("POST", "/clock", {"is_open": is_open})
    broker.submit(wanted("exit", extended_hours=True, time_in_force=TimeInForce.DAY))
    filled = becomes(broker, S.FILLED, "exit")
    assert filled.average_fill_price == D(100)
    sent = box.api("GET", f"/v2/orders/{filled.broker_order_id}")[1]
    assert (sent["type"], sent["limit_price"], sent["extended_hours"]) == (type_, limit, not is_open)


def test_outside_the_session_nothing_leaves_without_a_quote(broker: AlpacaBroker, box: Box) -> None:
    box.control("POST", "/reset")
    hold(box)
    box.control("POST", "/clock", {"is_open": False})
    with pytest.raises(NotSent):
        broker.submit(wanted("exit", extended_hours=True))
    assert broker.find_order(OrderRef(client_order_id="exit")) is None


@pytest.mark.parametrize(
    ("_case", "time_in_force", "refused"),
    [("for the day", TimeInForce.DAY, False), ("beyond the day", TimeInForce.GTC, True)],
)
def test_a_stop_for_parts_of_shares_is_for_the_day(
    _case: str, time_in_force: TimeInForce, refused: bool, broker: AlpacaBroker, box: Box
) -> None:
    hold(box, "2.5")
    request = stop("part", quantity=D("2.5"), time_in_force=time_in_force)
    if not refused:
        assert broker.submit(request).quantity == D("2.5")
        return
    with pytest.raises(Refused) as caught:
        broker.submit(request)
    assert (caught.value.kind, caught.value.permanent) == (RefusalKind.INVALID, True)
    assert broker.open_orders() == []


# -- the stream


def test_a_stream_that_says_nothing_is_left_for_a_new_one(box: Box, broker: AlpacaBroker) -> None:
    connects: list[None] = []
    done = threading.Event()
    thread = threading.Thread(
        target=lambda: watch(
            url=f"{box.ws_url}/stream",
            key=box.key,
            secret=box.secret,
            on_reports=lambda _reports: None,
            on_connected=lambda: connects.append(None),
            until=done.is_set,
            quiet_seconds=0.1,
        )
    )
    thread.start()
    try:
        eventually(lambda: len(connects) >= 2, within=8)
    finally:
        done.set()
        thread.join(timeout=5)
    assert not thread.is_alive()
