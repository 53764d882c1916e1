"""Cases about each order type and time in force that a venue declares, and about the adapter itself."""

from __future__ import annotations

from decimal import Decimal

import pytest

from orders.brokers.protocol import (
    Capabilities,
    OrderRef,
    OrderSide,
    OrderType,
    TimeInForce,
)
from orders.errors import BrokerError, OutcomeUnknown, Refused
from tests.brokers.conformance.desk import BUY, ENDED, PRICE, SELL, D, Desk, S

# -- every order type and time in force that the venue declares


def _prices(order_type: OrderType, side: OrderSide) -> dict[str, Decimal]:
    """Return prices at which an order of this type rests while the market stands at 100."""
    far, near = (D("80"), D("90")) if side is SELL else (D("120"), D("110"))
    limit = D("110") if side is SELL else D("90")
    return {
        OrderType.MARKET: {},
        OrderType.LIMIT: {"limit_price": limit},
        OrderType.STOP: {"stop_price": near},
        OrderType.STOP_LIMIT: {"stop_price": near, "limit_price": far},
        OrderType.TRAILING_STOP: {"trail_percent": D(10)},
    }[order_type]


@pytest.mark.parametrize("side", list(OrderSide))
@pytest.mark.parametrize("order_type", [kind for kind in OrderType if kind is not OrderType.MARKET])
def test_each_order_type_rests_and_then_fills(desk: Desk, order_type: OrderType, side: OrderSide) -> None:
    desk.require_order_type(order_type)
    if side is BUY:
        desk.need("shorting")  # what these buys leave
    desk.venue.hold(desk.symbol, quantity=D(-side.sign * 4), price=PRICE)
    request = desk.request(side, "4", order_type=order_type, time_in_force=TimeInForce.GTC, **_prices(order_type, side))
    placed = desk.broker.submit(request)
    assert placed.state is S.WORKING
    assert desk.find(request).state is S.WORKING
    toward = D("111") if (side is SELL) is (order_type is OrderType.LIMIT) else D("89")
    desk.venue.set_price(desk.symbol, bid=toward, ask=toward)
    filled = desk.settled(request, states={S.FILLED})
    assert (filled.filled_quantity, filled.average_fill_price) == (D(4), toward)
    assert desk.position() == (D(0), D(0))


@pytest.mark.parametrize("time_in_force", [TimeInForce.DAY, TimeInForce.GTC])
def test_a_resting_time_in_force_rests(desk: Desk, time_in_force: TimeInForce) -> None:
    desk.require_time_in_force(time_in_force)
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    desk.broker.submit(request)
    assert desk.find(request).state is S.WORKING


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_an_immediate_order_fills_now_or_never(desk: Desk, time_in_force: TimeInForce) -> None:
    desk.require_time_in_force(time_in_force)
    never = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    now = desk.request(order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=time_in_force)
    desk.broker.submit(never)
    desk.broker.submit(now)
    ended = desk.settled(never, states=ENDED)
    assert ended.state in {S.CANCELLED, S.EXPIRED}
    assert ended.filled_quantity == 0
    assert desk.settled(now, states={S.FILLED}).filled_quantity == 10


@pytest.mark.parametrize("time_in_force", [TimeInForce.OPG, TimeInForce.CLS])
def test_an_auction_order_waits_or_is_refused_but_is_never_unknown(desk: Desk, time_in_force: TimeInForce) -> None:
    desk.require_time_in_force(time_in_force)
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50"), time_in_force=time_in_force)
    try:
        desk.broker.submit(request)
    except Refused:
        assert desk.venue.orders(request.client_order_id) == []
    else:
        assert desk.find(request).state in {S.WORKING, S.EXPIRED, S.CANCELLED}


# -- the adapter itself


def test_declared_capabilities_are_of_the_protocols_kind(desk: Desk) -> None:
    capabilities = desk.broker.capabilities
    assert isinstance(capabilities, Capabilities)
    assert {OrderType.MARKET, OrderType.LIMIT} <= capabilities.order_types
    assert capabilities.times_in_force
    assert capabilities.settle_after_seconds > 0


def test_nothing_but_the_three_outcomes_leaves_an_adapter(desk: Desk) -> None:
    odd = OrderRef(client_order_id="", broker_order_id="not/an id?&#")
    try:
        assert desk.broker.find_order(odd) is None
    except BrokerError as error:
        assert isinstance(error, OutcomeUnknown)  # noqa: PT017  # none or unknown, as the venue words it
    with pytest.raises((Refused, OutcomeUnknown)):
        desk.broker.cancel(odd)
