"""Tables of the Robinhood adapter's pure parts: values to JSON and back, ids, windows; and its credentials."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.exact import Unreadable
from orders.brokers.protocol import (
    OrderReport,
    OrderSide,
    ReportedState,
)
from orders.brokers.robinhood import connect
from orders.brokers.robinhood_payloads import bars_window, broker_account, instrument_facts, order_report, ref_id
from orders.brokers.robinhood_refs import MOST_REMEMBERED, client_id_of, remember
from orders.errors import RefusalKind

D = Decimal
K = RefusalKind
S = ReportedState
BUY, SELL = OrderSide.BUY, OrderSide.SELL


def test_a_ref_id_is_a_uuid_that_is_always_the_same() -> None:
    assert ref_id("xm-1") == ref_id("xm-1") != ref_id("xm-2")
    assert uuid.UUID(ref_id("xm-1")).version == 5


def order(**changes: Any) -> dict[str, Any]:
    return {
        "id": "6ab6ccae-7625-48b9-b70e-4b3eb092226a",
        "ref_id": ref_id("xm-1"),
        "state": "partially_filled",
        "side": "sell",
        "quantity": "10.00000000",
        "cumulative_quantity": "4.00000000",
        "average_price": "100.25000000",
        "reject_reason": None,
        "created_at": "2026-09-25T19:34:05Z",
        "updated_at": "2026-09-25T19:34:06.123456Z",
        "executions": [
            {"id": "e-1", "price": "100.25000000", "quantity": "4.00000000", "timestamp": "2026-09-25T19:34:06Z"}
        ],
    } | changes


def read(body: dict[str, Any]) -> OrderReport:
    return order_report(body, symbol="AAPL", client_order_id="xm-1")


def test_an_order_is_read_whole_with_its_executions() -> None:
    report = read(order())
    assert (report.client_order_id, report.broker_order_id) == ("xm-1", "6ab6ccae-7625-48b9-b70e-4b3eb092226a")
    assert (report.symbol, report.side, report.state) == ("AAPL", SELL, S.WORKING)
    assert (report.quantity, report.filled_quantity, report.average_fill_price) == (D(10), D(4), D("100.25"))
    assert report.at == datetime(2026, 9, 25, 19, 34, 6, 123456, UTC)
    (fill,) = report.executions
    assert (fill.execution_id, fill.quantity, fill.price) == ("e-1", D(4), D("100.25"))
    assert fill.at == datetime(2026, 9, 25, 19, 34, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("queued", S.WORKING),
        ("unconfirmed", S.WORKING),
        ("confirmed", S.WORKING),
        ("partially_filled", S.WORKING),
        ("pending_cancelled", S.CANCELLING),
        ("filled", S.FILLED),
        ("cancelled", S.CANCELLED),
        ("rejected", S.REJECTED),
        ("failed", S.REJECTED),
        ("reincarnated", S.UNRECOGNISED),
    ],
)
def test_a_state_becomes_our_word_and_keeps_its_own(state: str, expected: ReportedState) -> None:
    report = read(order(state=state, reject_reason="because"))
    assert (report.state, report.raw_status, report.reason) == (expected, state, "because")


@pytest.mark.parametrize(
    ("_case", "changes"),
    [
        ("no id", {"id": ...}),
        ("no state", {"state": ...}),
        ("a side we do not know", {"side": "sideways"}),
        ("a quantity in words", {"quantity": "many"}),
        ("a quantity that lost its digits", {"quantity": 0.1}),
        ("an execution without an id could be booked twice", {"executions": [{"price": "1", "quantity": "1"}]}),
        ("a time without a zone", {"updated_at": "2026-09-25T19:34:06"}),
    ],
)
def test_an_order_without_sense_is_unreadable(_case: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read({name: value for name, value in order(**changes).items() if value is not ...})


def test_what_is_remembered_of_ids_does_not_grow_without_end() -> None:
    remember("xm-first")
    assert client_id_of(ref_id("xm-first")) == "xm-first"
    for number in range(MOST_REMEMBERED):
        remember(f"xm-later-{number}")
    assert client_id_of(ref_id("xm-first")) == ref_id("xm-first")
    assert client_id_of(None) == ""


@pytest.mark.parametrize("flag", ["deactivated", "locked", "only_position_closing_trades"])
def test_an_account_tells_that_it_may_not_trade(flag: str) -> None:
    money = {"account_number": "5", "cash": "1", "buying_power": "2"}
    assert broker_account(money | {flag: True}, {"equity": "3"}).blocked


@pytest.mark.parametrize(
    ("_case", "fields", "tick", "lot", "tradable"),
    [
        ("parts of shares", {"fractional_tradability": "tradable"}, "0.01", "0.000001", True),
        ("whole shares", {"fractional_tradability": "untradable", "min_tick_size": "0.05"}, "0.05", "1", True),
        ("not active", {"state": "inactive"}, "0.01", "1", False),
        ("not tradable", {"tradeable": False}, "0.01", "1", False),
    ],
)
def test_an_instrument_becomes_facts(_case: str, fields: dict[str, Any], tick: str, lot: str, tradable: bool) -> None:
    facts = instrument_facts({"symbol": "X", "state": "active", "tradeable": True} | fields)
    assert (facts.tick, facts.lot, facts.tradable, facts.shortable) == (D(tick), D(lot), tradable, False)


NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "days", "expected"),
    [
        (300, 1, ("5minute", "day")),
        (300, 3, ("5minute", "week")),
        (300, 90, ("5minute", "week")),
        (3600, 20, ("hour", "month")),
        (3600, 60, ("hour", "3month")),
        (86_400, 20, ("day", "year")),
        (86_400, 4000, ("day", "5year")),
        (604_800, 20, ("week", "5year")),
        (60, 1, None),
        (7, 1, None),
    ],
)
def test_the_window_of_bars(seconds: int, days: int, expected: tuple[str, str] | None) -> None:
    assert bars_window(start=NOW - timedelta(days=days), now=NOW, seconds=seconds) == expected


# -- credentials


@pytest.mark.parametrize(
    ("base", "token", "words"), [("ftp://x", "t", "broker address"), ("http://127.0.0.1:9", "", "token")]
)
def test_an_account_that_is_set_up_wrongly_is_refused(base: str, token: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        connect(base_url=base, token=token)


def test_the_token_is_not_shown() -> None:
    broker = connect(base_url="http://127.0.0.1:9", token="TOKEN-1234")
    assert "1234" not in f"{broker!r} {broker._transport!r}"
    broker.close()


def test_the_adapter_needs_no_package_of_robinhoods_and_signing_in_says_which_it_needs() -> None:
    code = "import sys; sys.modules['robin_stocks'] = None; import orders.brokers.robinhood\n"
    code += "from orders.brokers import robinhood_session; sys.exit(robinhood_session.main())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "robin_stocks is not installed: pip install -r requirements-robinhood.txt\n"
