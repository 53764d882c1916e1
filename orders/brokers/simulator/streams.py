"""The trade_updates stream: who listens, and what leaves after each commit. Nothing is kept for later."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .faults import Fault, Faults
from .records import Order

MAX_BACKLOG = 200_000
Message = tuple[bytes, dict[str, str]]


class Connection:
    """One websocket: frames go out in order, by one task; a reader that falls too far behind is cut off."""

    def __init__(self, socket: WebSocket, *, binary: bool) -> None:
        self._socket = socket
        self._binary = binary
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.listens = False

    def send(self, frame: bytes) -> None:
        """Queue a frame."""
        if self._frames.qsize() >= MAX_BACKLOG:
            self.cut()
            return
        self._frames.put_nowait(frame)

    def cut(self) -> None:
        """Drop what is queued and close the connection."""
        while not self._frames.empty():
            self._frames.get_nowait()
        self._frames.put_nowait(None)

    async def write(self) -> None:
        """Send queued frames until the connection is cut."""
        while (frame := await self._frames.get()) is not None:
            if self._binary:
                await self._socket.send_bytes(frame)
            else:
                await self._socket.send_text(frame.decode())
        await self._socket.close(code=1011)


async def run_connection(connection: Connection, read: Callable[[], Any]) -> None:
    """Read and write a connection until either side ends."""
    tasks = [asyncio.ensure_future(connection.write()), asyncio.ensure_future(read())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            # the other side may be gone in the middle of a frame; both ways of saying so are an ordinary end
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await task


async def receive(socket: WebSocket) -> bytes:
    """Return the next frame, text or binary.

    :raises WebSocketDisconnect: the client is gone.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data = message.get("bytes")
    return bytes(data) if data is not None else message["text"].encode()


class StreamFaults:
    """What cut_stream and mute_stream do to one kind of stream."""

    def __init__(self, faults: Faults, stream: str) -> None:
        self._faults = faults
        self._stream = stream
        self._muted_until: dict[str, float] = {}
        self._refused_until = 0.0

    def _concerns(self, fault: Fault) -> bool:
        return fault.options["stream"] in (self._stream, "both")

    def is_muted(self, **facts: str | None) -> bool:
        """Return whether a message is to be lost; a mute with seconds lasts from its first strike on."""
        for rule in self._faults.standing("mute_stream"):
            if not self._concerns(rule):
                continue
            until = self._muted_until.get(rule.id)
            if until is not None and time.monotonic() > until:
                continue
            struck = self._faults.take_rule(rule, **facts)
            if struck:
                if until is None and rule.seconds is not None:
                    self._muted_until[rule.id] = time.monotonic() + rule.seconds
                return True
        return False

    def is_cut(self, **facts: str | None) -> bool:
        """Return whether the connections are to be closed instead of sending a message."""
        for rule in self._faults.standing("cut_stream"):
            if self._concerns(rule) and self._faults.take_rule(rule, **facts):
                self.refuse_for(rule.seconds or 0)
                return True
        return False

    def refuse_for(self, seconds: float) -> None:
        """Let no connection in for some seconds."""
        self._refused_until = max(self._refused_until, time.monotonic() + seconds)

    @property
    def is_refusing(self) -> bool:
        """Return whether a connection is refused now."""
        return time.monotonic() < self._refused_until


class TradeUpdates:
    """Everyone who listens to trade_updates."""

    def __init__(self, *, key: str, secret: str, faults: Faults) -> None:
        self._key, self._secret = key, secret
        self._faults = faults
        self.stream_faults = StreamFaults(faults, "trading")
        self._connections: set[Connection] = set()
        self._held_back: list[Message] = []

    def has_listeners(self) -> bool:
        """Return whether an update would reach anyone."""
        return any(connection.listens for connection in self._connections)

    def count_listeners(self) -> int:
        """Return how many clients listen."""
        return sum(connection.listens for connection in self._connections)

    def cut(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.cut()

    def publish(self, messages: list[Message]) -> None:
        """Send updates to all listeners, subject to the stream's faults."""
        for message in messages:
            if self._faults:
                self._publish_faulty(message)
            else:
                self._send(message[0])

    def _publish_faulty(self, message: Message) -> None:
        frame, facts = message
        if self.stream_faults.is_cut(**facts):
            self.cut()
            return
        if self.stream_faults.is_muted(**facts):
            return
        late = self._faults.take("reorder_updates", **facts)
        if late is not None:
            self._held_back.append(message)
            asyncio.get_running_loop().call_later(late.seconds if late.seconds is not None else 0.05, self._release)
            return
        twice = self._faults.take("duplicate_updates", **facts)
        for _ in range(int(twice.options.get("times", 2)) if twice else 1):
            self._send(frame)
        self._release()

    def _release(self) -> None:
        held, self._held_back = self._held_back, []
        for frame, _ in reversed(held):
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        for connection in self._connections:
            if connection.listens:
                connection.send(frame)

    async def serve(self, socket: WebSocket) -> None:
        """Speak the protocol with one client until it ends."""
        if self.stream_faults.is_refusing:
            await socket.close(code=1013)
            return
        await socket.accept()
        connection = Connection(socket, binary=True)
        self._connections.add(connection)
        try:
            await run_connection(connection, lambda: self._read(socket, connection))
        finally:
            self._connections.discard(connection)

    async def _read(self, socket: WebSocket, connection: Connection) -> None:
        authorized = False
        while True:
            try:
                message = json.loads(await receive(socket))
                action, data = message["action"], message.get("data") or {}
            except (ValueError, KeyError, TypeError, AttributeError):
                connection.send(_frame("error", {"error": "the message must be JSON with an action"}))
                continue
            if action in ("authenticate", "auth"):
                key = data.get("key_id", message.get("key"))
                secret = data.get("secret_key", message.get("secret"))
                authorized = key == self._key and secret == self._secret
                status = "authorized" if authorized else "unauthorized"
                connection.send(_frame("authorization", {"action": "authenticate", "status": status}))
            elif action == "listen" and authorized:
                wanted = [name for name in data.get("streams", []) if name == "trade_updates"]
                connection.listens = bool(wanted)
                connection.send(_frame("listening", {"streams": wanted}))
            elif action == "listen":
                connection.send(_frame("authorization", {"action": "listen", "status": "unauthorized"}))
            else:
                connection.send(_frame("error", {"error": f"unknown action {action!r}"}))


def _frame(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}).encode()


def update_facts(event: str, order: Order) -> dict[str, str]:
    """Return what a fault rule can match of a trade update."""
    return {
        "event": event,
        "symbol": order.symbol,
        "side": order.side,
        "type": order.type,
        "client_order_id": order.client_order_id,
    }
