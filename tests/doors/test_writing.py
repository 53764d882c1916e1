"""What the API does: each verb once, each mistake refused with its path and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from alerts.models import Event
from exitmgr.exits import request_exit
from exitmgr.models import Bracket
from orders.cancel import request_cancel
from orders.models import Order
from positions.models import Account, Instrument, Position, Quote, RefusedPrice
from positions.values import TradingState
from tests.doors.conftest import NOW, client_of
from tests.doors.test_access import refused

Hold = Callable[..., Position]

ENTRY = {"account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10"}
HOLDING = {**ENTRY, "entry_price": "100"}


def post(client: APIClient, path: str, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return client.post(f"/api/v1/{path}", text, content_type="application/json", headers=headers)


def everything() -> tuple[int, ...]:
    """Return how much there is of all that a request could write."""
    models = (Position, Order, Bracket, Event, Instrument, RefusedPrice)
    return (*(model.objects.count() for model in models), Quote.objects.get().seq)


def test_a_holding_is_registered_with_its_plan_armed(
    trader: APIClient, account: Account, instrument: Instrument
) -> None:
    body = (
        '{"account": "paper", "symbol": "AAPL", "side": "short", "quantity": 2.5, "entry_price": 100.10, '
        '"opened_at": "2026-03-02T10:30:00-05:00", "strategy": "pairs", "plan": {"stop_loss": {"price": 105}}}'
    )
    response = post(trader, "positions", body)
    assert response.status_code == 201
    shown = response.json()
    position = Position.objects.get()
    assert response.headers["Location"] == f"/api/v1/positions/{position.pk}"
    assert (position.quantity, position.average_entry, position.strategy) == (Decimal("2.5"), Decimal("100.1"), "pairs")
    assert (shown["side"], shown["opened_at"]) == ("short", "2026-03-02T15:30:00Z")
    assert [one["level"] for one in shown["bracket"]["triggers"]] == ["105"]
    assert Event.objects.get(kind="position_registered").actor == "trader"


def test_an_entry_is_written_with_its_pending_plan(trader: APIClient, account: Account, instrument: Instrument) -> None:
    response = post(trader, "orders", {**ENTRY, "limit_price": "99.50", "plan": {"stop_loss": {"pct": "2"}}})
    assert response.status_code == 201
    order = Order.objects.get()
    assert response.headers["Location"] == f"/api/v1/orders/{order.pk}"
    assert (order.side, order.quantity, order.limit_price, order.state) == ("buy", 10, Decimal("99.5"), "pending")
    bracket = Bracket.objects.get(entry_order=order)
    assert (bracket.status, bracket.plan["stop_loss"]) == ("pending", {"pct": "2"})


@pytest.mark.parametrize(
    ("_case", "headers", "body"),
    [
        ("the header", {"Idempotency-Key": "k-1"}, {}),
        ("the field", {}, {"request_id": "k-1"}),
        ("both alike", {"Idempotency-Key": "k-1"}, {"request_id": "k-1"}),
    ],
)
def test_the_same_request_enters_once(
    _case: str,
    headers: dict[str, str],
    body: dict[str, str],
    trader: APIClient,
    account: Account,
    instrument: Instrument,
) -> None:
    assert post(trader, "orders", {**ENTRY, **body}, **headers).status_code == 201
    before = everything()
    problem = refused(post(trader, "orders", {**ENTRY, **body}, **headers), 409)
    assert problem["type"] == "urn:exitmgr:duplicate"
    assert everything() == before
    assert post(trader, "orders", ENTRY, **{"Idempotency-Key": "k-2"}).status_code == 201
    assert post(trader, "orders", ENTRY).status_code == 201


@pytest.mark.parametrize(
    ("body", "quantity"),
    [({}, "10"), ({"percentage": "50"}, "5"), ({"percentage": 33.3}, "3"), ({"percentage": "0.001"}, "1")],
)
def test_a_percentage_of_what_remains_is_left(
    body: dict[str, Any], quantity: str, trader: APIClient, hold: Hold
) -> None:
    position = hold("10")
    response = post(trader, f"positions/{position.pk}/exit", body)
    assert response.status_code == 201
    shown = response.json()
    assert (shown["quantity"], shown["reason"], shown["side"], shown["lane"]) == (
        quantity,
        "manual",
        "sell",
        "stop_loss",
    )
    assert response.headers["Location"] == f"/api/v1/orders/{shown['id']}"
    position.refresh_from_db()
    assert (position.status, position.reserved) == ("exit_pending", Decimal(quantity))


def test_an_emergency_leaves_everything_ahead_of_all_else(trader: APIClient, hold: Hold) -> None:
    position = hold("10")
    shown = post(trader, f"positions/{position.pk}/emergency-exit", {"note": "venue is down"}).json()
    assert (shown["quantity"], shown["reason"], shown["lane"], shown["urgency"]) == ("10", "emergency", "emergency", 0)
    remark = Event.objects.get(kind="order_remark")
    assert (remark.actor, remark.order_ref, remark.data) == ("trader", shown["id"], {"note": "venue is down"})


def test_the_second_exit_is_refused_and_says_who_is_first(trader: APIClient, hold: Hold) -> None:
    position = hold("10")
    first = post(trader, f"positions/{position.pk}/exit", {}).json()["id"]
    before = everything()
    problem = refused(post(trader, f"positions/{position.pk}/exit", {}), 409)
    assert problem["type"] == "urn:exitmgr:already-exiting"
    assert f"order {first}" in problem["detail"]
    assert everything() == before


def test_an_emergency_is_not_refused_for_a_less_urgent_exit_but_waits_for_what_it_holds(
    trader: APIClient, hold: Hold
) -> None:
    position = hold("10")
    post(trader, f"positions/{position.pk}/exit", {})
    response = post(trader, f"positions/{position.pk}/emergency-exit", {})
    assert response.status_code == 201
    assert Order.objects.get(pk=response.json()["id"]).waits
    refused(post(trader, f"positions/{position.pk}/emergency-exit", {}), 409)


def test_an_order_is_cancelled_and_its_reservation_freed(trader: APIClient, hold: Hold) -> None:
    position = hold("10")
    order = request_exit(position_id=position.pk, now=NOW, actor="test")
    response = post(trader, f"orders/{order.pk}/cancel", {"note": "second thoughts"})
    assert response.status_code == 202
    assert response.json()["state"] == "cancelled"
    position.refresh_from_db()
    assert (position.status, position.reserved) == ("open", 0)
    assert Event.objects.get(kind="order_cancel_requested").data["why"] == "second thoughts"
    before = everything()
    problem = refused(post(trader, f"orders/{order.pk}/cancel", {}), 409)
    assert problem["type"] == "urn:exitmgr:not-cancellable"
    assert everything() == before


def test_a_failed_exit_is_retried_for_all_that_remains(trader: APIClient, hold: Hold) -> None:
    position = hold("10")
    failed = request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(50))
    problem = refused(post(trader, f"orders/{failed.pk}/retry", {}), 409)
    assert "still pending" in problem["detail"]
    request_cancel(order_id=failed.pk, now=NOW, actor="test")
    response = post(trader, f"orders/{failed.pk}/retry", {"note": "again"})
    assert response.status_code == 201
    shown = response.json()
    wanted = {"quantity": "10", "reason": "manual", "attempt": 2, "retry_of": failed.pk, "max_slippage_bps": 200}
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["client_order_id"] != failed.client_order_id
    before = everything()
    refused(post(trader, f"orders/{failed.pk}/retry", {}), 409)
    assert everything() == before


def test_an_entry_is_not_retried(trader: APIClient, account: Account, instrument: Instrument) -> None:
    entry = post(trader, "orders", ENTRY).json()["id"]
    problem = refused(post(trader, f"orders/{entry}/retry", {}), 409)
    assert problem["type"] == "urn:exitmgr:exit-refused"
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("_case", "path", "body", "status", "field"),
    [
        ("malformed JSON", "orders", '{"account": "paper",', 400, None),
        ("a list instead of an object", "orders", [], 400, "body"),
        ("a string instead of an object", "orders", '"buy"', 400, "body"),
        ("null instead of an object", "orders", "null", 400, "body"),
        ("no body", "orders", "", 400, "account"),
        ("the same field twice", "orders", '{"quantity": "1", "quantity": "100"}', 400, None),
        ("an unknown field", "orders", {**ENTRY, "qty": "1"}, 400, "qty"),
        ("an unknown account", "orders", {**ENTRY, "account": "nobody"}, 400, "account"),
        ("an account that is a number", "orders", {**ENTRY, "account": 1}, 400, "account"),
        ("an account with NUL", "orders", {**ENTRY, "account": "a\0"}, 400, "account"),
        ("an unknown symbol", "orders", {**ENTRY, "symbol": "NOPE"}, 422, "symbol"),
        ("a symbol with NUL", "orders", {**ENTRY, "symbol": "A\0"}, 400, "symbol"),
        ("an unknown side", "orders", {**ENTRY, "side": "buy"}, 400, "side"),
        ("no quantity", "orders", {name: ENTRY[name] for name in ("account", "symbol", "side")}, 400, "quantity"),
        ("zero", "orders", {**ENTRY, "quantity": "0"}, 400, "quantity"),
        ("negative", "orders", {**ENTRY, "quantity": "-1"}, 400, "quantity"),
        ("NaN as a string", "orders", {**ENTRY, "quantity": "NaN"}, 400, "quantity"),
        ("NaN as JSON", "orders", json.dumps({**ENTRY, "quantity": float("nan")}), 400, None),
        ("infinite", "orders", {**ENTRY, "quantity": "Infinity"}, 400, "quantity"),
        ("a word", "orders", {**ENTRY, "quantity": "ten"}, 400, "quantity"),
        ("more than a column holds", "orders", {**ENTRY, "quantity": "1e30"}, 400, "quantity"),
        ("part of a lot", "orders", {**ENTRY, "quantity": "1.5"}, 422, "quantity"),
        ("a limit of NaN", "orders", {**ENTRY, "limit_price": "NaN"}, 400, "limit_price"),
        ("a negative limit", "orders", {**ENTRY, "limit_price": -5}, 400, "limit_price"),
        ("a strategy too long", "orders", {**ENTRY, "strategy": "s" * 65}, 400, "strategy"),
        ("a stop above a long", "orders", {**ENTRY, "plan": {"stop_loss": {"price": "120"}}}, 400, "plan.stop_loss.price"),
        ("a stop of -1 %", "orders", {**ENTRY, "plan": {"stop_loss": {"pct": "-1"}}}, 400, "plan.stop_loss.pct"),
        ("a stop of NaN", "orders", {**ENTRY, "plan": {"stop_loss": {"pct": "NaN"}}}, 400, "plan.stop_loss.pct"),
        ("two kinds of stop", "orders", {**ENTRY, "plan": {"stop_loss": {"pct": 1, "price": 90}}}, 400, "plan.stop_loss"),
        ("an unknown part", "orders", {**ENTRY, "plan": {"stoploss": {"pct": "1"}}}, 400, "plan.stoploss"),
        ("a plan that is a word", "orders", {**ENTRY, "plan": "tight"}, 400, "plan"),
        (
            "a target on the wrong side",
            "orders",
            {**ENTRY, "plan": {"take_profits": [{"pct": "1"}, {"price": "90"}]}},
            400,
            "plan.take_profits.1.price",
        ),
        ("an empty request id", "orders", {**ENTRY, "request_id": ""}, 400, "request_id"),
        ("a holding without a price", "positions", ENTRY, 400, "entry_price"),
        ("a holding at NaN", "positions", {**HOLDING, "entry_price": "NaN"}, 400, "entry_price"),
        ("a holding of nothing", "positions", {**HOLDING, "quantity": "0"}, 400, "quantity"),
        ("a holding of the future", "positions", {**HOLDING, "opened_at": "2999-01-01T00:00:00Z"}, 422, "opened_at"),
        ("a time without offset", "positions", {**HOLDING, "opened_at": "2026-01-01T00:00:00"}, 400, "opened_at"),
        ("a time out of range", "positions", {**HOLDING, "opened_at": "0001-01-01T00:00:00+14:00"}, 400, "opened_at"),
        ("a day that is none", "positions", {**HOLDING, "opened_at": "2026-02-30T00:00:00Z"}, 400, "opened_at"),
        ("a stop below a short", "positions", {**HOLDING, "side": "short", "plan": {"stop_loss": {"price": "90"}}}, 400,
         "plan.stop_loss.price"),
        ("0 %", "positions/{position}/exit", {"percentage": "0"}, 400, "percentage"),
        ("101 %", "positions/{position}/exit", {"percentage": "101"}, 400, "percentage"),
        ("-5 %", "positions/{position}/exit", {"percentage": -5}, 400, "percentage"),
        ("abc %", "positions/{position}/exit", {"percentage": "abc"}, 400, "percentage"),
        ("NaN %", "positions/{position}/exit", {"percentage": "NaN"}, 400, "percentage"),
        ("null %", "positions/{position}/exit", {"percentage": None}, 400, "percentage"),
        ("true %", "positions/{position}/exit", {"percentage": True}, 400, "percentage"),
        ("an unknown field", "positions/{position}/exit", {"percent": "50"}, 400, "percent"),
        ("a note too long", "positions/{position}/exit", {"note": "n" * 501}, 400, "note"),
        ("a part of an emergency", "positions/{position}/emergency-exit", {"percentage": "50"}, 400, "percentage"),
        ("no quotes", "quotes", {"quotes": []}, 400, "quotes"),
        ("quotes that are none", "quotes", {"quotes": "AAPL"}, 400, "quotes"),
        ("nothing but malformed quotes", "quotes", {"quotes": [{"symbol": "AAPL"}]}, 400, "quotes.0"),
        ("a price of NaN", "quotes", {"quotes": [{"symbol": "AAPL", "last": "NaN"}]}, 400, "quotes.0.last"),
        ("a price of zero", "quotes", {"quotes": [{"symbol": "AAPL", "bid": 0}]}, 400, "quotes.0.bid"),
        ("an unknown price", "quotes", {"quotes": [{"symbol": "AAPL", "mid": 1}]}, 400, "quotes.0.mid"),
        ("a quote without a symbol", "quotes", {"quotes": [{"last": "1"}]}, 400, "quotes.0.symbol"),
        ("a quote of no time", "quotes", {"quotes": [{"symbol": "A", "last": 1, "at": "now"}]}, 400, "quotes.0.at"),
        ("too many quotes", "quotes", {"quotes": [{"symbol": "AAPL", "last": 1}] * 5_001}, 400, "quotes"),
        ("a symbol that is known already", "instruments", {"symbol": "AAPL"}, 400, "symbol"),
        ("a symbol in small letters", "instruments", {"symbol": "ibm"}, 400, "symbol"),
        ("a tick of zero", "instruments", {"symbol": "NEW", "tick": "0"}, 400, "tick"),
        ("an unknown asset class", "instruments", {"symbol": "NEW", "asset_class": "bond"}, 400, "asset_class"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_its_path_and_nothing_is_written(
    _case: str, path: str, body: Any, status: int, field: str | None, admin: APIClient, hold: Hold
) -> None:
    position = hold()
    before = everything()
    problem = refused(post(admin, path.format(position=position.pk), body), status)
    named = {one["field"] for one in problem["errors"]}
    assert field in named if field else not named
    assert all(one["message"] for one in problem["errors"])
    assert everything() == before


@pytest.mark.parametrize("key", ["", "k" * 65, "a\tb", "caf\xe9"])
def test_a_key_that_names_nothing_is_refused(
    key: str, trader: APIClient, account: Account, instrument: Instrument
) -> None:
    problem = refused(post(trader, "orders", ENTRY, **{"Idempotency-Key": key}), 400)
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert not Order.objects.exists()


def test_two_names_for_one_request_are_refused(trader: APIClient, account: Account, instrument: Instrument) -> None:
    response = post(trader, "orders", {**ENTRY, "request_id": "a"}, **{"Idempotency-Key": "b"})
    assert refused(response, 400)["errors"][0]["field"] == "request_id"
    assert not Order.objects.exists()


def test_a_halted_account_takes_no_entry_but_every_exit(trader: APIClient, hold: Hold, account: Account) -> None:
    position = hold()
    Account.objects.update(trading_state=TradingState.HALTED)
    problem = refused(post(trader, "orders", ENTRY), 422)
    assert problem["errors"][0]["field"] == "account"
    assert post(trader, f"positions/{position.pk}/exit", {}).status_code == 201


def test_pushed_prices_are_believed_one_by_one(admin: APIClient, instrument: Instrument) -> None:
    body = {
        "quotes": [
            {"symbol": "AAPL", "bid": "100.20", "ask": 100.30},
            {"symbol": "AAPL", "bid": "150", "ask": "150.1"},
            {"symbol": "GONE", "last": "1"},
            {"symbol": "AAPL", "bid": "x"},
            "AAPL",
        ]
    }
    response = post(admin, "quotes", body)
    assert response.status_code == 200
    shown = response.json()
    assert shown["accepted"] == ["AAPL"]
    assert shown["refused"] == [{"symbol": "AAPL", "reason": "outside_collar", "count": 1}]
    assert shown["unknown"] == ["GONE"]
    assert [one["field"] for one in shown["malformed"]] == ["quotes.3.bid", "quotes.4"]
    quote = Quote.objects.get()
    assert (quote.bid, quote.ask, quote.source) == (Decimal("100.2"), Decimal("100.3"), "api:admin")


def test_a_quote_keeps_the_time_it_carries(admin: APIClient, instrument: Instrument) -> None:
    at = Quote.objects.get().source_at.isoformat()
    assert post(admin, "quotes", {"quotes": [{"symbol": "AAPL", "last": "100", "at": at}]}).json()["accepted"] == [
        "AAPL"
    ]
    old = post(admin, "quotes", {"quotes": [{"symbol": "AAPL", "last": "99", "at": "2020-01-01T00:00:00Z"}]}).json()
    assert old["refused"] == [{"symbol": "AAPL", "reason": "older_than_last", "count": 1}]
    assert Quote.objects.get().last == 100


def test_a_long_name_acts_under_its_beginning(hold: Hold) -> None:
    position = hold()
    client = client_of(User.objects.create_superuser("u" * 150))
    assert post(client, f"positions/{position.pk}/exit", {}).status_code == 201
    assert Event.objects.get(kind="exit_requested").actor == "u" * 64
    assert post(client, "quotes", {"quotes": [{"symbol": "AAPL", "last": "100"}]}).status_code == 200
    assert Quote.objects.get().source == ("api:" + "u" * 64)[:32]


def test_instruments_are_added_and_changed_with_an_event(admin: APIClient) -> None:
    made = post(admin, "instruments", {"symbol": "BTC/USD", "asset_class": "crypto", "lot": "0.00000001"})
    assert made.status_code == 201
    shown = made.json()
    assert (shown["lot"], shown["tick"]) == ("0.00000001", "0.01")
    url = f"/api/v1/instruments/{shown['id']}"
    assert made.headers["Location"] == url
    changed = admin.patch(url, {"tradable": False, "tick": "0.01"}, format="json")
    assert changed.json()["tradable"] is False
    told = Event.objects.get(kind="instrument_changed")
    assert told.data == {"symbol": "BTC/USD", "before": {"tradable": True}, "after": {"tradable": False}}
    assert told.actor == "admin"
    problem = refused(admin.patch(url, {"symbol": "ETH/USD"}, format="json"), 400)
    assert problem["errors"][0]["field"] == "symbol"
    refused(admin.patch("/api/v1/instruments/999999", {"tradable": True}, format="json"), 404)
    assert Event.objects.filter(kind="instrument_changed").count() == 1
