"""Replays: real sessions as quotes, gaps included, into orders and streams."""

from decimal import Decimal
from typing import Any

import pytest

from orders.brokers.simulator.replay_path import Bar, read_bars
from tests.simulator.acts import becomes, placed
from tests.simulator.box import Box, BoxError, eventually
from tests.simulator.listeners import market
from tests.simulator.sdk import (
    StockBarsRequest,
    StockHistoricalDataClient,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    TimeFrame,
)
from tests.simulator.test_replay_path import CSV


def bar_of(session: str, symbol: str = "AAPL") -> Bar:
    return next(bar for bar in read_bars(CSV) if (bar.session, bar.symbol) == (session, symbol))


def done(box: Box) -> Any:
    return eventually(lambda: (found := box.control("GET", "/replay"))["state"] == "done" and found, within=10)


def play(box: Box, *sessions: str, **options: Any) -> Any:
    """Play sessions of AAPL as fast as it goes and return the final state."""
    plan = {"symbols": ["AAPL"], "seconds_per_session": 0, "steps_per_session": 60, "spread_bps": 0}
    box.control("POST", "/replay", {"sessions": list(sessions), **plan, **options})
    return done(box)


def test_a_stop_is_gapped_through_at_the_real_open(box: Box) -> None:
    box.control("POST", "/replay/prime", {"session": "2000-09-28", "symbols": ["AAPL"], "at": "close", "spread_bps": 0})
    becomes(box, placed(box)["id"], "filled")
    stop = placed(box, side="sell", type="stop", stop_price="52", time_in_force="gtc")
    play(box, "2000-09-29")
    assert becomes(box, stop["id"], "filled")["filled_avg_price"] == "28.19"


def test_the_stream_carries_the_session_and_its_bars(box: Box) -> None:
    bar = bar_of("2010-05-06")
    with market(box) as client:
        client.send({"action": "auth", "key": box.key, "secret": box.secret})
        client.read()
        client.send({"action": "subscribe", "trades": ["AAPL"], "bars": ["AAPL"], "dailyBars": ["AAPL"]})
        client.read()
        state = play(box, "2010-05-06", symbols=["AAPL", "IBM"])
        messages: list[Any] = []
        while not messages or messages[-1]["T"] != "d":
            messages += client.read()
    prices = [Decimal(str(message["p"])) for message in messages if message["T"] == "t"]
    assert (len(prices), prices[0], prices[-1]) == (60, bar.open, bar.close)
    assert (min(prices), max(prices)) == (Decimal("199.25"), bar.high)
    halves = [message for message in messages if message["T"] == "b"]
    assert len(halves) == 13
    assert (halves[0]["o"], halves[-1]["c"]) == (float(bar.open), float(bar.close))
    assert min(message["l"] for message in halves) == 199.25
    assert (messages[-1]["l"], messages[-1]["v"]) == (199.25, bar.volume)
    assert (state["session"], state["progress"], state["steps"]) == ("2010-05-06", 1.0, 60)
    assert state["market_time"] == "2010-05-06T20:00:00.000000Z"


def test_sessions_follow_each_other_and_the_gap_is_a_jump(box: Box) -> None:
    state = play(box, "2000-09-28", "2000-09-29", steps_per_session=4)
    assert (state["steps"], state["session"]) == (8, "2000-09-29")
    assert box.api("GET", "/v2/stocks/AAPL/trades/latest")[1]["trade"]["p"] == bar_of("2000-09-29").close


def test_a_replay_takes_its_time_and_can_be_stopped(box: Box) -> None:
    plan = {"sessions": ["2008-09-29"], "seconds_per_session": 30, "steps_per_session": 300, "symbols": None}
    assert box.control("GET", "/replay")["state"] in ("idle", "done")
    box.control("POST", "/replay", plan)
    eventually(lambda: box.control("GET", "/replay")["steps"] >= 3)
    state = box.control("GET", "/replay")
    assert (state["state"], state["steps"] < 30) == ("running", True)
    with pytest.raises(BoxError, match="a replay is running"):
        box.control("POST", "/replay", plan)
    assert box.control("DELETE", "/replay")["state"] == "idle"
    assert box.control("POST", "/replay", {**plan, "seconds_per_session": 0})["state"] == "running"
    assert done(box)["progress"] == 1.0


def test_prime_sets_the_quotes_of_all_symbols_of_a_day(box: Box) -> None:
    quotes = box.control("POST", "/replay/prime", {"session": "2000-09-29", "at": "open", "spread_bps": 20})["quotes"]
    assert [quote["symbol"] for quote in quotes] == ["AAPL", "IBM", "MSFT"]
    assert (quotes[0]["bid"], quotes[0]["last"], quotes[0]["ask"]) == ("28.16", "28.19", "28.22")


@pytest.mark.parametrize(
    ("_case", "plan", "problem"),
    [
        ("no sessions", {}, "sessions must be a list that is not empty"),
        ("no date", {"sessions": ["Monday"]}, "a session must be a date such as 2008-09-29, not 'Monday'"),
        ("a day without bars", {"sessions": ["2020-03-16"]}, "no bars for session '2020-03-16'; the sessions of"),
        ("an unknown symbol", {"sessions": ["2008-09-29"], "symbols": ["TSLA"]}, "no bar of TSLA on 2008-09-29; there"),
        ("no symbols", {"sessions": ["2008-09-29"], "symbols": []}, "symbols must be a list of symbols, or null"),
        ("three steps", {"sessions": ["2008-09-29"], "steps_per_session": 3}, "whole number from 4 to 100000, not 3"),
        ("backwards", {"sessions": ["2008-09-29"], "seconds_per_session": -1}, "must be between 0 and 86400"),
        ("a wide spread", {"sessions": ["2008-09-29"], "spread_bps": 9000}, "spread_bps must be between 0 and 5000"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(_case: str, plan: dict[str, Any], problem: str, box: Box) -> None:
    with pytest.raises(BoxError, match=problem):
        box.control("POST", "/replay", plan)
    assert box.control("GET", "/replay")["state"] != "running"


def test_history_is_readable_by_alpaca_py(box: Box) -> None:
    client = StockHistoricalDataClient(box.key, box.secret, url_override=box.url)
    try:
        bars = client.get_stock_bars(
            StockBarsRequest(
                symbol_or_symbols=["AAPL", "IBM"],
                timeframe=TimeFrame.Day,
                start=_at("2010-05-05"),
                end=_at("2010-05-08"),
            )
        ).data
        assert [bar.low for bar in bars["AAPL"]][1] == 199.25
        assert {symbol: len(found) for symbol, found in bars.items()} == {"AAPL": 3, "IBM": 3}
        box.quote("AAPL", "99.99", "100.01", "100")
        quote = client.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="AAPL"))["AAPL"]
        trade = client.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="AAPL"))["AAPL"]
        assert (quote.bid_price, quote.ask_price, trade.price) == (99.99, 100.01, 100.0)
    finally:
        client._session.close()


def _at(day: str) -> Any:
    from datetime import UTC, datetime

    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def test_bars_come_in_pages_of_exact_numbers(box: Box) -> None:
    first = box.api("GET", "/v2/stocks/AAPL/bars?timeframe=1Day&limit=2&start=2010-05-05&end=2010-05-08")[1]
    assert (first["symbol"], len(first["bars"]), first["bars"][1]["o"]) == ("AAPL", 2, Decimal("253.83"))
    token = first["next_page_token"]
    query = f"timeframe=1Day&limit=2&start=2010-05-05&end=2010-05-08&page_token={token}"
    second = box.api("GET", f"/v2/stocks/AAPL/bars?{query}")[1]
    assert (len(second["bars"]), second["next_page_token"]) == (1, None)
    newest = box.api("GET", "/v2/stocks/bars?symbols=AAPL,IBM&timeframe=1Day&limit=1&sort=desc")[1]
    assert newest["bars"]["AAPL"][0]["t"].startswith("2010-05-28")
    latest = box.api("GET", "/v2/stocks/bars/latest?symbols=IBM")[1]
    assert latest["bars"]["IBM"]["t"].startswith("2010-05-28")


@pytest.mark.parametrize(
    ("_case", "path", "status", "message"),
    [
        ("minutes", "/v2/stocks/AAPL/bars?timeframe=1Min", 400, "timeframe must be 1Day, not '1Min'"),
        ("no symbols", "/v2/stocks/bars?timeframe=1Day", 400, "symbols is required"),
        ("no quote yet", "/v2/stocks/AAPL/quotes/latest", 404, "no quote for AAPL"),
        ("a wrong page", "/v2/stocks/AAPL/bars?timeframe=1Day&page_token=x", 400, "page_token must be"),
        ("an unknown path", "/v2/stocks/AAPL/weather", 404, "not found"),
    ],
)
def test_market_data_that_is_not_there_says_so(_case: str, path: str, status: int, message: str, box: Box) -> None:
    answer = box.api("GET", path)
    assert answer[0] == status
    assert message in answer[1]["message"]
