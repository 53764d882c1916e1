"""Websocket clients for the tests: a plain one, and alpaca-py's in a thread of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
from websockets.sync.client import ClientConnection, connect

from tests.simulator.box import Box, eventually
from tests.simulator.sdk import StockDataStream, TradingStream


class Updates:
    """A plain client of /stream that is authorized and listening."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def send(self, message: Any) -> None:
        self._socket.send(json.dumps(message))

    def read(self, timeout: float = 2) -> Any:
        """Return the next message, whatever it is; it must be a binary frame."""
        frame = self._socket.recv(timeout=timeout)
        assert isinstance(frame, bytes)
        return json.loads(frame)

    def updates(self, count: int, timeout: float = 2) -> list[Any]:
        """Return the data of the next updates."""
        return [self.read(timeout)["data"] for _ in range(count)]

    def events(self, count: int) -> list[str]:
        """Return the names of the next updates."""
        return [data["event"] for data in self.updates(count)]

    def is_quiet(self, seconds: float = 0.15) -> bool:
        """Return whether nothing comes for a while."""
        try:
            self.read(seconds)
        except TimeoutError:
            return True
        return False


@contextmanager
def listening(box: Box) -> Iterator[Updates]:
    """Connect to the updates and listen."""
    with connect(f"{box.ws_url}/stream") as socket:
        updates = Updates(socket)
        updates.send({"action": "authenticate", "data": {"key_id": box.key, "secret_key": box.secret}})
        assert updates.read() == {
            "stream": "authorization",
            "data": {"action": "authenticate", "status": "authorized"},
        }
        updates.send({"action": "listen", "data": {"streams": ["trade_updates", "other"]}})
        assert updates.read() == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        yield updates


class Market:
    """A plain client of the market data stream."""

    def __init__(self, socket: ClientConnection, *, packed: bool) -> None:
        self._socket = socket
        self._packed = packed

    def send(self, message: Any) -> None:
        self._socket.send(msgpack.packb(message) if self._packed else json.dumps(message))

    def raw(self, timeout: float = 2) -> str | bytes:
        return self._socket.recv(timeout=timeout)

    def read(self, timeout: float = 2) -> list[Any]:
        """Return the messages of the next frame."""
        frame = self.raw(timeout)
        messages: list[Any] = msgpack.unpackb(frame) if self._packed else json.loads(frame)
        return messages


@contextmanager
def market(box: Box, *, feed: str = "iex", packed: bool = False) -> Iterator[Market]:
    """Connect to the market data stream, not yet authenticated."""
    headers = {"Content-Type": "application/msgpack"} if packed else {}
    with connect(f"{box.ws_url}/v2/{feed}", additional_headers=headers) as socket:
        client = Market(socket, packed=packed)
        assert client.read() == [{"T": "success", "msg": "connected"}]
        yield client


@contextmanager
def running(box: Box, stream: TradingStream | StockDataStream, *, name: str) -> Iterator[None]:
    """Run alpaca-py's stream in a thread while the block runs."""
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    eventually(lambda: box.control("GET", "/streams")[name] == 1)
    try:
        yield
    finally:
        stream.stop()
        # its reader looks at the wish to stop only between messages: end the connection
        box.control("POST", "/faults", {"kind": "cut_stream"})
        thread.join(timeout=10)
        box.control("DELETE", "/faults")
        assert not thread.is_alive()
