"""The Alpaca price stream: frames to ticks as a table, and the live stream of a simulator process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from positions.feeds.alpaca import AlpacaFeed, data_stream_url, read_ticks
from positions.feeds.connection import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, StreamRefused, waits
from positions.feeds.protocol import Tick
from tests.simulator.box import Box, eventually, free_port, start_box

D = Decimal
AT = datetime(2026, 3, 16, 18, 38, 1, 942282, UTC)


def frame(*messages: dict[str, Any]) -> bytes:
    return msgpack.packb(list(messages), datetime=True)


def quote(**changes: Any) -> dict[str, Any]:
    return {"T": "q", "S": "AAPL", "bp": 100.1, "ap": 100.2, "bs": 1, "as": 2, "t": AT} | changes


@pytest.mark.parametrize(
    ("_case", "message", "bid", "ask", "last"),
    [
        ("quote", quote(), D("100.1"), D("100.2"), None),
        (
            "the shortest decimal of a float",
            quote(bp=0.1, ap=0.30000000000000004),
            D("0.1"),
            D("0.30000000000000004"),
            None,
        ),
        ("whole prices come as integers", quote(bp=100, ap=101), D(100), D(101), None),
        ("no bid is zero", quote(bp=0.0), None, D("100.2"), None),
        ("no ask is zero", quote(ap=0), D("100.1"), None, None),
        ("trade", {"T": "t", "S": "AAPL", "p": 99.99, "s": 5, "t": AT}, None, None, D("99.99")),
        ("time as text", quote(t="2026-03-16T18:38:01.942282191Z"), D("100.1"), D("100.2"), None),
    ],
)
def test_a_message_becomes_a_tick(
    _case: str, message: dict[str, Any], bid: Decimal | None, ask: Decimal | None, last: Decimal | None
) -> None:
    assert read_ticks([frame(message)]) == [Tick("AAPL", bid, ask, last, AT)]


def test_all_messages_of_all_frames_keep_their_order() -> None:
    frames = [frame(quote(S="A"), quote(S="B")), frame({"T": "b", "S": "A"}), frame(quote(S="C"))]
    assert [tick.symbol for tick in read_ticks(frames)] == ["A", "B", "C"]


def test_what_cannot_be_read_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    frames = [b"\xc1", frame(quote(bp=float("nan")), {"T": "t", "S": "AAPL", "t": AT}, quote(S="GOOD"))]
    assert [tick.symbol for tick in read_ticks(frames)] == ["GOOD"]
    assert [record.message.split(" ")[0] for record in caplog.records] == [
        "price_frame_unreadable",
        "price_message_unreadable",
        "price_message_unreadable",
    ]


def test_an_error_of_the_stream_ends_the_connection() -> None:
    with pytest.raises(StreamRefused, match="406 connection limit exceeded"):
        read_ticks([frame({"T": "error", "code": 406, "msg": "connection limit exceeded"})])


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://paper-api.alpaca.markets", "wss://stream.data.alpaca.markets/v2/iex"),
        ("https://api.alpaca.markets", "wss://stream.data.alpaca.markets/v2/iex"),
        ("http://127.0.0.1:8900", "ws://127.0.0.1:8900/v2/iex"),
        ("http://127.0.0.1:8900/", "ws://127.0.0.1:8900/v2/iex"),
    ],
)
def test_the_stream_belongs_to_the_trading_address(base: str, expected: str) -> None:
    assert data_stream_url(base) == expected


def test_waits_grow_and_stay_bounded() -> None:
    drawn = [wait for wait, _ in zip(waits(), range(20), strict=False)]
    assert FIRST_WAIT_SECONDS / 2 <= drawn[0] <= FIRST_WAIT_SECONDS
    assert all(LONGEST_WAIT_SECONDS / 2 <= wait <= LONGEST_WAIT_SECONDS for wait in drawn[10:])


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    running = start_box(tmp_path_factory.mktemp("box"))
    yield running
    running.stop()


class Listener:
    """A feed on a thread of its own, and the ticks it gave."""

    def __init__(self, *, url: str, key: str, secret: str, symbols: frozenset[str]) -> None:
        self.symbols = symbols
        self.ticks: list[Tick] = []
        self.failures = 0
        self._stop = threading.Event()
        feed = AlpacaFeed(key=key, secret=secret, url=url)
        self._thread = threading.Thread(
            target=lambda: feed.run(symbols=lambda: self.symbols, on_ticks=self._take, until=self._stop.is_set),
            daemon=True,
        )
        self._thread.start()

    def _take(self, ticks: Sequence[Tick]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a handler of the test fails on purpose")
        self.ticks += ticks

    def bids(self, symbol: str) -> list[Decimal]:
        return [tick.bid for tick in list(self.ticks) if tick.symbol == symbol and tick.bid is not None]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        assert not self._thread.is_alive(), "the feed did not end when told to"


@pytest.fixture
def listen(box: Box) -> Iterator[Callable[..., Listener]]:
    box.control("POST", "/reset")
    started: list[Listener] = []

    def start(symbols: frozenset[str], *, secret: str = box.secret) -> Listener:
        listener = Listener(url=data_stream_url(box.url), key=box.key, secret=secret, symbols=symbols)
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.stop()


def heard(box: Box, listener: Listener, symbol: str, bid: str) -> bool:
    """Push a quote until the listener has it: a subscription takes effect a moment after it was asked for."""
    deadline = time.monotonic() + 10
    while D(bid) not in listener.bids(symbol):
        if time.monotonic() > deadline:
            return False
        box.quote(symbol, bid, bid)
        time.sleep(0.05)
    return True


def test_quotes_and_trades_of_wanted_symbols_arrive_exactly(box: Box, listen: Callable[..., Listener]) -> None:
    listener = listen(frozenset({"AAPL"}))
    assert heard(box, listener, "AAPL", "28.19")
    box.quote("IBM", "5", "6")
    box.quote("AAPL", "199.2501", "199.3", "199.27")
    tick = eventually(lambda: [tick for tick in listener.ticks if tick.bid == D("199.2501")])[0]
    assert (tick.ask, tick.symbol) == (D("199.3"), "AAPL")
    assert eventually(lambda: [tick for tick in listener.ticks if tick.last == D("199.27")])
    assert abs((datetime.now(UTC) - tick.source_at).total_seconds()) < 60
    assert {tick.symbol for tick in listener.ticks} == {"AAPL"}


def test_subscriptions_follow_the_wanted_symbols(box: Box, listen: Callable[..., Listener]) -> None:
    listener = listen(frozenset({"AAPL"}))
    assert heard(box, listener, "AAPL", "10")
    listener.symbols = frozenset({"IBM"})
    assert heard(box, listener, "IBM", "20")
    box.quote("AAPL", "11", "11")
    assert heard(box, listener, "IBM", "21")
    assert D(11) not in listener.bids("AAPL")


def test_a_cut_stream_comes_back_with_its_subscriptions(box: Box, listen: Callable[..., Listener]) -> None:
    listener = listen(frozenset({"AAPL"}))
    assert heard(box, listener, "AAPL", "10")
    box.control("POST", "/faults", {"kind": "cut_stream", "stream": "data"})
    assert heard(box, listener, "AAPL", "12")


def test_a_killed_server_is_found_again(box: Box, listen: Callable[..., Listener]) -> None:
    listener = listen(frozenset({"AAPL"}))
    assert heard(box, listener, "AAPL", "10")
    box.restart()
    assert heard(box, listener, "AAPL", "13")


def test_a_failing_handler_does_not_end_the_feed(box: Box, listen: Callable[..., Listener]) -> None:
    listener = listen(frozenset({"AAPL"}))
    assert heard(box, listener, "AAPL", "10")
    listener.failures = 1
    assert heard(box, listener, "AAPL", "14")
    assert listener.failures == 0


def test_wrong_credentials_are_tried_again_and_never_shown(
    listen: Callable[..., Listener], caplog: pytest.LogCaptureFixture
) -> None:
    listener = listen(frozenset({"AAPL"}), secret="WRONG-SECRET-1234")
    eventually(lambda: len([r for r in caplog.records if "stream_lost" in r.message]) > 1)
    assert listener.ticks == []
    assert "1234" not in caplog.text


def test_an_unreachable_server_does_not_keep_the_feed_from_ending() -> None:
    listener = Listener(url=f"ws://127.0.0.1:{free_port()}/v2/iex", key="k", secret="s", symbols=frozenset({"AAPL"}))
    time.sleep(0.3)
    listener.stop()
