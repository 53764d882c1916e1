"""Cases about what a venue says: holdings, exact figures, partial fills, streams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orders.brokers.protocol import (
    OrderType,
    TimeInForce,
)
from orders.errors import Refused
from tests.brokers.conformance.desk import BUY, SELL, D, Desk, MakeBroker, S, VenueFault, eventually, watching

# -- what the account has


def test_open_orders_are_those_that_have_not_ended(desk: Desk) -> None:
    resting, gone, filled = desk.resting(), desk.resting(), desk.request(BUY, "1")
    for request in (resting, gone, filled):
        desk.broker.submit(request)
    desk.broker.cancel(desk.ref(gone))
    desk.settled(gone, states={S.CANCELLED})
    desk.settled(filled, states={S.FILLED})
    ours = {resting.client_order_id, gone.client_order_id, filled.client_order_id}
    listed = [report for report in desk.broker.open_orders() if report.client_order_id in ours]
    assert [(report.client_order_id, report.state) for report in listed] == [(resting.client_order_id, S.WORKING)]


def test_a_short_position_is_negative(desk: Desk) -> None:
    desk.need("shorting")
    request = desk.request(SELL, "5")
    desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    assert desk.position() == (D(-5), D(-5))


def test_the_account_knows_its_money(desk: Desk) -> None:
    account = desk.broker.account()
    assert account.account_number
    assert not account.blocked
    assert account.equity > 0
    assert account.buying_power >= 0


def test_an_instrument_knows_its_increments(desk: Desk) -> None:
    facts = desk.broker.instrument(desk.symbol)
    assert facts is not None
    assert (facts.symbol, facts.tradable) == (desk.symbol, True)
    assert facts.tick > 0
    assert facts.lot > 0


def test_bars_come_oldest_first_with_their_extremes_outside(desk: Desk) -> None:
    if desk.venue.daily_bars is None:
        pytest.skip("the venue has no history")
    symbol, start, end, count = desk.venue.daily_bars
    bars = desk.broker.bars(symbol, start=start, end=end, seconds=86_400)
    assert len(bars) == count
    assert [bar.start for bar in bars] == sorted({bar.start for bar in bars})
    assert all(bar.start.utcoffset() is not None and bar.symbol == symbol for bar in bars)
    assert all(0 < bar.low <= min(bar.open, bar.close) for bar in bars)
    assert all(bar.high >= max(bar.open, bar.close) for bar in bars)


def test_bars_of_an_odd_length_are_refused_for_good(desk: Desk) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(Refused) as caught:
        desk.broker.bars(desk.symbol, start=now - timedelta(days=1), end=now, seconds=7)
    assert caught.value.permanent


# -- exact decimals


@pytest.mark.parametrize("quantity", ["0.1", "3.333333333", "12345678.123456789"])
def test_fractions_make_the_round_trip_digit_by_digit(desk: Desk, quantity: str) -> None:
    desk.need("fractional")
    desk.venue.set_price(desk.symbol, bid=D("0.04"), ask=D("0.05"))
    request = desk.request(BUY, quantity)
    assert desk.broker.submit(request).quantity == D(quantity)
    report = desk.settled(request, states={S.FILLED})
    assert (report.quantity, report.filled_quantity) == (D(quantity), D(quantity))
    assert sum(fill.quantity for fill in report.executions) == D(quantity)
    assert desk.position() == (D(quantity), D(quantity))


def test_prices_make_the_round_trip_digit_by_digit(desk: Desk) -> None:
    desk.venue.set_price(desk.symbol, bid=D("0.1001"), ask=D("0.3003"))
    request = desk.request(BUY, "3")
    desk.broker.submit(request)
    report = desk.settled(request, states={S.FILLED})
    assert report.average_fill_price == D("0.3003")
    assert [fill.price for fill in report.executions] == [D("0.3003")]


# -- partial fills


def test_a_partial_fill_is_working_and_its_cancel_keeps_what_filled(desk: Desk) -> None:
    desk.require(VenueFault.PARTIAL_FILL)
    request = desk.request(BUY, "10", order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=TimeInForce.GTC)
    desk.venue.inject(VenueFault.PARTIAL_FILL, client_order_id=request.client_order_id)
    desk.broker.submit(request)
    partly = eventually(lambda: report if (report := desk.find(request)).filled_quantity else None)
    assert (partly.state, partly.filled_quantity, partly.quantity) == (S.WORKING, D(5), D(10))
    desk.broker.cancel(desk.ref(request))
    ended = desk.settled(request, states={S.CANCELLED})
    assert (ended.filled_quantity, sum(fill.quantity for fill in ended.executions)) == (D(5), D(5))
    assert desk.position() == (D(5), D(5))


# -- the stream


def test_stream_look_up_and_venue_agree_on_every_execution(desk: Desk, make_broker: MakeBroker) -> None:
    with watching(desk, make_broker) as stream:
        requests = [desk.request(BUY, str(quantity)) for quantity in (1, 2, 3)]
        for request in requests:
            desk.broker.submit(request)
        for request in requests:
            stream.wait_for(request, S.FILLED)
            report = desk.settled(request, states={S.FILLED})
            truth = sorted(desk.venue.executions(request.client_order_id))
            assert truth == sorted((f.execution_id, f.quantity, f.price) for f in report.executions)
            told = stream.executions(request).values()
            assert truth == sorted((f.execution_id, f.quantity, f.price) for f in told)


def test_partial_fills_are_separate_executions_that_add_up(desk: Desk, make_broker: MakeBroker) -> None:
    desk.need("update_stream")
    desk.require(VenueFault.PARTIAL_FILL)
    with watching(desk, make_broker) as stream:
        request = desk.request(
            BUY, "10", order_type=OrderType.LIMIT, limit_price=D("101"), time_in_force=TimeInForce.GTC
        )
        desk.venue.inject(VenueFault.PARTIAL_FILL, client_order_id=request.client_order_id)
        desk.broker.submit(request)
        eventually(lambda: stream.executions(request))
        desk.venue.heal()
        desk.venue.set_price(desk.symbol, bid=D("99.98"), ask=D("100.00"))
        report = desk.settled(request, states={S.FILLED})
        stream.wait_for(request, S.FILLED)
        assert len(report.executions) == 2
        assert sum(fill.quantity for fill in report.executions) == D(10)
        assert stream.executions(request) == {f.execution_id: f for f in report.executions}
        assert [r.state for r in stream.of(request) if r.executions] == [S.WORKING, S.FILLED]


def test_repeated_updates_carry_the_same_ids(desk: Desk, make_broker: MakeBroker) -> None:
    desk.need("update_stream")
    desk.require(VenueFault.REPEAT_UPDATES)
    desk.venue.inject(VenueFault.REPEAT_UPDATES)
    with watching(desk, make_broker) as stream:
        request = desk.request(BUY, "6")
        desk.broker.submit(request)
        fills = eventually(lambda: found if len(found := [r for r in stream.of(request) if r.executions]) > 1 else None)
        assert {fill.execution_id for report in fills for fill in report.executions} == {
            desk.venue.executions(request.client_order_id)[0][0]
        }


def test_after_a_cut_the_stream_is_back_and_asks_for_a_snapshot(desk: Desk, make_broker: MakeBroker) -> None:
    desk.need("update_stream")
    desk.require(VenueFault.CUT_STREAM)
    with watching(desk, make_broker) as stream:
        desk.venue.inject(VenueFault.CUT_STREAM)
        missed = desk.request(BUY, "1")
        desk.broker.submit(missed)
        eventually(lambda: stream.connects == 2, within=10)
        # what happened meanwhile is not replayed, so the caller asks: nothing is missing then
        assert desk.settled(missed, states={S.FILLED}).filled_quantity == 1
        seen = desk.request(BUY, "2")
        desk.broker.submit(seen)
        stream.wait_for(seen, S.FILLED)


def test_a_failing_handler_does_not_end_the_stream(desk: Desk, make_broker: MakeBroker) -> None:
    with watching(desk, make_broker) as stream:
        stream.fail_next = 1
        first, second = desk.resting(), desk.resting()
        desk.broker.submit(first)
        eventually(lambda: stream.fail_next == 0)
        desk.broker.submit(second)
        eventually(lambda: stream.of(second))
        assert stream.connects == 1
