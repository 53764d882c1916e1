"""Owns the tape: every price the broker emitted, recorded from its market data stream beside the product's own feed."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SECONDS = 10


@dataclass(frozen=True, slots=True)
class Print:
    """One quote as it was emitted, on the broker's clock."""

    bid: Decimal
    ask: Decimal
    at: datetime


class Tape:
    """A second reader of the market data stream, which shares nothing with the product but the address."""

    def __init__(self, *, url: str, key: str, secret: str) -> None:
        self._url = f"ws{url.removeprefix('http')}/v2/iex"
        self._login = {"action": "auth", "key": key, "secret": secret}
        self._prints: dict[str, list[Print]] = defaultdict(list)
        self._stopping = threading.Event()
        self.broken = False  #: the stream ended while it was wanted, so prints may be missing
        self._socket: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._record, name="tape", daemon=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._socket = opening.enter_context(connect(self._url, open_timeout=SECONDS, max_queue=None))
            for message in (self._login, {"action": "subscribe", "quotes": ["*"]}):
                self._socket.send(json.dumps(message))
            while '"subscription"' not in str(self._socket.recv(timeout=SECONDS)):
                pass
            self._open = opening.pop_all()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._open.close()
        self._thread.join(timeout=SECONDS)

    def of(self, symbol: str) -> list[Print]:
        """Return the prints of a symbol so far, oldest first."""
        return list(self._prints[symbol])

    def last(self, symbol: str) -> Print | None:
        """Return the newest print of a symbol."""
        prints = self._prints[symbol]
        return prints[-1] if prints else None

    def count(self, symbol: str) -> int:
        """Return how many prints of a symbol there are."""
        return len(self._prints[symbol])

    def _record(self) -> None:
        assert self._socket is not None  # noqa: S101 - the thread starts once it is open
        try:
            for frame in self._socket:
                for message in json.loads(frame, parse_float=Decimal):
                    self._keep(message)
        except ConnectionClosed:
            pass
        self.broken = not self._stopping.is_set()

    def _keep(self, message: dict[str, Any]) -> None:
        if message.get("T") == "q":
            at = datetime.fromisoformat(message["t"])
            self._prints[message["S"]].append(Print(Decimal(message["bp"]), Decimal(message["ap"]), at))
