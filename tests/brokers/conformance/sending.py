"""Cases about orders on their way in: acknowledgement, client ids, lost requests, refusals, cancels."""

from __future__ import annotations

import dataclasses
import time

import pytest

from orders.brokers.protocol import (
    OrderRef,
    OrderType,
    Replacement,
    TimeInForce,
)
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused
from tests.brokers.conformance.desk import (
    ASK,
    BID,
    BUY,
    LONGEST_CALL_SECONDS,
    PRICE,
    SELL,
    SILENCE_SECONDS,
    D,
    Desk,
    MakeBroker,
    S,
    VenueFault,
    eventually,
    refused,
)

# -- submit, acknowledge, fill


def test_an_order_is_acknowledged_and_fills(desk: Desk) -> None:
    request = desk.request(BUY, "10")
    acknowledged = desk.broker.submit(request)
    assert acknowledged.client_order_id == request.client_order_id
    assert acknowledged.broker_order_id
    assert acknowledged.state in {S.WORKING, S.FILLED}
    assert (acknowledged.symbol, acknowledged.side, acknowledged.quantity) == (desk.symbol, BUY, D(10))
    filled = desk.settled(request, states={S.FILLED})
    assert (filled.filled_quantity, filled.average_fill_price) == (D(10), ASK)
    assert [fill.price for fill in filled.executions] == [ASK]
    assert filled.broker_order_id == acknowledged.broker_order_id
    assert desk.position() == (D(10), D(10))


def test_an_exit_leaves_nothing_held(desk: Desk) -> None:
    desk.venue.hold(desk.symbol, quantity=D(7), price=PRICE)
    request = desk.request(SELL, "7")
    desk.broker.submit(request)
    assert desk.settled(request, states={S.FILLED}).average_fill_price == BID
    assert desk.position() == (D(0), D(0))


def test_times_are_aware(desk: Desk) -> None:
    request = desk.request(BUY, "1")
    desk.broker.submit(request)
    report = desk.settled(request, states={S.FILLED})
    assert report.at.utcoffset() is not None
    assert report.executions[0].at.utcoffset() is not None


# -- the client order id


def test_the_same_id_twice_is_one_order(desk: Desk) -> None:
    desk.need("durable_dedupe")
    request = desk.resting()
    first, second = desk.broker.submit(request), desk.broker.submit(request)
    assert second.broker_order_id == first.broker_order_id
    assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_an_id_stays_used_after_its_order_ended(desk: Desk) -> None:
    desk.need("durable_dedupe")
    request = desk.request(BUY, "3")
    desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    again = desk.broker.submit(request)
    assert (again.state, again.filled_quantity) == (S.FILLED, D(3))
    assert desk.venue.orders(request.client_order_id) == [D(3)]
    assert desk.position() == (D(3), D(3))


def test_an_order_is_found_only_after_it_was_placed(desk: Desk) -> None:
    request = desk.resting()
    ref = desk.ref(request)
    assert desk.broker.find_order(ref) is None
    placed = desk.broker.submit(request)
    found = desk.broker.find_order(ref)
    assert found is not None
    assert (found.broker_order_id, found.state, found.executions) == (placed.broker_order_id, S.WORKING, ())


def test_an_order_is_found_by_the_brokers_id_too(desk: Desk) -> None:
    request = desk.resting()
    placed = desk.broker.submit(request)
    found = desk.broker.find_order(OrderRef(client_order_id="", broker_order_id=placed.broker_order_id))
    assert found is not None
    assert found.client_order_id == request.client_order_id


# -- what becomes of a lost request


def test_a_lost_answer_is_unknown_and_the_look_up_finds_exactly_one(desk: Desk) -> None:
    desk.require(VenueFault.LOSE_ANSWER)
    request = desk.request(BUY, "4")
    desk.venue.inject(VenueFault.LOSE_ANSWER, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert desk.settled(request, states={S.FILLED}).filled_quantity == D(4)
    assert desk.venue.orders(request.client_order_id) == [D(4)]
    assert desk.position() == (D(4), D(4))


def test_an_error_after_acceptance_is_unknown_too(desk: Desk) -> None:
    desk.require(VenueFault.SERVER_ERROR_AFTER_ACCEPT)
    request = desk.resting()
    desk.venue.inject(VenueFault.SERVER_ERROR_AFTER_ACCEPT, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert desk.find(request).state is S.WORKING
    assert desk.venue.orders(request.client_order_id) == [D(10)]


@pytest.mark.parametrize("fault", [VenueFault.LOSE_REQUEST, VenueFault.SERVER_ERROR])
def test_a_request_that_was_lost_is_sent_once_and_may_be_sent_again(desk: Desk, fault: VenueFault) -> None:
    desk.require(fault)
    request = desk.resting()
    desk.venue.inject(fault, client_order_id=request.client_order_id)
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    # had the adapter repeated the request by itself, the venue would have the order now
    assert desk.venue.orders(request.client_order_id) == []
    assert desk.broker.find_order(desk.ref(request)) is None
    assert desk.broker.submit(request).state is S.WORKING
    assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_a_look_up_without_an_answer_is_not_a_no(desk: Desk) -> None:
    desk.require(VenueFault.SERVER_ERROR)
    request = desk.resting()
    desk.broker.submit(request)
    desk.venue.inject(VenueFault.SERVER_ERROR)
    with pytest.raises(OutcomeUnknown):
        desk.broker.find_order(desk.ref(request))


def test_a_silent_venue_is_left_in_bounded_time(desk: Desk) -> None:
    desk.require(VenueFault.SILENCE)
    request = desk.resting()
    desk.venue.inject(VenueFault.SILENCE, client_order_id=request.client_order_id)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        desk.broker.submit(request)
    assert time.monotonic() - began < LONGEST_CALL_SECONDS
    if desk.broker.capabilities.durable_dedupe:
        # the first request is still on its way; whichever comes second finds the id taken
        assert desk.broker.submit(request).state is S.WORKING
        time.sleep(max(began + SILENCE_SECONDS + 1 - time.monotonic(), 0))
        assert desk.venue.orders(request.client_order_id) == [D(10)]


def test_an_unreachable_venue_was_provably_not_sent_anything(make_broker: MakeBroker, desk: Desk) -> None:
    request = desk.resting()
    broker = make_broker(unreachable=True)
    ref = desk.ref(request, "none")
    began = time.monotonic()
    for call in (
        lambda: broker.submit(request),
        lambda: broker.find_order(ref),
        lambda: broker.cancel(ref),
        broker.open_orders,
        broker.positions,
        broker.account,
    ):
        with pytest.raises(NotSent):
            call()
    assert time.monotonic() - began < LONGEST_CALL_SECONDS
    assert desk.venue.orders(request.client_order_id) == []


# -- refusals leave nothing behind


def test_an_unknown_symbol_is_refused_for_good(desk: Desk) -> None:
    desk.symbol = desk.venue.unknown_symbol
    refusal = refused(desk, desk.request(BUY, "1"), RefusalKind.UNKNOWN_SYMBOL)
    assert refusal.permanent
    assert desk.broker.instrument(desk.venue.unknown_symbol) is None


def test_a_malformed_order_is_refused(desk: Desk) -> None:
    desk.require_order_type(OrderType.LIMIT)
    request = desk.request(order_type=OrderType.LIMIT, limit_price=D("50.12345"))
    assert refused(desk, request, RefusalKind.INVALID).permanent


def test_more_than_the_money_is_refused(desk: Desk) -> None:
    request = desk.request(BUY, "900000000")
    assert not refused(desk, request, RefusalKind.BUYING_POWER).permanent


def test_held_quantity_is_refused_and_named(desk: Desk) -> None:
    desk.venue.hold(desk.symbol, quantity=D(10), price=PRICE)
    target = desk.request(SELL, "8", order_type=OrderType.LIMIT, limit_price=D("110"), time_in_force=TimeInForce.GTC)
    placed = desk.broker.submit(target)
    assert eventually(lambda: desk.position() if desk.position()[1] != 10 else None) == (D(10), D(2))
    refusal = refused(desk, desk.request(SELL, "10"), RefusalKind.HELD_QUANTITY)
    assert refusal.available in (D(2), None)
    assert refusal.related_orders in ((placed.broker_order_id,), ())
    desk.broker.cancel(desk.ref(target))
    desk.settled(target, states={S.CANCELLED})
    assert eventually(lambda: desk.position() if desk.position()[1] == 10 else None) == (D(10), D(10))


def test_beyond_the_rate_limit_nothing_was_accepted(desk: Desk) -> None:
    desk.require(VenueFault.RATE_LIMIT)
    request = desk.resting()
    desk.venue.inject(VenueFault.RATE_LIMIT, client_order_id=request.client_order_id)
    refusal = refused(desk, request, RefusalKind.RATE_LIMITED)
    assert (refusal.retry_after, refusal.permanent) == (2.0, False)
    assert desk.broker.submit(request).state is S.WORKING


def test_a_question_beyond_the_rate_limit_is_not_a_refusal(desk: Desk) -> None:
    desk.require(VenueFault.RATE_LIMIT)
    desk.venue.inject(VenueFault.RATE_LIMIT)
    with pytest.raises(NotSent) as caught:
        desk.broker.find_order(desk.ref(desk.resting()))
    assert caught.value.retry_after == 2.0


def test_revoked_credentials_are_told_apart_and_not_repeated(make_broker: MakeBroker, desk: Desk) -> None:
    broker = make_broker(revoked=True)
    request = desk.resting()
    for call in (lambda: broker.submit(request), broker.account, broker.positions, broker.open_orders):
        with pytest.raises(AccountRefused) as caught:
            call()
        assert (caught.value.kind, caught.value.permanent) == (RefusalKind.CREDENTIALS, True)
    assert desk.venue.orders(request.client_order_id) == []


def test_a_look_up_with_revoked_credentials_is_not_a_no(make_broker: MakeBroker, desk: Desk) -> None:
    with pytest.raises(AccountRefused):
        make_broker(revoked=True).find_order(desk.ref(desk.resting()))


# -- cancel


def test_a_resting_order_is_cancelled(desk: Desk) -> None:
    request = desk.resting()
    placed = desk.broker.submit(request)
    desk.broker.cancel(desk.ref(request, placed.broker_order_id))
    ended = desk.settled(request, states={S.CANCELLED})
    assert ended.filled_quantity == 0


def test_an_order_is_cancelled_by_our_id_alone(desk: Desk) -> None:
    request = desk.resting()
    desk.broker.submit(request)
    desk.broker.cancel(desk.ref(request))
    assert desk.settled(request, states={S.CANCELLED}).state is S.CANCELLED


def test_a_filled_order_cannot_be_cancelled_and_stays_filled(desk: Desk) -> None:
    request = desk.request(BUY, "2")
    placed = desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    with pytest.raises(Refused) as caught:
        desk.broker.cancel(desk.ref(request, placed.broker_order_id))
    assert caught.value.kind is RefusalKind.NOT_CANCELABLE
    assert desk.find(request).state is S.FILLED


def test_an_order_that_never_was_cannot_be_cancelled(desk: Desk) -> None:
    with pytest.raises(Refused) as caught:
        desk.broker.cancel(desk.ref(desk.resting()))
    assert caught.value.kind is RefusalKind.NOT_FOUND


# -- changing a working order


def test_a_working_order_is_changed_into_its_successor(desk: Desk) -> None:
    desk.need("replace")
    request = desk.resting()
    placed = desk.broker.submit(request)
    changed = dataclasses.replace(request, client_order_id=desk.new_id(), limit_price=D("51"))
    change = Replacement(client_order_id=changed.client_order_id, limit_price=D("51"))
    successor = desk.broker.replace(desk.ref(request, placed.broker_order_id), change)
    assert (successor.client_order_id, successor.quantity) == (changed.client_order_id, D(10))
    old = desk.settled(request, states={S.REPLACED})
    assert old.replaced_by in ("", successor.broker_order_id)
    assert desk.settled(changed, states={S.WORKING}).broker_order_id == successor.broker_order_id
    assert desk.venue.orders(changed.client_order_id) == [D(10)]


def test_what_ended_cannot_be_changed(desk: Desk) -> None:
    desk.need("replace")
    request = desk.request(BUY, "2")
    placed = desk.broker.submit(request)
    desk.settled(request, states={S.FILLED})
    new_id = desk.new_id()
    with pytest.raises(Refused):
        desk.broker.replace(
            desk.ref(request, placed.broker_order_id), Replacement(client_order_id=new_id, quantity=D(1))
        )
    assert desk.venue.orders(new_id) == []
    assert desk.find(request).state is S.FILLED
