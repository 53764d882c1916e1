"""Every fault, and that its rules match, count, draw and go away."""

import http.client
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from orders.brokers.simulator.faults import Faults
from tests.simulator.acts import becomes, hold, place, placed, status_of
from tests.simulator.box import Box, BoxError
from tests.simulator.listeners import listening, market


def add(box: Box, kind: str, **options: Any) -> str:
    """Install one rule and return its id."""
    return str(box.control("POST", "/faults", {"kind": kind, **options})["faults"][0]["id"])


def hits(box: Box) -> list[int]:
    return [fault["hits"] for fault in box.control("GET", "/faults")["faults"]]


def orders(box: Box) -> list[Any]:
    found: list[Any] = box.control("GET", "/ledger")["orders"]
    return found


def test_drop_after_accept_books_the_order_and_hangs_up(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "drop_after_accept", match={"method": "POST", "path": "/v2/orders"}, count=1)
    with pytest.raises(http.client.RemoteDisconnected):
        place(box, client_order_id="lost")
    (order,) = orders(box)
    assert order["client_order_id"] == "lost"
    becomes(box, order["id"], "filled")
    assert place(box, client_order_id="lost")[0] == 422
    assert hits(box) == [1]


def test_drop_before_accept_books_nothing(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "drop_before_accept", match={"method": "POST"}, count=1)
    with pytest.raises(http.client.RemoteDisconnected):
        place(box, client_order_id="lost")
    assert orders(box) == []
    assert place(box, client_order_id="lost")[0] == 200


def test_a_dropped_cancel_still_cancels(box: Box) -> None:
    box.quote("AAPL", "100")
    order = placed(box, type="limit", limit_price="50", client_order_id="mine")
    add(box, "drop_after_accept", match={"method": "DELETE", "client_order_id": "mine"})
    with pytest.raises(http.client.RemoteDisconnected):
        box.api("DELETE", f"/v2/orders/{order['id']}")
    becomes(box, order["id"], "canceled")


def test_latency_delays_what_matches(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "latency", seconds=0.3, match={"path": "/v2/orders", "symbol": "AAPL"})
    started = time.monotonic()
    assert place(box)[0] == 200
    assert 0.3 <= time.monotonic() - started < 1
    started = time.monotonic()
    assert box.api("GET", "/v2/account")[0] == 200
    assert time.monotonic() - started < 0.25


@pytest.mark.parametrize(
    ("_case", "options", "booked"),
    [
        ("before", {"status": 503, "message": "unavailable"}, 0),
        ("after", {"status": 504, "message": "timeout", "after_accept": True}, 1),
        ("too many", {"status": 429, "code": 42910000, "retry_after": 2, "message": "slow down"}, 0),
        ("forbidden", {"status": 403, "code": 40310000, "message": "no"}, 0),
    ],
)
def test_a_status_is_answered_before_or_after_the_order_is_booked(
    _case: str, options: dict[str, Any], booked: int, box: Box
) -> None:
    box.quote("AAPL", "100")
    add(box, "status", match={"method": "POST"}, count=1, **options)
    body = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    status, headers, answer = box.call("POST", "/v2/orders", body, box.keys)
    assert (status, answer["message"]) == (options["status"], options["message"])
    assert answer["code"] == options.get("code", options["status"] * 100_000 + 10_000)
    assert headers.get("retry-after") == ("2" if "retry_after" in options else None)
    assert "x-ratelimit-reset" in headers
    assert len(orders(box)) == booked


def test_a_partial_fill_waits_for_the_next_quote_or_its_seconds(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "partial_fill", fraction="0.3", seconds=0.2, count=1)
    order = place(box)[1]
    part = becomes(box, order["id"], "partially_filled")
    assert part["filled_qty"] == "3"
    assert becomes(box, order["id"], "filled")["filled_qty"] == "10"


def test_a_partial_fill_of_fractions_and_of_one_share(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "partial_fill", fraction="0.5")
    assert becomes(box, place(box, qty="1")[1]["id"], "filled")["filled_qty"] == "1"
    assert becomes(box, place(box, qty="0.3")[1]["id"], "partially_filled")["filled_qty"] == "0.15"


@pytest.mark.parametrize(("tif", "filled"), [("ioc", "5"), ("fok", "0")])
def test_a_partial_fill_ends_an_immediate_order(tif: str, filled: str, box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "partial_fill", fraction="0.5")
    order = place(box, time_in_force=tif)[1]
    assert becomes(box, order["id"], "canceled")["filled_qty"] == filled


def test_reject_takes_back_an_acknowledged_order_and_its_legs(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "reject", match={"symbol": "AAPL", "side": "buy"}, count=1)
    with listening(box) as updates:
        status, order = place(
            box,
            order_class="bracket",
            take_profit={"limit_price": "110"},
            stop_loss={"stop_price": "90"},
        )
        assert (status, order["status"]) == (200, "pending_new")
        assert updates.events(3) == ["rejected", "canceled", "canceled"]
    rejected = becomes(box, order["id"], "rejected")
    assert rejected["failed_at"] is not None
    assert {status_of(box, leg["id"]) for leg in order["legs"]} == {"canceled"}
    assert box.api("GET", "/v2/positions")[1] == []


def test_duplicate_updates_tell_the_same_thing_again(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "duplicate_updates", match={"event": "fill"}, times=3)
    with listening(box) as updates:
        place(box)
        new, *fills = updates.updates(4)
        assert (new["event"], fills[0]["event"]) == ("new", "fill")
        assert fills[0] == fills[1] == fills[2]
        assert updates.is_quiet()


def test_reorder_updates_swap_neighbours(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "reorder_updates", match={"event": "new"}, count=1)
    with listening(box) as updates:
        place(box)
        assert updates.events(2) == ["fill", "new"]
        assert updates.is_quiet()


def test_a_reordered_update_with_no_neighbour_comes_late(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "reorder_updates", seconds=0.2)
    with listening(box) as updates:
        place(box, type="limit", limit_price="50")
        assert updates.is_quiet(0.1)
        assert updates.events(1) == ["new"]


def test_cut_stream_loses_the_update_it_matches(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "cut_stream", match={"event": "fill"}, count=1, stream="trading")
    with listening(box) as updates:
        order = place(box)[1]
        with pytest.raises(ConnectionClosed):
            updates.updates(2)
    becomes(box, order["id"], "filled")
    with listening(box) as updates:
        assert updates.is_quiet()
        place(box, qty="1")
        assert updates.events(2) == ["new", "fill"]


def test_mute_stream_loses_updates_while_the_connection_lives(box: Box) -> None:
    box.quote("AAPL", "100")
    rule = add(box, "mute_stream", stream="trading", match={"event": "fill"})
    with listening(box) as updates:
        place(box)
        assert updates.events(1) == ["new"]
        assert updates.is_quiet()
        box.control("DELETE", f"/faults/{rule}")
        place(box)
        assert updates.events(2) == ["new", "fill"]


def test_mute_stream_ends_after_its_seconds(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "mute_stream", stream="trading", seconds=0.2)
    with listening(box) as updates:
        place(box)
        assert updates.is_quiet(0.25)
        place(box)
        assert updates.events(2) == ["new", "fill"]


@pytest.mark.parametrize("kind", ["mute_stream", "cut_stream"])
def test_market_data_is_muted_or_cut_by_symbol(kind: str, box: Box) -> None:
    with market(box) as client:
        client.send({"action": "auth", "key": box.key, "secret": box.secret})
        client.read()
        client.send({"action": "subscribe", "quotes": ["*"]})
        client.read()
        add(box, kind, stream="data", match={"symbol": "AAPL"})
        box.quote("IBM", "50")
        assert [message["S"] for message in client.read()] == ["IBM"]
        box.quote("AAPL", "100")
        if kind == "cut_stream":
            with pytest.raises(ConnectionClosed):
                client.read()
        else:
            with pytest.raises(TimeoutError):
                client.read(0.15)


def test_rules_match_by_pattern_and_count_down(box: Box) -> None:
    box.quote("AAPL", "100")
    add(box, "status", status=500, match={"client_order_id": "x-*", "side": "buy"}, count=2)
    assert place(box, client_order_id="y-1")[0] == 200
    assert place(box, client_order_id="x-1")[0] == 500
    assert place(box, client_order_id="x-1")[0] == 500
    assert place(box, client_order_id="x-1")[0] == 200
    assert hits(box) == [2]


def test_a_fault_matches_the_order_that_a_path_names(box: Box) -> None:
    hold(box)
    box.quote("AAPL", "100")
    order = placed(box, side="sell", type="stop", stop_price="95", client_order_id="mine")
    add(box, "status", status=500, match={"method": "DELETE", "client_order_id": "mine"}, count=1)
    assert box.api("DELETE", f"/v2/orders/{order['id']}")[0] == 500
    assert status_of(box, order["id"]) == "new"
    add(box, "status", status=500, match={"path": "/v2/positions/*", "symbol": "AAPL"}, count=1)
    assert box.api("DELETE", "/v2/positions/AAPL")[0] == 500


def test_rules_are_listed_and_removed(box: Box) -> None:
    first = add(box, "latency", seconds=1)
    box.control("POST", "/faults", {"seed": 7, "faults": [{"kind": "reject", "probability": 0.5}]})
    listed = box.control("GET", "/faults")
    assert (listed["seed"], [fault["kind"] for fault in listed["faults"]]) == (7, ["latency", "reject"])
    box.control("DELETE", f"/faults/{first}")
    with pytest.raises(BoxError, match="no such fault"):
        box.control("DELETE", f"/faults/{first}")
    assert box.control("DELETE", "/faults")["faults"] == []


def test_a_seed_repeats_the_draws() -> None:
    def draw(seed: int) -> list[bool]:
        faults = Faults(seed=seed)
        faults.install([{"kind": "reject", "probability": 0.5}])
        return [faults.take("reject") is not None for _ in range(200)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert 60 < sum(draw(3)) < 140


@pytest.mark.parametrize(
    ("_case", "spec", "problem"),
    [
        ("no object", "latency", "each fault must be an object"),
        ("an unknown kind", {"kind": "gremlin"}, "kind must be one of cut_stream"),
        ("an unknown option", {"kind": "reject", "second": 1}, "reject does not know second; it knows match"),
        ("an unknown fact", {"kind": "reject", "match": {"colour": "red"}}, "match must be an object with some of"),
        ("a count of none", {"kind": "reject", "count": 0}, "count must be a whole number of at least 1"),
        ("a wrong probability", {"kind": "reject", "probability": 2}, "probability must be between 0 and 1, not 2"),
        ("a latency of no length", {"kind": "latency"}, "latency needs seconds"),
        ("a latency in words", {"kind": "latency", "seconds": "long"}, "seconds must be a number, not 'long'"),
        ("a status without", {"kind": "status"}, "status needs the HTTP status"),
        ("a status that is none", {"kind": "status", "status": 200}, "status must be between 400 and 599"),
        ("a fraction of all", {"kind": "partial_fill", "fraction": 1}, "fraction must be above 0 and below 1"),
        ("a fraction in words", {"kind": "partial_fill", "fraction": "half"}, "fraction must be a number"),
        ("an unknown stream", {"kind": "cut_stream", "stream": "both of them"}, "stream must be one of both"),
        ("once is no duplicate", {"kind": "duplicate_updates", "times": 1}, "times must be between 2 and 100"),
        ("an id in words", {"kind": "status", "status": 500, "code": "x"}, "code must be a number"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(_case: str, spec: Any, problem: str, box: Box) -> None:
    with pytest.raises(BoxError, match=problem):
        box.control("POST", "/faults", {"faults": [{"kind": "reject"}, spec]})
    assert box.control("GET", "/faults")["faults"] == []
