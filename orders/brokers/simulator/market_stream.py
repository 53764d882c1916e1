"""The market data stream in Alpaca's stock protocol: msgpack or JSON, as the Content-Type says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgpack
from starlette.websockets import WebSocket

from .faults import Faults
from .matching import Quote
from .replay_path import Bar
from .streams import Connection, StreamFaults, receive, run_connection
from .wire import dump_exact, render_quote, render_trade

CHANNELS: Final = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds")
CHANNEL_OF: Final = {"t": "trades", "q": "quotes", "b": "bars", "d": "dailyBars"}
AUTH_SECONDS: Final = 10


class Reader(Connection):
    """One client of the market data stream and what it subscribed to."""

    def __init__(self, socket: WebSocket, *, packed: bool) -> None:
        super().__init__(socket, binary=packed)
        self.packed = packed
        self.authenticated = False
        self.wanted: dict[str, set[str]] = {channel: set() for channel in CHANNELS}

    def wants(self, message: dict[str, Any]) -> bool:
        """Return whether a message belongs to a subscription."""
        symbols = self.wanted[CHANNEL_OF[message["T"]]]
        return bool(symbols) and ("*" in symbols or message["S"] in symbols)

    def say(self, messages: list[dict[str, Any]]) -> None:
        """Send messages in one frame."""
        if self.packed:
            self.send(msgpack.packb([_packable(message) for message in messages], datetime=True))
        else:
            self.send(dump_exact(messages).encode())


def _packable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with floats, as the real stream has, and its time as a msgpack timestamp."""
    packed: dict[str, Any] = {n: float(v) if isinstance(v, Decimal) else v for n, v in message.items()}
    if "t" in packed:
        packed["t"] = datetime.fromisoformat(packed["t"])
    return packed


class MarketData:
    """Everyone who reads market data."""

    def __init__(self, *, key: str, secret: str, faults: Faults) -> None:
        self._key, self._secret = key, secret
        self._faults = faults
        self.stream_faults = StreamFaults(faults, "data")
        self._readers: set[Reader] = set()
        self._trade_id = 0

    def count_readers(self) -> int:
        """Return how many clients have a subscription."""
        return sum(any(reader.wanted.values()) for reader in self._readers)

    def cut(self) -> None:
        """Close every connection."""
        for reader in self._readers:
            reader.cut()

    def publish_quotes(self, quotes: Iterable[Quote]) -> None:
        """Send each quote and its last trade."""
        if not self._readers:
            return
        messages: list[dict[str, Any]] = []
        for quote in quotes:
            self._trade_id += 1
            messages.append({"T": "q", "S": quote.symbol, **render_quote(quote)})
            messages.append({"T": "t", "S": quote.symbol, **render_trade(quote, trade_id=self._trade_id)})
        self._publish(messages)

    def publish_bar(self, bar: Bar, *, kind: str, at: str) -> None:
        """Send a bar (kind b) or a daily bar (kind d), stamped with the time of its emission."""
        if self._readers:
            self._publish([{"T": kind, "S": bar.symbol, **render_bar(bar, at=at)}])

    def _publish(self, messages: list[dict[str, Any]]) -> None:
        if self._faults:
            kept = []
            for message in messages:
                facts = {"event": CHANNEL_OF[message["T"]], "symbol": message["S"]}
                if self.stream_faults.is_cut(**facts):
                    self.cut()
                    return
                if not self.stream_faults.is_muted(**facts):
                    kept.append(message)
            messages = kept
        for reader in self._readers:
            if chosen := [message for message in messages if reader.wants(message)]:
                reader.say(chosen)

    async def serve(self, socket: WebSocket) -> None:
        """Speak the protocol with one client until it ends."""
        if self.stream_faults.is_refusing:
            await socket.close(code=1013)
            return
        await socket.accept()
        reader = Reader(socket, packed="msgpack" in socket.headers.get("content-type", ""))
        reader.say([{"T": "success", "msg": "connected"}])
        self._readers.add(reader)
        try:
            await run_connection(reader, lambda: self._read(socket, reader))
        finally:
            self._readers.discard(reader)

    async def _read(self, socket: WebSocket, reader: Reader) -> None:
        while True:
            try:
                frame = await asyncio.wait_for(receive(socket), None if reader.authenticated else AUTH_SECONDS)
            except TimeoutError:
                reader.say([_error(404, "auth timeout")])
                await asyncio.sleep(0.1)
                return
            try:
                message = msgpack.unpackb(frame) if reader.packed else json.loads(frame)
                action = message["action"]
            except (ValueError, KeyError, TypeError, msgpack.UnpackException):
                reader.say([_error(400, "invalid syntax")])
                continue
            self._answer(reader, action, message)

    def _answer(self, reader: Reader, action: str, message: dict[str, Any]) -> None:
        if action == "auth":
            if reader.authenticated:
                reader.say([_error(403, "already authenticated")])
            elif message.get("key") == self._key and message.get("secret") == self._secret:
                reader.authenticated = True
                reader.say([{"T": "success", "msg": "authenticated"}])
            else:
                reader.say([_error(402, "auth failed")])
        elif not reader.authenticated:
            reader.say([_error(401, "not authenticated")])
        elif action in ("subscribe", "unsubscribe"):
            for channel in CHANNELS:
                symbols = {str(symbol) for symbol in message.get(channel) or ()}
                if action == "subscribe":
                    reader.wanted[channel] |= symbols
                else:
                    reader.wanted[channel] -= symbols
            reader.say([{"T": "subscription", **{name: sorted(s) for name, s in reader.wanted.items()}}])
        else:
            reader.say([_error(400, "invalid syntax")])


def _error(code: int, message: str) -> dict[str, Any]:
    return {"T": "error", "code": code, "msg": message}


def render_bar(bar: Bar, *, at: str) -> dict[str, Any]:
    """Return a bar in the field names of the market data API."""
    return {
        "t": at,
        "o": bar.open,
        "h": bar.high,
        "l": bar.low,
        "c": bar.close,
        "v": bar.volume,
        "n": 1,
        "vw": ((bar.high + bar.low + bar.close) / 3).quantize(Decimal("0.0001")),
    }
