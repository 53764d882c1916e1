"""What the configuration says reaches the orders that leave a position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.exits import retry_exit
from exitmgr.models import Bracket
from exitmgr.policy.of_positions import policies_of
from orders.brokers.protocol import ReportedState
from orders.errors import Refused
from orders.models import Order
from orders.outcomes import settle_failure
from orders.submit import claim
from orders.updates import apply_reports
from positions.models import Position
from tests import factories as f

Write = Callable[[str], None]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def silent_bells(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("orders.lanes.ring", "exitmgr.brackets.ring"):
        monkeypatch.setattr(place, lambda *_args, **_options: True)


def locked(*positions: Position) -> list[Position]:
    return list(Position.objects.select_related("instrument").filter(pk__in=[one.pk for one in positions]))


def test_every_position_has_what_holds_for_it(write_file: Write, django_assert_num_queries: Any) -> None:
    write_file(
        "accounts: {one: {exit_manager: {max_slippage_bps: 100}}}\n"
        "symbols: {MSFT: {exit_manager: {max_slippage_bps: 120}}}\n"
    )
    one, two = f.make_account(name="one"), f.make_account(name="two")
    held = [f.hold(account=one), f.hold(account=two), f.hold(account=one, symbol="MSFT"), f.hold(account=one)]
    Bracket.objects.filter(position=held[3]).update(overrides={"exit_manager": {"max_slippage_bps": 130}})
    policies_of([], now=f.utc_now())
    positions = locked(*held)
    with django_assert_num_queries(2):
        found = policies_of(positions, now=f.utc_now())
    assert [found[position.pk].exit_manager.max_slippage_bps for position in held] == [100, 150, 120, 130]


def end_at_broker(order: Order) -> None:
    """Let the broker take an order and reject it unfilled, and follow that up."""
    for state in (ReportedState.WORKING, ReportedState.REJECTED):
        apply_reports(account_id=order.account_id, reports=[f.report_of(order, state)], now=f.utc_now())
        advance(now=f.utc_now())


def test_exits_and_retries_take_the_slippage_of_the_configuration(write_file: Write) -> None:
    write_file("exit_manager: {max_slippage_bps: 40, retry_slippage_bps: 90, max_resubmit_attempts: 1}")
    f.set_quote("99")
    order = f.exit_order(f.hold())
    assert order.max_slippage_bps == 40
    end_at_broker(order)
    second = Order.objects.get(attempt=2)
    assert second.max_slippage_bps == 40
    end_at_broker(second)
    again = retry_exit(order_id=second.pk, now=f.utc_now(), actor="test")
    assert again.max_slippage_bps == 90


def test_the_rest_of_an_exit_is_sent_anew_as_often_as_the_configuration_says(write_file: Write) -> None:
    write_file("exit_manager: {max_resubmit_attempts: 1}")
    f.set_quote("99")
    end_at_broker(f.exit_order(f.hold()))
    assert Alert.objects.count() == 0
    end_at_broker(Order.objects.get(attempt=2))
    assert Order.objects.count() == 2
    assert Alert.objects.get().kind == "exit_failed"


def test_an_order_is_given_up_after_as_many_refusals_as_the_configuration_says(write_file: Write) -> None:
    write_file("exit_manager: {retry_attempts: 2, retry_delay_seconds: 60}")
    f.set_quote("99")
    order = f.exit_order(f.hold())
    assert (order.retry_attempts, order.retry_delay_seconds) == (2, 60)
    for _ in range(2):
        (claimed,) = claim(order_ids=[order.pk], worker="w")
        settle_failure(order_id=order.pk, epoch=claimed.epoch, error=Refused("no"), now=f.utc_now())
        order = f.read_again(order)
        if order.state == "pending":
            assert order.next_attempt_at is not None
            assert 44 < (order.next_attempt_at - f.utc_now()).total_seconds() < 76
            Order.objects.filter(pk=order.pk).update(next_attempt_at=f.utc_now())
    assert (order.state, order.tries) == ("cancelled", 2)
