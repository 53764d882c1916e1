"""Entries and holdings: one request one order, refusals that name the field and write nothing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from exitmgr.entries import DuplicateEntry, EntryRefused, enter, register_position
from exitmgr.models import Bracket
from exitmgr.rules.plan import InvalidPlan
from orders.models import Fill, Order
from positions.models import Instrument, Position
from positions.values import Side, TradingState
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


def written():
    """Return how many rows of each kind exist."""
    return [model.objects.count() for model in (Order, Bracket, Position, Fill, Event, Alert)]


def test_an_entry_is_an_order_and_a_pending_bracket():
    f.set_quote("100", "100.02")
    order = f.entry_order()
    bracket = Bracket.objects.get()
    assert (order.intent, order.side, order.quantity, order.lane) == ("entry", "buy", D(10), "entry")
    assert (order.order_type, order.limit_price, order.position_id) == ("limit", D(100), None)
    assert (bracket.status, bracket.entry_order_id, bracket.position_id) == ("pending", order.pk, None)
    kinds = Event.objects.order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["entry_requested", "bracket_created"]


@pytest.mark.parametrize(("side", "expected"), [(Side.LONG, "100.02"), (Side.SHORT, "100")])
def test_without_a_limit_an_entry_expects_the_price_it_would_get(side, expected):
    f.set_quote("100", "100.02")
    order = enter(
        account=f.make_account(), symbol="AAPL", side=side, quantity=D(1), request_id="1", now=f.utc_now(), actor="ann"
    )
    assert (order.order_type, order.expected_price) == ("market", D(expected))


def test_the_same_request_again_is_refused_and_nothing_is_done_again():
    account = f.make_account()
    f.entry_order(account=account, request_id="r-1")
    before = written()
    with pytest.raises(DuplicateEntry, match="'r-1' was used before"):
        f.entry_order(account=account, request_id="r-1", quantity="5")
    assert written() == before
    f.entry_order(request_id="r-1")  # another account's


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("symbol", {"symbol": "NONE"}),
        ("quantity", {"quantity": "0"}),
        ("quantity", {"quantity": "-1"}),
        ("quantity", {"quantity": "NaN"}),
        ("quantity", {"quantity": "Infinity"}),
        ("quantity", {"quantity": "1.5"}),
        ("limit_price", {"limit": "0"}),
        ("limit_price", {"limit": "-5"}),
        ("limit_price", {"limit": "NaN"}),
        ("quantity", {"quantity": "101"}),
        ("account", {"trading_state": TradingState.REDUCE_ONLY}),
        ("account", {"trading_state": TradingState.HALTED}),
        ("symbol", {"instrument": {"tradable": False}}),
        ("side", {"side": Side.SHORT, "instrument": {"shortable": False}}),
    ],
)
def test_what_may_not_be_entered_is_refused_by_its_field(field, asked):
    f.set_quote("100")
    account = f.make_account(
        max_order_notional=D(10_000), trading_state=asked.pop("trading_state", TradingState.ACTIVE)
    )
    Instrument.objects.filter(symbol="AAPL").update(**asked.pop("instrument", {"tradable": True}))
    with pytest.raises(EntryRefused) as refused:
        enter(
            account=account, symbol=asked.pop("symbol", "AAPL"), side=asked.pop("side", Side.LONG),
            quantity=D(asked.pop("quantity", "1")), limit_price=D(asked.pop("limit", "100")), request_id="r",
            now=f.utc_now(), actor="ann",
        )  # fmt: skip
    assert list(refused.value.problems) == [field]
    assert written() == [0] * 6


def test_the_largest_order_allowed_is_allowed():
    f.make_instrument()
    account = f.make_account(max_order_notional=D(1000))
    assert f.entry_order(account=account, quantity="10").quantity == 10


def test_an_account_holds_no_more_positions_than_its_limit_counting_entries_on_their_way():
    account = f.make_account(max_open_positions=2)
    f.hold(account=account)
    f.entry_order(account=account)
    with pytest.raises(EntryRefused, match="its limit of 2 positions"):
        f.entry_order(account=account)
    assert Order.objects.count() == 1


def test_the_switch_is_read_from_the_database_not_from_what_the_caller_holds():
    f.make_instrument()
    account = f.make_account()
    type(account).objects.update(trading_state=TradingState.HALTED)
    with pytest.raises(EntryRefused, match="takes no entries until resumed"):
        f.entry_order(account=account)
    assert Order.objects.count() == 0


def test_a_plan_that_does_not_fit_the_price_is_refused_before_anything_is_bought():
    f.make_instrument()
    with pytest.raises(InvalidPlan, match="must lie below the entry price 100"):
        f.entry_order(plan={"stop_loss": {"price": "101"}})
    assert written() == [0] * 6


def test_without_any_price_a_market_entry_is_refused():
    f.make_instrument()
    with pytest.raises(EntryRefused, match="no price of AAPL is known yet"):
        enter(
            account=f.make_account(), symbol="AAPL", side=Side.LONG, quantity=D(1), request_id="r", now=f.utc_now(),
            actor="ann",
        )  # fmt: skip
    assert written() == [0] * 6


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("opened_at", {"opened_at": 60}),
        ("quantity", {"quantity": D(0)}),
        ("quantity", {"quantity": D("NaN")}),
        ("entry_price", {"entry_price": D(-1)}),
        ("entry_price", {"entry_price": D("Infinity")}),
        ("symbol", {"symbol": "NONE"}),
    ],
)
def test_a_holding_that_makes_no_sense_is_refused(field, given):
    f.make_instrument()
    now = f.utc_now()
    wanted = {
        "account": f.make_account(), "symbol": "AAPL", "side": Side.LONG, "quantity": D(1), "entry_price": D(100),
        "opened_at": now + timedelta(seconds=given.pop("opened_at", -1)), "now": now, "actor": "ann",
    }  # fmt: skip
    with pytest.raises(EntryRefused) as refused:
        register_position(**wanted | given)
    assert list(refused.value.problems) == [field]
    assert written() == [0] * 6


def test_a_holding_may_be_registered_while_its_account_takes_no_entries():
    position = f.hold(account=f.make_account(trading_state=TradingState.REDUCE_ONLY))
    assert (position.status, f.bracket_of(position).status) == ("open", "active")


@pytest.mark.parametrize(("age", "taken"), [(60, True), (61, False)])
def test_a_market_entry_needs_a_fresh_price(age, taken):
    quote = f.set_quote("100", "100.02")
    account, now = f.make_account(), quote.received_at + timedelta(seconds=age)
    entry = {"account": account, "symbol": "AAPL", "side": Side.LONG, "quantity": D(1), "now": now, "actor": "ann"}
    if taken:
        assert enter(**entry, request_id="1").expected_price == D("100.02")
        return
    before = written()
    with pytest.raises(EntryRefused, match="the last price of AAPL is 61 s old; push a quote or give a limit_price"):
        enter(**entry, request_id="1")
    assert written() == before
    assert enter(**entry, request_id="1", limit_price=D(100)).order_type == "limit"
