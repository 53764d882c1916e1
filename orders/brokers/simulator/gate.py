"""The outermost layer: who may enter, how often, and what a fault does to a request or its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .book import Book
from .exchange import order_facts
from .faults import Fault, Faults
from .wire import dump

UNLIMITED = 1_000_000
WINDOW_SECONDS = 60


class RateLimit:
    """Requests per clock minute; without a limit it only counts for the headers."""

    def __init__(self) -> None:
        self.per_minute: int | None = None
        self.turned_away = 0
        self._window = 0
        self._used = 0

    def set_limit(self, per_minute: int | None) -> None:
        """Allow so many requests a minute, counted from now; None lifts the limit."""
        self.per_minute, self._used, self.turned_away = per_minute, 0, 0

    def spend(self) -> tuple[bool, int, int, int]:
        """Count a request; return whether it may pass, the limit, what is left, and when it starts anew."""
        window = int(time.time()) // WINDOW_SECONDS
        if window != self._window:
            self._window, self._used = window, 0
        limit = self.per_minute or UNLIMITED
        allowed = self._used < limit
        self._used += allowed
        self.turned_away += not allowed
        return allowed, limit, limit - self._used, (window + 1) * WINDOW_SECONDS


class Gate:
    """Authenticates, limits and disturbs the requests below /v2; lets everything else through."""

    def __init__(self, app: ASGIApp, *, key: str, secret: str, book: Book, faults: Faults, limit: RateLimit) -> None:
        self._app = app
        self._key, self._secret = key.encode(), secret.encode()
        self._book = book
        self._faults = faults
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v2"):
            await self._app(scope, receive, send)
            return
        allowed, limit, left, resets_at = self._limit.spend()
        rates = [
            (b"x-ratelimit-limit", str(limit).encode()),
            (b"x-ratelimit-remaining", str(left).encode()),
            (b"x-ratelimit-reset", str(resets_at).encode()),
        ]

        async def send_rated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *rates]
            await send(message)

        refusal = self._refuse(scope["headers"])
        if refusal is not None:
            await answer(send_rated, *refusal)
        elif not allowed:
            await answer(send_rated, 429, {"code": 42910000, "message": "rate limit exceeded"})
        elif self._faults:
            await self._serve_faulty(scope, receive, send_rated, send)
        else:
            await self._app(scope, receive, send_rated)

    def _refuse(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, dict[str, Any]] | None:
        key = secret = None
        for name, value in headers:
            if name == b"apca-api-key-id":
                key = value
            elif name == b"apca-api-secret-key":
                secret = value
        if key is None or secret is None:
            return 401, {"code": 40110000, "message": "request is not authorized"}
        if key != self._key or secret != self._secret:
            return 403, {"message": "forbidden."}
        return None

    async def _serve_faulty(self, scope: Scope, receive: Receive, send: Send, raw_send: Send) -> None:
        body = await _read_body(receive)
        facts = self._facts(scope, body)
        delay = self._faults.take("latency", **facts)
        if delay is not None:
            await asyncio.sleep(delay.seconds or 0)
        if self._faults.take("drop_before_accept", **facts):
            await hang_up(receive, raw_send)
            return
        status = self._faults.take("status", **facts)
        if status is not None and not status.options.get("after_accept"):
            await _answer_status(send, status)
            return
        drop = self._faults.take("drop_after_accept", **facts)
        if drop is None and status is None:
            await self._app(scope, _replay_body(body, receive), send)
            return
        await self._app(scope, _replay_body(body, receive), _swallow)
        if drop is not None:
            await hang_up(receive, raw_send)
        elif status is not None:
            await _answer_status(send, status)

    def _facts(self, scope: Scope, body: bytes) -> dict[str, str]:
        """Return what a rule can match: of the body, or of the order that the path names."""
        facts = {"method": scope["method"], "path": scope["path"]}
        parts = scope["path"].split("/")
        order = self._book.find(parts[3]) if len(parts) == 4 and parts[2] == "orders" else None
        if order is not None:
            return {**facts, **order_facts(order)}
        if scope["path"].startswith("/v2/positions/"):
            return {**facts, "symbol": self._book.symbol_of(parts[3])}
        try:
            fields = json.loads(body) if body else {}
        except ValueError:
            return facts
        if isinstance(fields, dict):
            names = ("symbol", "side", "type", "client_order_id")
            facts |= {name: str(fields[name]) for name in names if fields.get(name)}
        return facts


async def _read_body(receive: Receive) -> bytes:
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives a body already read, then what really comes."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _swallow(_message: Message) -> None:
    """Serve without answering."""


async def _answer_status(send: Send, fault: Fault) -> None:
    status = int(fault.options["status"])
    body: dict[str, Any] = {"message": fault.options.get("message", "simulated fault")}
    body["code"] = int(fault.options.get("code", status * 100_000 + 10_000))
    headers = []
    if "retry_after" in fault.options:
        headers.append((b"retry-after", str(fault.options["retry_after"]).encode()))
    await answer(send, status, body, headers)


async def answer(
    send: Send, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send a JSON answer."""
    raw = dump(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(raw)).encode()),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": raw})


async def hang_up(receive: Receive, send: Send) -> None:
    """Close the connection without an answer; send must be the server's own."""
    transport_of: Callable[[], Any] = lambda: send.__self__.transport  # type: ignore[attr-defined]  # noqa: E731
    transport_of().close()
    while (await receive())["type"] != "http.disconnect":
        pass
