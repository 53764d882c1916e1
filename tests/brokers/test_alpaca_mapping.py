"""Tables of the Alpaca adapter's pure parts: values to JSON, JSON to values, answers to outcomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.alpaca import connect, data_url, stream_url
from orders.brokers.alpaca_payloads import (
    STATUSES,
    activity_execution,
    broker_account,
    broker_position,
    flat_orders,
    instrument_facts,
    order_report,
    price_bar,
    timeframe,
    update_report,
)
from orders.brokers.alpaca_requests import order_payload, replacement_payload
from orders.brokers.alpaca_stream import read_reports
from orders.brokers.exact import Unreadable, plain, to_decimal, to_time
from orders.brokers.marketable import marketable_limit
from orders.brokers.protocol import (
    OrderClass,
    OrderSide,
    OrderType,
    Replacement,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.errors import RefusalKind

D = Decimal
K = RefusalKind
S = ReportedState


def order(**changes: Any) -> dict[str, Any]:
    return {
        "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
        "client_order_id": "xm-1",
        "created_at": "2026-03-16T18:38:01.942282Z",
        "updated_at": "2026-03-16T18:38:01.942282191Z",
        "submitted_at": "2026-03-16T18:38:01.937734Z",
        "symbol": "AAPL",
        "qty": "15",
        "filled_qty": "0",
        "filled_avg_price": None,
        "type": "market",
        "side": "buy",
        "status": "accepted",
        "replaced_by": None,
        "legs": None,
    } | changes


@pytest.mark.parametrize(
    ("_case", "number", "expected"),
    [
        ("whole", "5", "5"),
        ("a database's trailing zeros go", "10.500000000000000000", "10.5"),
        ("zeros left of the point stay", "1200", "1200"),
        ("no exponent, large", "1E+3", "1000"),
        ("no exponent, small", "1E-9", "0.000000001"),
        (
            "38 digits stay 38 digits",
            "12345678901234567890.123456789012345678",
            "12345678901234567890.123456789012345678",
        ),
        ("zero", "0.00", "0"),
    ],
)
def test_numbers_leave_as_plain_digits(_case: str, number: str, expected: str) -> None:
    assert plain(D(number)) == expected


@pytest.mark.parametrize(
    ("_case", "value", "expected"),
    [
        ("text", "10.10", D("10.10")),
        ("integer", 7, D(7)),
        ("JSON number read as Decimal", D("0.1"), D("0.1")),
    ],
)
def test_numbers_arrive_exactly(_case: str, value: object, expected: Decimal) -> None:
    assert to_decimal(value) == expected


@pytest.mark.parametrize("value", [0.1, True, None, "", "NaN", "Infinity", "ten", [1]])
def test_what_is_no_exact_finite_number_is_unreadable(value: object) -> None:
    with pytest.raises(Unreadable):
        to_decimal(value)


@pytest.mark.parametrize(
    ("_case", "text", "expected"),
    [
        (
            "nanoseconds are cut",
            "2026-03-16T18:38:01.942282191Z",
            datetime(2026, 3, 16, 18, 38, 1, 942282, UTC),
        ),
        ("no fraction", "2026-03-16T18:38:01Z", datetime(2026, 3, 16, 18, 38, 1, tzinfo=UTC)),
        ("New York time", "2026-03-16T14:38:01-04:00", datetime(2026, 3, 16, 18, 38, 1, tzinfo=UTC)),
    ],
)
def test_times_are_utc(_case: str, text: str, expected: datetime) -> None:
    moment = to_time(text)
    assert (moment, moment.tzinfo) == (expected, UTC)


@pytest.mark.parametrize("text", ["2026-03-16T18:38:01", "yesterday", "", None, 5])
def test_a_time_without_zone_or_sense_is_unreadable(text: Any) -> None:
    with pytest.raises(Unreadable):
        to_time(text)


BASE = {"client_order_id": "xm-1", "symbol": "AAPL", "side": "sell", "qty": "3.5"}


@pytest.mark.parametrize(
    ("_case", "fields", "expected"),
    [
        ("market", {}, {"type": "market", "time_in_force": "day"}),
        (
            "limit",
            {"order_type": OrderType.LIMIT, "limit_price": D("101.10"), "time_in_force": TimeInForce.GTC},
            {"type": "limit", "limit_price": "101.1", "time_in_force": "gtc"},
        ),
        (
            "stop",
            {"order_type": OrderType.STOP, "stop_price": D("95.00")},
            {"type": "stop", "stop_price": "95", "time_in_force": "day"},
        ),
        (
            "stop limit",
            {"order_type": OrderType.STOP_LIMIT, "stop_price": D("95"), "limit_price": D("94.5")},
            {"type": "stop_limit", "stop_price": "95", "limit_price": "94.5", "time_in_force": "day"},
        ),
        (
            "trail by percent",
            {"order_type": OrderType.TRAILING_STOP, "trail_percent": D("1.50")},
            {"type": "trailing_stop", "trail_percent": "1.5", "time_in_force": "day"},
        ),
        (
            "trail by price, extended hours",
            {"order_type": OrderType.TRAILING_STOP, "trail_price": D(2), "extended_hours": True},
            {"type": "trailing_stop", "trail_price": "2", "extended_hours": True, "time_in_force": "day"},
        ),
    ],
)
def test_an_order_becomes_a_body_without_a_single_float(
    _case: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    request = SubmitRequest(client_order_id="xm-1", symbol="AAPL", side=OrderSide.SELL, quantity=D("3.500"), **fields)
    assert order_payload(request) == BASE | expected


STOP = {"target_limit": D("103.0"), "stop_leg_stop": D("98.00")}


@pytest.mark.parametrize(
    ("_case", "fields", "expected"),
    [
        (
            "bracket",
            {"order_class": OrderClass.BRACKET, **STOP},
            {"type": "market", "take_profit": {"limit_price": "103"}, "stop_loss": {"stop_price": "98"}},
        ),
        (
            "an OCO whose own limit is its target",
            {"order_class": OrderClass.OCO, "order_type": OrderType.LIMIT, "limit_price": D(103),
             "stop_leg_stop": D(98), "stop_leg_limit": D("97.50")},
            {"type": "limit", "take_profit": {"limit_price": "103"},
             "stop_loss": {"stop_price": "98", "limit_price": "97.5"}},
        ),
        (
            "an entry with a stop alone",
            {"order_class": OrderClass.OTO, "stop_leg_stop": D(98)},
            {"type": "market", "stop_loss": {"stop_price": "98"}},
        ),
    ],
)  # fmt: skip
def test_a_group_becomes_one_body(_case: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    request = SubmitRequest(client_order_id="xm-1", symbol="AAPL", side=OrderSide.SELL, quantity=D("3.5"), **fields)
    group = {"time_in_force": "day", "order_class": str(fields["order_class"])}
    assert order_payload(request) == BASE | group | expected


@pytest.mark.parametrize(
    ("_case", "fields", "expected"),
    [
        ("a stop is moved", {"stop_price": D("97.50")}, {"stop_price": "97.5"}),
        (
            "everything",
            {"quantity": D(4), "limit_price": D("101.00"), "stop_price": D(99)},
            {"qty": "4", "limit_price": "101", "stop_price": "99"},
        ),
    ],
)
def test_a_change_names_what_changes_alone(_case: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    change = Replacement(client_order_id="xm-2", **fields)
    assert replacement_payload(change) == {"client_order_id": "xm-2"} | expected


@pytest.mark.parametrize(
    ("_case", "side", "price", "limit"),
    [
        ("a sale a hundredth below, rounded down", OrderSide.SELL, "100.05", "99.04"),
        ("a purchase a hundredth above, rounded up", OrderSide.BUY, "100.10", "101.11"),
        ("exactly on a tick stays", OrderSide.SELL, "100", "99"),
        ("below a dollar the tick is finer", OrderSide.SELL, "0.5051", "0.5"),
        ("never zero", OrderSide.SELL, "0.0001", "0.0001"),
    ],
)
def test_a_marketable_limit_lies_beyond_the_price(_case: str, side: OrderSide, price: str, limit: str) -> None:
    assert marketable_limit(side, price=D(price), beyond=D("0.01")) == D(limit)


#: Every word that alpaca-py 0.44 knows, so that a new release which knows more fails here.
WORKING = {
    "new", "partially_filled", "accepted", "pending_new", "accepted_for_bidding", "pending_review", "held",
    "pending_replace", "done_for_day", "stopped", "suspended", "calculated",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")
def test_every_status_of_alpaca_has_its_state() -> None:
    from alpaca.trading.enums import OrderStatus

    assert {status.value for status in OrderStatus} == set(STATUSES)
    assert {word for word, state in STATUSES.items() if state is S.WORKING} == WORKING


@pytest.mark.parametrize(
    ("_case", "status", "state"),
    [
        ("resting", "new", S.WORKING),
        ("a GTC order goes on tomorrow", "done_for_day", S.WORKING),
        ("passive leg", "held", S.WORKING),
        ("may stick for ever", "pending_cancel", S.CANCELLING),
        ("end", "filled", S.FILLED),
        ("end", "canceled", S.CANCELLED),
        ("end", "expired", S.EXPIRED),
        ("end", "rejected", S.REJECTED),
        ("end of this id", "replaced", S.REPLACED),
        ("a word of next year", "reincarnated", S.UNRECOGNISED),
    ],
)
def test_a_status_becomes_our_word_and_keeps_its_own(_case: str, status: str, state: ReportedState) -> None:
    report = order_report(order(status=status))
    assert (report.state, report.raw_status) == (state, status)


def test_an_order_is_read_whole() -> None:
    report = order_report(
        order(status="canceled", filled_qty="4.25", filled_avg_price="100.1234", replaced_by="b-2", side="sell")
    )
    assert report.client_order_id == "xm-1"
    assert report.broker_order_id == "61e69015-8549-4bfd-b9c3-01e75843f47d"
    assert (report.symbol, report.side) == ("AAPL", OrderSide.SELL)
    assert (report.quantity, report.filled_quantity) == (D(15), D("4.25"))
    assert report.average_fill_price == D("100.1234")
    assert report.at == datetime(2026, 3, 16, 18, 38, 1, 942282, UTC)
    assert (report.executions, report.replaced_by) == ((), "b-2")


@pytest.mark.parametrize(
    ("_case", "changes"),
    [
        ("no id", {"id": ...}),
        ("no status", {"status": ...}),
        ("a side we do not know", {"side": "sideways"}),
        ("a quantity in words", {"qty": "many"}),
        ("a quantity that is none", {"qty": "NaN"}),
        ("no time at all", {"updated_at": None, "submitted_at": None, "created_at": None}),
    ],
)
def test_an_order_without_sense_is_unreadable(_case: str, changes: dict[str, Any]) -> None:
    body = {name: value for name, value in order(**changes).items() if value is not ...}
    with pytest.raises(Unreadable):
        order_report(body)


@pytest.mark.parametrize("body", [None, [], "order", {}])
def test_a_body_that_is_no_order_is_unreadable(body: Any) -> None:
    with pytest.raises(Unreadable):
        order_report(body)


def update(event: str, **changes: Any) -> dict[str, Any]:
    fields = changes.pop("order", {})
    return {"event": event, "timestamp": "2026-03-16T18:39:00.5Z", "order": order(**fields)} | changes


def test_a_fill_event_brings_its_execution() -> None:
    report = update_report(
        update(
            "partial_fill",
            execution_id="e-1",
            qty="5",
            price="100.01",
            order={"status": "partially_filled", "filled_qty": "5", "filled_avg_price": "100.01"},
        )
    )
    (execution,) = report.executions
    assert (execution.execution_id, execution.quantity, execution.price) == ("e-1", D(5), D("100.01"))
    assert execution.at == report.at == datetime(2026, 3, 16, 18, 39, 0, 500000, UTC)
    assert (report.state, report.filled_quantity) == (S.WORKING, D(5))


def test_a_fill_event_without_execution_id_books_nothing() -> None:
    report = update_report(update("fill", qty="15", price="100", order={"status": "filled", "filled_qty": "15"}))
    assert (report.executions, report.state, report.filled_quantity) == ((), S.FILLED, D(15))


@pytest.mark.parametrize(
    ("_case", "event", "status", "state"),
    [
        ("both agree", "new", "new", S.WORKING),
        ("the event is ahead of its order", "canceled", "pending_cancel", S.CANCELLED),
        ("the event is ahead of its order", "fill", "partially_filled", S.FILLED),
        ("a refused cancel leaves the order as it is", "order_cancel_rejected", "new", S.WORKING),
        ("the old order of a replacement", "replaced", "replaced", S.REPLACED),
        ("the new order of a replacement", "replaced", "new", S.WORKING),
        ("an event of next year", "blessed", "new", S.WORKING),
    ],
)
def test_an_event_becomes_a_state(_case: str, event: str, status: str, state: ReportedState) -> None:
    assert update_report(update(event, order={"status": status})).state is state


def test_the_id_of_a_fill_activity_is_the_streams_execution_id() -> None:
    execution = activity_execution(
        {
            "id": "20260316183900500::8f1c2d3e-0000-4000-8000-000000000001",
            "activity_type": "FILL",
            "transaction_time": "2026-03-16T18:39:00.500123Z",
            "type": "fill",
            "price": "128.33",
            "qty": "0.38962051",
            "side": "sell_short",
            "symbol": "AAPL",
            "order_id": "61e69015",
        }
    )
    assert execution.execution_id == "8f1c2d3e-0000-4000-8000-000000000001"
    assert (execution.quantity, execution.price) == (D("0.38962051"), D("128.33"))
    assert execution.at == datetime(2026, 3, 16, 18, 39, 0, 500123, UTC)


def test_a_stream_message_that_cannot_be_read_does_not_take_its_neighbours_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames: list[str | bytes] = [
        b"not json",
        json.dumps({"stream": "listening", "data": {}}),
        json.dumps({"stream": "trade_updates", "data": {"event": "fill"}}),
        json.dumps(["a", "list"]),
        json.dumps({"stream": "trade_updates", "data": update("new")}),
    ]
    assert [report.client_order_id for report in read_reports(frames)] == ["xm-1"]
    assert [record.message for record in caplog.records] == ["order_update_unreadable"] * 3


def test_a_corrected_execution_is_an_error_for_a_person(caplog: pytest.LogCaptureFixture) -> None:
    message = json.dumps({"stream": "trade_updates", "data": update("trade_bust")})
    (report,) = read_reports([message])
    assert (report.state, report.raw_status, report.executions) == (S.UNRECOGNISED, "trade_bust", ())
    assert caplog.records[0].levelname == "ERROR"
    assert caplog.records[0].message.startswith("execution_corrected event=trade_bust client_order_id=xm-1")


def test_the_adapter_does_without_pandas() -> None:
    code = "import sys, django; django.setup(); import orders.brokers.alpaca; print('pandas' in sys.modules)"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_legs_are_flattened_below_their_parents() -> None:
    tree = [order(id="a", legs=[order(id="b", legs=[order(id="c")]), order(id="d")]), order(id="e")]
    assert [leg["id"] for leg in flat_orders(tree)] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("_case", "fields", "quantity", "available"),
    [
        ("long", {"qty": "10", "side": "long", "qty_available": "4"}, D(10), D(4)),
        ("short with a sign", {"qty": "-10", "side": "short", "qty_available": "-10"}, D(-10), D(-10)),
        ("short without a sign", {"qty": "10", "side": "short", "qty_available": "6"}, D(-10), D(-6)),
        ("everything is held", {"qty": "10", "side": "long", "qty_available": "0"}, D(10), D(0)),
        ("an old server does not say", {"qty": "10", "side": "long"}, D(10), D(10)),
    ],
)
def test_a_position_is_signed(_case: str, fields: dict[str, str], quantity: Decimal, available: Decimal) -> None:
    holding = broker_position({"symbol": "AAPL", "avg_entry_price": "101.5"} | fields)
    assert (holding.quantity, holding.available, holding.average_entry) == (quantity, available, D("101.5"))


@pytest.mark.parametrize(
    ("_case", "fields", "blocked"),
    [
        ("in order", {"status": "ACTIVE"}, False),
        ("not active", {"status": "ACCOUNT_CLOSED"}, True),
        ("trading blocked", {"status": "ACTIVE", "trading_blocked": True}, True),
        ("suspended by its owner", {"status": "ACTIVE", "trade_suspended_by_user": True}, True),
    ],
)
def test_an_account_tells_whether_it_may_trade(_case: str, fields: dict[str, Any], blocked: bool) -> None:
    money = {"account_number": "PA1", "equity": "100.01", "cash": "50.005", "buying_power": "200"}
    account = broker_account(money | fields)
    assert account.blocked is blocked
    assert (account.equity, account.cash, account.buying_power) == (D("100.01"), D("50.005"), D(200))


@pytest.mark.parametrize(
    ("_case", "fields", "asset_class", "tick", "lot", "tradable"),
    [
        ("fractions", {"class": "us_equity", "fractionable": True}, "equity", D("0.01"), D("1E-9"), True),
        ("whole shares", {"class": "us_equity", "fractionable": False}, "equity", D("0.01"), D(1), True),
        ("inactive", {"class": "us_equity", "status": "inactive"}, "equity", D("0.01"), D(1), False),
        (
            "crypto names its increments",
            {"class": "crypto", "price_increment": "0.5", "min_trade_increment": "0.0001"},
            "crypto",
            D("0.5"),
            D("0.0001"),
            True,
        ),
    ],
)
def test_an_asset_becomes_facts(
    _case: str, fields: dict[str, Any], asset_class: str, tick: Decimal, lot: Decimal, tradable: bool
) -> None:
    facts = instrument_facts({"symbol": "X", "status": "active", "tradable": True, "shortable": True} | fields)
    assert (facts.asset_class, facts.tick, facts.lot, facts.tradable) == (asset_class, tick, lot, tradable)
    assert facts.shortable is True


def test_a_bar_is_exact() -> None:
    bar = price_bar(
        "AAPL",
        {"t": "2008-09-29T04:00:00Z", "o": D("119.62"), "h": 120, "l": D("100.59"), "c": D("105.26"), "v": 1},
    )
    assert (bar.open, bar.high, bar.low, bar.close) == (D("119.62"), D(120), D("100.59"), D("105.26"))
    assert bar.start == datetime(2008, 9, 29, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "word"),
    [(60, "1Min"), (300, "5Min"), (3540, "59Min"), (3600, "1Hour"), (82_800, "23Hour"), (86_400, "1Day"),
     (604_800, "1Week"), (1, None), (90, None), (0, None), (-60, None), (5400, None), (172_800, None)],
)  # fmt: skip
def test_bar_lengths_that_alpaca_has(seconds: int, word: str | None) -> None:
    assert timeframe(seconds) == word


@pytest.mark.parametrize(
    ("_case", "base", "data", "stream", "per_minute"),
    [
        ("paper", "https://paper-api.alpaca.markets", "https://data.alpaca.markets",
         "wss://paper-api.alpaca.markets/stream", 200),
        ("live", "https://api.alpaca.markets/", "https://data.alpaca.markets",
         "wss://api.alpaca.markets/stream", 200),
        ("simulator", "http://127.0.0.1:8900", "http://127.0.0.1:8900", "ws://127.0.0.1:8900/stream", None),
        ("not Alpaca's in spite of the name", "https://alpaca.markets.example", "https://alpaca.markets.example",
         "wss://alpaca.markets.example/stream", None),
    ],
)  # fmt: skip
def test_addresses_follow_from_the_trading_address(
    _case: str, base: str, data: str, stream: str, per_minute: int | None
) -> None:
    assert (data_url(base), stream_url(base)) == (data, stream)
    assert connect(base_url=base, key="k", secret="s").capabilities.requests_per_minute == per_minute


@pytest.mark.parametrize("base", ["", "paper-api.alpaca.markets", "ftp://x", "https://"])
def test_an_address_that_is_none_is_refused(base: str) -> None:
    with pytest.raises(ValueError, match="broker address"):
        connect(base_url=base, key="k", secret="s")


def test_credentials_are_not_shown() -> None:
    broker = connect(base_url="http://127.0.0.1:9", key="KEY-1234", secret="SECRET-1234")
    shown = f"{broker!r} {broker!s} {broker._transport!r}"
    assert "1234" not in shown


def test_an_order_by_notional_is_as_large_as_what_it_filled() -> None:
    assert order_report(order(qty=None, filled_qty="2.5")).quantity == D("2.5")
