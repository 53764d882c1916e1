"""The control endpoints refuse what makes no sense and say what would be right."""

from typing import Any

import pytest

from tests.simulator.acts import becomes, hold, place, placed
from tests.simulator.box import Box, BoxError


@pytest.mark.parametrize("headers", [{}, {"X-Control-Token": "guess"}])
def test_control_needs_its_token(headers: dict[str, str], box: Box) -> None:
    for method, path in (("GET", "/control/ledger"), ("POST", "/control/reset"), ("DELETE", "/control/faults")):
        status, _, body = box.call(method, path, None, {**box.keys, **headers})
        assert (status, body) == (401, {"error": "the X-Control-Token header must carry the control token"})


def test_health_needs_no_keys(box: Box) -> None:
    assert box.call("GET", "/healthz", None, {})[::2] == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("_case", "path", "body", "problem"),
    [
        ("no object", "/quotes", [1], "the body must be a JSON object"),
        ("no quotes", "/quotes", {}, "quotes must be a list that is not empty"),
        ("a quote in words", "/quotes", {"quotes": ["AAPL"]}, "each quote must be an object such as"),
        ("no symbol", "/quotes", {"quotes": [{"bid": 1, "ask": 2}]}, "symbol must be a text such as AAPL"),
        ("no ask", "/quotes", {"quotes": [{"symbol": "X", "bid": "1"}]}, "ask of X must be a number, not None"),
        ("crossed", "/quotes", {"quotes": [{"symbol": "X", "bid": "2", "ask": "1"}]}, "needs 0 < bid <= ask"),
        ("no clock", "/clock", {"is_open": "yes"}, "is_open must be true or false, not 'yes'"),
        ("no price", "/positions", {"symbol": "X", "qty": "5"}, "avg_entry_price must be above 0 for a position"),
        ("no quantity", "/positions", {"symbol": "X", "qty": "many"}, "qty must be a number, not 'many'"),
        ("no assets", "/assets", {"assets": []}, "assets must be a list that is not empty"),
        ("a flag in words", "/assets", {"assets": [{"symbol": "X", "tradable": "no"}]}, "tradable must be true or"),
        ("a status", "/assets", {"assets": [{"symbol": "X", "status": "gone"}]}, 'must be "active" or "inactive"'),
        ("no limit", "/rate_limit", {}, "per_minute must be a whole number or null"),
        ("a limit of none", "/rate_limit", {"per_minute": 0}, "per_minute must be at least 1, not 0; null lifts"),
        ("a mode", "/dedupe", {"mode": "sometimes"}, "mode must be one of forever, open_only, none, not 'sometimes'"),
        ("a fee below nothing", "/fees", {"per_share": "-1"}, "per_share must not be negative"),
        ("noon", "/replay/prime", {"session": "2008-09-29", "at": "noon"}, 'at must be "open" or "close", not'),
        ("a seed in words", "/faults", {"seed": "x", "faults": [{"kind": "reject"}]}, "seed must be a whole number"),
    ],
)
def test_a_control_request_that_makes_no_sense_is_refused(
    _case: str, path: str, body: Any, problem: str, box: Box
) -> None:
    before = box.control("GET", "/ledger")
    with pytest.raises(BoxError, match=problem.replace("?", r"\?")) as refused:
        box.control("POST", path, body)
    assert refused.value.status == 422
    assert set(refused.value.body) == {"error"}
    assert box.control("GET", "/ledger") == before


def test_one_wrong_quote_of_many_moves_nothing(box: Box) -> None:
    good, bad = {"symbol": "AAPL", "bid": "1", "ask": "2"}, {"symbol": "IBM", "bid": "2", "ask": "1"}
    with pytest.raises(BoxError):
        box.control("POST", "/quotes", {"quotes": [good, bad]})
    assert box.api("GET", "/v2/stocks/AAPL/quotes/latest")[0] == 404


def test_an_unknown_control_path_says_so(box: Box) -> None:
    with pytest.raises(BoxError, match="POST /control/weather: Not Found") as unknown:
        box.control("POST", "/weather", {})
    assert unknown.value.status == 404


def test_the_ledger_is_filtered_by_symbol(box: Box) -> None:
    for symbol in ("AAPL", "IBM"):
        box.quote(symbol, "100")
        becomes(box, place(box, symbol=symbol)[1]["id"], "filled")
    whole, part = box.control("GET", "/ledger"), box.control("GET", "/ledger?symbol=IBM")
    for kind in ("orders", "executions", "positions"):
        assert (len(whole[kind]), len(part[kind])) == (2, 1)
        assert part[kind][0]["symbol"] == "IBM"
    assert part["executions"][0]["order_id"] == part["orders"][0]["id"]


def test_reset_forgets_everything_but_the_symbols_of_the_bars(box: Box) -> None:
    box.quote("NEWCO", "100")
    hold(box)
    placed(box, symbol="NEWCO", client_order_id="mine")
    box.control("POST", "/clock", {"is_open": False})
    box.control("POST", "/faults", {"kind": "latency", "seconds": 5})
    box.control("POST", "/reset")
    assert box.control("GET", "/ledger") == {"orders": [], "executions": [], "positions": [], "cash": "1000000"}
    assert [asset["symbol"] for asset in box.api("GET", "/v2/assets")[1]] == ["AAPL", "GOOG", "IBM", "MSFT"]
    assert box.api("GET", "/v2/clock")[1]["is_open"] is True
    box.quote("AAPL", "100")
    assert place(box, client_order_id="mine")[0] == 200


def test_an_asset_can_be_halted_and_freed(box: Box) -> None:
    box.quote("AAPL", "100")
    box.control("POST", "/assets", {"assets": [{"symbol": "AAPL", "status": "inactive", "name": "Apple"}]})
    assert place(box)[1]["message"] == "asset AAPL is not tradable"
    assert box.api("GET", "/v2/assets?status=inactive")[1][0]["name"] == "Apple"
    box.control("POST", "/assets", {"assets": [{"symbol": "AAPL"}]})
    assert place(box)[0] == 200
