"""Risk checks at the door of entries: configured by account and symbol, counted in the database, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Event
from exitmgr.entries import DuplicateEntry, EntryRefused
from exitmgr.models import Bracket
from exitmgr.policy.current import forget
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.models import Position
from positions.values import Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db
Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Return a function that sets keys of exit_manager or, with their whole path, of any section."""

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"EXITMGR_TRADING__{name.upper()}", value)
        forget()

    forget()
    yield put
    forget()


def refused(**asked) -> dict[str, str]:
    """Return why an entry is refused, having seen that nothing was written."""
    before = (Order.objects.count(), Bracket.objects.count(), Event.objects.count())
    with pytest.raises(EntryRefused) as told:
        f.entry_order(**asked)
    assert (Order.objects.count(), Bracket.objects.count(), Event.objects.count()) == before
    return told.value.problems


def leave(position, *, price="100"):
    """Leave a position as the broker tells it, now."""
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitting")
    report = f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10", price)])
    apply_reports(account_id=order.account_id, reports=[report], now=f.utc_now())
    return f.read_again(position)


def test_the_limits_of_the_configuration_are_read(configure: Configure):
    configure(
        exit_manager__risk__allowed_symbols="[IBM]",
        exit_manager__risk__max_order_quantity="5",
        exit_manager__risk__price_collar_pct="1",
    )
    f.set_quote("100", "100")
    assert list(refused(limit="102")) == ["symbol", "quantity", "limit_price"]
    assert f.entry_order(symbol="IBM", quantity="5").quantity == 5


def test_a_stale_price_does_not_judge_a_limit(configure: Configure):
    quote = f.set_quote("100", "100")
    type(quote).objects.update(received_at=f.utc_now() - timedelta(seconds=120))
    assert f.entry_order(limit="150").limit_price == 150


def test_settings_of_the_position_do_not_widen_the_limits(configure: Configure):
    configure(exit_manager__risk__max_order_quantity="5", exit_manager__exit_cooldown_seconds="300")
    account = f.make_account()
    leave(f.hold(account=account))
    own = {"exit_manager": {"risk": {"max_order_quantity": 100}, "exit_cooldown_seconds": 0}}
    assert list(refused(account=account, settings=own)) == ["quantity", "symbol"]


def test_brackets_are_counted_with_entries_on_their_way(configure: Configure):
    configure(trade_exit__bracket_orders__max_active_brackets="2")
    account = f.make_account()
    f.hold(account=account, symbol="IBM")
    f.entry_order(account=account)
    assert "limit of 2 brackets" in refused(account=account)["account"]
    f.entry_order()  # another account's
    Order.objects.filter(account=account).update(state="cancelled", ended_at=f.utc_now())
    f.entry_order(account=account)


def test_the_same_entry_twice_is_refused_until_the_span_is_over(configure: Configure):
    configure(exit_manager__risk__duplicate_seconds="2")
    account = f.make_account()
    first = f.entry_order(account=account, request_id="1", allow_duplicate=False)
    assert list(refused(account=account, request_id="2", allow_duplicate=False)) == ["request_id"]
    for _case, other in (
        ("meant", {"allow_duplicate": True}),
        ("another quantity", {"quantity": "11"}),
        ("another side", {"side": Side.SHORT}),
        ("another symbol", {"symbol": "IBM"}),
        ("another account", {"account": f.make_account()}),
    ):
        f.entry_order(**{"account": account, "allow_duplicate": False, "plan": {}, **other})
    Order.objects.filter(account=account).update(created_at=first.created_at - timedelta(seconds=3))
    f.entry_order(account=account, request_id="2", allow_duplicate=False)


def test_the_same_request_is_told_as_such_whatever_else_speaks_against_it():
    account = f.make_account()
    f.entry_order(account=account, request_id="1", allow_duplicate=False)
    type(account).objects.update(trading_state="halted")
    with pytest.raises(DuplicateEntry, match="'1' was used before"):
        f.entry_order(account=account, request_id="1", allow_duplicate=False)
    assert Order.objects.count() == 1


def test_a_strategy_that_enters_again_and_again_is_stopped_and_a_person_is_not(configure: Configure):
    configure(exit_manager__risk__max_automatic_entries_per_minute="2")
    account = f.make_account()
    for _ in range(2):
        f.entry_order(account=account, strategy="loop")
    assert "2 times within a minute" in refused(account=account, strategy="loop")["strategy"]
    f.entry_order(account=account, strategy="loop", symbol="IBM")
    f.entry_order(account=account)
    Order.objects.update(created_at=f.utc_now() - timedelta(seconds=66))
    f.entry_order(account=account, strategy="loop")


def test_after_an_exit_the_symbol_rests(configure: Configure):
    configure(exit_manager__exit_cooldown_seconds="300")
    account = f.make_account()
    position = leave(f.hold(account=account))
    assert position.status == "closed"
    assert "was left less than 300 s ago" in refused(account=account)["symbol"]
    f.entry_order(account=account, symbol="IBM")
    f.entry_order()  # another account's
    Position.objects.update(last_exit_at=f.utc_now() - timedelta(seconds=310))
    f.entry_order(account=account)


def test_while_an_exit_is_live_nothing_is_entered_in_its_symbol(configure: Configure):
    configure(exit_manager__exit_cooldown_seconds="0")
    account = f.make_account()
    order = f.exit_order(f.hold(account=account))
    assert refused(account=account)["symbol"].startswith(f"AAPL is being left by order {order.pk} (stop_loss)")
    Order.objects.filter(pk=order.pk).update(resting=True)
    f.entry_order(account=account)


def test_a_position_that_was_left_may_be_entered_at_once_where_the_cooldown_is_none(configure: Configure):
    configure(exit_manager__exit_cooldown_seconds="0")
    account = f.make_account()
    leave(f.hold(account=account))
    assert f.entry_order(account=account).state == "pending"
