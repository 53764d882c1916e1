"""The pure parts of the crypto adapter: what leaves, what comes back, and what each error proves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.crypto_abilities import capabilities_of
from orders.brokers.crypto_checks import objection
from orders.brokers.crypto_payloads import (
    amounts,
    executions,
    filed_id,
    instrument_facts,
    is_the_stop,
    is_whole,
    order_arguments,
    order_report,
    spot_positions,
    taken_apart,
    to_milliseconds,
    to_time,
)
from orders.brokers.crypto_refusals import Traffic, is_duplicate, is_not_found, read_error, said, write_error
from orders.brokers.exact import Unreadable
from orders.brokers.protocol import (
    BrokerPosition,
    Capabilities,
    Execution,
    InstrumentFacts,
    OrderClass,
    OrderSide,
    OrderType,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused
from positions.feeds.crypto_venue import UnknownVenueError, open_venue

ccxt = pytest.importorskip("ccxt", reason="crypto exchanges need the packages of requirements-crypto.txt")

D = Decimal
K, S, T, F = RefusalKind, ReportedState, OrderType, TimeInForce
AT = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
MS = 1_714_979_289_123
SELL = SubmitRequest(client_order_id="xm1", symbol="BTC/USDT", side=OrderSide.SELL, quantity=D("0.1000"))
STOP_LIMIT = replace(
    SELL, order_type=T.STOP_LIMIT, stop_price=D("90.10"), limit_price=D("89"), time_in_force=F.GTC
)  # fmt: skip


# -- what leaves


@pytest.mark.parametrize(
    ("_case", "request_", "arguments"),
    [
        ("market", SELL, ("BTC/USDT", "market", "sell", "0.1", None, {"clientOrderId": "xm1"})),
        (
            "limit",
            replace(SELL, order_type=T.LIMIT, limit_price=D("1E+2"), time_in_force=F.IOC),
            ("BTC/USDT", "limit", "sell", "0.1", "100", {"clientOrderId": "xm1", "timeInForce": "IOC"}),
        ),
        (
            "stop",
            replace(SELL, order_type=T.STOP, stop_price=D("90.10")),
            ("BTC/USDT", "market", "sell", "0.1", None, {"clientOrderId": "xm1", "stopLossPrice": "90.1"}),
        ),
        (
            "stop limit",
            STOP_LIMIT,
            (
                "BTC/USDT", "limit", "sell", "0.1", "89",
                {"clientOrderId": "xm1", "timeInForce": "GTC", "stopLossPrice": "90.1"},
            ),
        ),
    ],
)  # fmt: skip
def test_an_order_leaves_as_text(_case: str, request_: SubmitRequest, arguments: tuple[object, ...]) -> None:
    assert order_arguments(request_) == arguments


FACTS = InstrumentFacts(
    symbol="BTC/USDT", asset_class="crypto", tick=D("0.01"), lot=D("0.001"), tradable=True, shortable=False,
    fractionable=True,
)  # fmt: skip
ABLE = Capabilities(order_types=frozenset({T.MARKET, T.LIMIT}), times_in_force=frozenset({F.GTC}))


@pytest.mark.parametrize(
    ("_case", "request_", "features", "said_"),
    [
        ("market sell by the day", SELL, {}, ""),
        ("no such type", STOP_LIMIT, {}, "there are no simple stop_limit orders"),
        ("no groups", replace(SELL, order_class=OrderClass.OCO), {}, "there are no oco market orders"),
        (
            "no day",
            replace(SELL, order_type=T.LIMIT, limit_price=D(1)),
            {},
            "limit orders cannot be day; use gtc",
        ),
        (
            "market buy by cost",
            replace(SELL, side=OrderSide.BUY),
            {"marketBuyRequiresPrice": True},
            "market buys are by cost, not by quantity; use a limit order",
        ),
        ("market sell all the same", SELL, {"marketBuyRequiresPrice": True}, ""),
        ("off the lot", replace(SELL, quantity=D("0.1001")), {}, "quantity 0.1001 is no multiple of 0.001"),
        (
            "off the tick",
            replace(SELL, order_type=T.LIMIT, limit_price=D("1.005"), time_in_force=F.GTC),
            {},
            "limit price 1.005 is no multiple of 0.01",
        ),
        ("nothing", replace(SELL, quantity=D(0)), {}, "quantity 0 is no multiple of 0.001"),
    ],
)
def test_what_would_be_rounded_or_misunderstood_is_objected_to(
    _case: str, request_: SubmitRequest, features: dict[str, bool], said_: str
) -> None:
    assert objection(request_, facts=FACTS, capabilities=ABLE, features=features) == said_


# -- what comes back


def _order(**fields: Any) -> dict[str, Any]:
    return {
        "id": "7", "clientOrderId": "xm1", "symbol": "BTC/USDT", "side": "sell", "status": "open", "amount": "0.1",
        "filled": "0.0", "average": None, "timestamp": MS - 5, "lastUpdateTimestamp": MS, "type": "limit",
    } | fields  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "fields", "state"),
    [
        ("open", {}, S.WORKING),
        ("partly", {"filled": "0.05", "average": "100"}, S.WORKING),
        ("filled", {"status": "closed", "filled": "0.1", "average": "100"}, S.FILLED),
        ("closed before it filled", {"status": "closed", "filled": "0.05", "average": "100"}, S.CANCELLED),
        ("closed unfilled", {"status": "closed"}, S.CANCELLED),
        ("canceled", {"status": "canceled"}, S.CANCELLED),
        ("canceling", {"status": "canceling"}, S.CANCELLING),
        ("expired", {"status": "expired"}, S.EXPIRED),
        ("rejected", {"status": "rejected"}, S.REJECTED),
        ("a new word", {"status": "PENDING_NEW"}, S.UNRECOGNISED),
        ("no word", {"status": None}, S.UNRECOGNISED),
    ],
)
def test_every_state(_case: str, fields: dict[str, Any], state: ReportedState) -> None:
    report = order_report(_order(**fields))
    assert report.state is state
    assert (report.broker_order_id, report.client_order_id, report.at) == ("7@BTC/USDT", "xm1", AT)
    assert report.average_fill_price == (D(100) if "average" in fields else None)


@pytest.mark.parametrize(
    ("_case", "fields"),
    [
        ("a float has lost digits", {"amount": 0.1}),
        ("no side", {"side": None}),
        ("no number", {"filled": "many"}),
        ("no time", {"timestamp": None, "lastUpdateTimestamp": None}),
    ],
)
def test_what_cannot_be_read_is_unreadable(_case: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        order_report(_order(**fields))


def test_an_order_without_a_time_has_that_of_the_look() -> None:
    assert order_report(_order(timestamp=None, lastUpdateTimestamp=None), now=AT).at == AT


@pytest.mark.parametrize(
    ("_case", "fields", "is_stop"),
    [
        ("as asked", {"triggerPrice": "90.1", "price": "89"}, True),
        ("as a stop loss", {"stopLossPrice": "90.10", "price": "89.0"}, True),
        ("no trigger", {"price": "89"}, False),
        ("another trigger", {"triggerPrice": "90.2", "price": "89"}, False),
        ("another limit", {"triggerPrice": "90.1", "price": "88"}, False),
        ("no limit", {"triggerPrice": "90.1"}, False),
    ],
)
def test_a_stop_is_only_one_with_its_trigger(_case: str, fields: dict[str, Any], is_stop: bool) -> None:
    assert is_the_stop(_order(**fields), STOP_LIMIT) is is_stop


@pytest.mark.parametrize(
    ("_case", "told", "ours"),
    [
        ("ours", "xm" + "a" * 26, "xm" + "a" * 26),
        ("with the venue's mark before it", "t-xm" + "a" * 26, "xm" + "a" * 26),
        ("somebody else's", "x-TKT5PX2Fab", "x-TKT5PX2Fab"),
        ("none", None, ""),
    ],
)
def test_our_id_is_known_behind_a_venues_mark(_case: str, told: str | None, ours: str) -> None:
    assert order_report(_order(clientOrderId=told)).client_order_id == ours


def test_an_acknowledgement_is_no_whole_order() -> None:
    assert is_whole(_order())
    assert not is_whole({"id": "7", "symbol": "BTC/USDT", "side": None, "status": None})


def test_ids_carry_their_symbol() -> None:
    assert filed_id("7", "BTC/USDT") == "7@BTC/USDT"
    assert taken_apart("7@BTC/USDT") == ("7", "BTC/USDT")
    assert taken_apart("a@b@BTC/USDT") == ("a@b", "BTC/USDT")
    assert taken_apart("7") == ("7", "")
    assert taken_apart("") == ("", "")


def _trade(**fields: Any) -> dict[str, Any]:
    return {"id": "1", "order": "7", "amount": "0.1", "price": "100", "timestamp": MS, "fee": None} | fields


def test_executions_are_those_of_the_order_oldest_first() -> None:
    trades = [_trade(id="2", timestamp=MS + 1), _trade(), _trade(id="3", order="8")]
    told = executions(trades, order_id="7", symbol="BTC/USDT")
    first = Execution(execution_id="1@BTC/USDT", quantity=D("0.1"), price=D(100), at=AT)
    assert told[0] == first
    assert [fill.execution_id for fill in told] == ["1@BTC/USDT", "2@BTC/USDT"]


def test_trades_without_an_id_get_the_same_one_each_time() -> None:
    trades = [_trade(id=None), _trade(id=None), _trade(id=None, price="101")]
    ids = [fill.execution_id for fill in executions(trades, order_id="7", symbol="BTC/USDT")]
    assert ids == [fill.execution_id for fill in executions(trades[:], order_id="7", symbol="BTC/USDT")]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("_case", "fields", "fee"),
    [
        ("none", {}, D(0)),
        ("in the quote currency", {"fee": {"cost": "0.02", "currency": "USDT"}}, D("0.02")),
        ("in the base currency", {"fee": {"cost": "0.0001", "currency": "BTC"}}, D("0.01")),
        ("in a third one it is not told", {"fee": {"cost": "0.5", "currency": "BNB"}}, D(0)),
        ("several", {"fees": [{"cost": "1", "currency": "USDT"}, {"cost": "2", "currency": "USDT"}]}, D(3)),
    ],
)
def test_fees_are_in_the_quote_currency(_case: str, fields: dict[str, Any], fee: Decimal) -> None:
    (fill,) = executions([_trade(**fields)], order_id="7", symbol="BTC/USDT")
    assert fill.fee == fee


def test_balances_that_trade_against_the_money_are_positions() -> None:
    held = amounts(
        {
            "total": {"BTC": "2.5", "USDT": "10", "XYZ": "1", "ETH": "0.0", "SOL": "3"},
            "free": {"BTC": "2", "USDT": "9", "SOL": None},
        }
    )
    assert held == {"BTC": (D("2.5"), D(2)), "USDT": (D(10), D(9)), "XYZ": (D(1), D(1)), "SOL": (D(3), D(3))}
    assert spot_positions(held, quote="USDT", symbols={"BTC/USDT": {}, "BTC/EUR": {}}) == [
        BrokerPosition(symbol="BTC/USDT", quantity=D("2.5"), available=D(2), average_entry=D(0))
    ]


@pytest.mark.parametrize(
    ("_case", "mode", "precision", "tick", "lot"),
    [
        ("increments", 4, {"price": "0.01", "amount": "0.00001000"}, D("0.01"), D("0.00001")),
        ("decimal places", 2, {"price": "2", "amount": "0"}, D("0.01"), D(1)),
    ],
)
def test_increments_of_a_market(_case: str, mode: int, precision: dict[str, str], tick: Decimal, lot: Decimal) -> None:
    market = {"symbol": "BTC/USDT", "precision": precision, "active": True, "limits": {"cost": {"min": "5"}}}
    facts = instrument_facts(market, precision_mode=mode)
    assert (facts.tick, facts.lot, facts.min_notional, facts.tradable, facts.shortable) == (
        tick,
        lot,
        D(5),
        True,
        False,
    )


def test_times_make_the_round_trip() -> None:
    assert to_time(MS) == AT
    assert to_milliseconds(AT) == MS


# -- what each error proves: as ccxt raises it for an answer, with the status it came with

ANSWERED = Traffic(sent=1, left=True, status=400)


@pytest.mark.parametrize(
    ("_case", "error", "traffic", "kind", "permanent"),
    [
        ("no money", ccxt.InsufficientFunds("binance Account has insufficient balance"), ANSWERED, K.BUYING_POWER, False),
        ("immediate stop", ccxt.OrderImmediatelyFillable("Stop price would trigger"), ANSWERED, K.PRICE, False),
        ("closed", ccxt.MarketClosed("Market is closed."), ANSWERED, K.MARKET_CLOSED, False),
        ("no symbol", ccxt.BadSymbol("Invalid symbol."), ANSWERED, K.UNKNOWN_SYMBOL, True),
        ("price band", ccxt.InvalidOrder("Filter failure: PERCENT_PRICE_BY_SIDE"), ANSWERED, K.PRICE, False),
        ("smallest order", ccxt.InvalidOrder("Filter failure: NOTIONAL"), ANSWERED, K.INVALID, False),
        ("not this account", ccxt.InvalidOrder("symbol is not permitted for this account."), ANSWERED, K.NOT_ALLOWED, False),
        ("clock", ccxt.InvalidNonce("Timestamp outside of the recvWindow."), ANSWERED, K.OTHER, False),
        ("refused with 200", ccxt.InvalidOrder("EOrder:Invalid price"), Traffic(sent=1, left=True, status=200), K.INVALID, False),
        ("ccxt itself", ccxt.InvalidOrder("amount must be above 0"), Traffic(sent=0, left=False), K.INVALID, True),
        ("not there", ccxt.NotSupported("no"), Traffic(sent=0, left=False), K.INVALID, True),
        ("ccxt's defect", TypeError("'<=' not supported"), Traffic(sent=0, left=False), K.INVALID, True),
    ],
)  # fmt: skip
def test_what_is_proven_is_refused(
    _case: str, error: Exception, traffic: Traffic, kind: RefusalKind, permanent: bool
) -> None:
    refusal = write_error(error, traffic, subject="submit", side=OrderSide.BUY)
    assert isinstance(refusal, Refused)
    assert (refusal.kind, refusal.permanent) == (kind, permanent)


def test_a_sell_without_coins_is_held_quantity() -> None:
    refusal = write_error(ccxt.InsufficientFunds("no"), ANSWERED, subject="submit", side=OrderSide.SELL)
    assert isinstance(refusal, Refused)
    assert refusal.kind is K.HELD_QUANTITY


@pytest.mark.parametrize(
    ("_case", "error", "traffic"),
    [
        ("no answer", ccxt.RequestTimeout("binance POST https://x"), Traffic(sent=1, left=True)),
        ("reset", ccxt.NetworkError("binance POST https://x"), Traffic(sent=1, left=True)),
        ("busy", ccxt.ExchangeNotAvailable("503"), Traffic(sent=1, left=True, status=503)),
        ("backend lost", ccxt.RequestTimeout("-1007"), Traffic(sent=1, left=True, status=504)),
        ("a refusal on a 5xx", ccxt.InsufficientFunds("no"), Traffic(sent=1, left=True, status=502)),
        ("a gateway's page", ccxt.ExchangeNotAvailable("<html>"), Traffic(sent=1, left=True, status=403)),
        ("an unmapped code", ccxt.ExchangeError("-9999"), ANSWERED),
        ("a strange answer", ccxt.BadResponse("?"), Traffic(sent=1, left=True, status=200)),
        ("unreadable", KeyError("orderId"), Traffic(sent=1, left=True, status=200)),
        ("an order error without an answer", ccxt.InvalidOrder("x"), Traffic(sent=1, left=True)),
    ],
)
def test_what_is_not_proven_is_unknown(_case: str, error: Exception, traffic: Traffic) -> None:
    for outcome in (write_error(error, traffic, subject="submit"), read_error(error, traffic, subject="find")):
        assert isinstance(outcome, OutcomeUnknown)
        assert "https" not in str(outcome)


def test_what_never_left_was_not_sent() -> None:
    traffic = Traffic(sent=1, left=False)
    assert isinstance(write_error(ccxt.NetworkError("x"), traffic, subject="submit"), NotSent)
    assert isinstance(read_error(ccxt.NetworkError("x"), traffic, subject="find"), NotSent)


@pytest.mark.parametrize(
    ("_case", "error", "status"),
    [
        ("429", ccxt.DDoSProtection("429"), 429),
        ("banned", ccxt.DDoSProtection("418"), 418),
        ("in words", ccxt.RateLimitExceeded("EAPI:Rate limit exceeded"), 200),
    ],
)
def test_beyond_the_rate_limit(_case: str, error: Exception, status: int) -> None:
    traffic = Traffic(sent=1, left=True, status=status, retry_after=3.0)
    refusal, question = write_error(error, traffic, subject="submit"), read_error(error, traffic, subject="find")
    assert isinstance(refusal, Refused)
    assert (refusal.kind, refusal.retry_after, refusal.permanent) == (K.RATE_LIMITED, 3.0, False)
    assert isinstance(question, NotSent)
    assert question.retry_after == 3.0


@pytest.mark.parametrize(
    ("_case", "error", "traffic"),
    [
        ("wrong key", ccxt.AuthenticationError("-2015"), Traffic(sent=1, left=True, status=401)),
        ("in words", ccxt.PermissionDenied("EGeneral:Permission denied"), Traffic(sent=1, left=True, status=200)),
        ("after it had worked", ccxt.DDoSProtection("-2015"), Traffic(sent=1, left=True, status=401)),
        ("no key", ccxt.AuthenticationError('requires "apiKey"'), Traffic(sent=0, left=False)),
    ],
)
def test_the_account_itself_is_refused(_case: str, error: Exception, traffic: Traffic) -> None:
    for outcome in (write_error(error, traffic, subject="submit"), read_error(error, traffic, subject="find")):
        assert isinstance(outcome, AccountRefused)
        assert (outcome.kind, outcome.permanent) == (K.CREDENTIALS, True)


@pytest.mark.parametrize(
    ("_case", "error", "status", "duplicate"),
    [
        ("its class", ccxt.DuplicateOrderId("taken"), 400, True),
        ("its words", ccxt.InvalidOrder('{"code":-2010,"msg":"Duplicate order sent."}'), 400, True),
        ("other words", ccxt.InvalidOrder("Filter failure: LOT_SIZE"), 400, False),
        ("on a 5xx", ccxt.DuplicateOrderId("taken"), 502, False),
    ],
)
def test_a_used_id_is_proof_of_an_order(_case: str, error: Exception, status: int, duplicate: bool) -> None:
    assert is_duplicate(error, Traffic(sent=1, left=True, status=status)) is duplicate


def test_only_the_venue_says_that_there_is_no_such_order() -> None:
    missing = ccxt.OrderNotFound("-2013")
    assert is_not_found(missing, ANSWERED)
    assert not is_not_found(missing, Traffic(sent=1, left=True, status=502))
    assert not is_not_found(ccxt.ExchangeNotAvailable("404"), Traffic(sent=1, left=True, status=404))


def test_words_carry_no_address() -> None:
    assert said(ccxt.InvalidOrder("x https://api.test/order?signature=abc 400 Bad")) == "x  400 Bad"
    assert said(ccxt.InvalidOrder("")) == "InvalidOrder"


# -- venues


@pytest.mark.parametrize(
    ("venue", "types", "by_client_id", "a_minute"),
    [
        ("binance", {T.MARKET, T.LIMIT, T.STOP_LIMIT}, True, 1200),
        ("okx", {T.MARKET, T.LIMIT, T.STOP, T.STOP_LIMIT}, True, 545),
        ("coinbase", {T.MARKET, T.LIMIT, T.STOP_LIMIT}, False, 1764),
        ("bitstamp", {T.MARKET, T.LIMIT}, True, 800),
    ],
)
def test_what_venues_can_do_is_read_from_ccxt(
    venue: str, types: set[OrderType], by_client_id: bool, a_minute: int
) -> None:
    exchange, session = open_venue(venue=venue)
    able = capabilities_of(exchange)
    assert able.order_types == types
    assert able.times_in_force == {F.GTC, F.IOC, F.FOK}
    assert (able.lookup_by_client_id, able.requests_per_minute) == (by_client_id, a_minute)
    declared = (able.durable_dedupe, able.replace, able.native_oco, able.shorting, able.update_stream)
    assert declared == (False,) * 5
    session.close()


@pytest.mark.parametrize(
    ("venue", "said_"),
    [("nosuch", "knows no exchange"), ("bitfinex", "significant digits"), ("kraken", "client order ids of 18")],
)
def test_a_venue_that_cannot_be_traded_exactly_is_refused(venue: str, said_: str) -> None:
    with pytest.raises(UnknownVenueError, match=said_):
        open_venue(venue=venue)
