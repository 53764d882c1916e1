"""Quotes and trades of stocks from Alpaca's market data stream, as ticks.

Frames are msgpack, unpacked as they come: no models in between, so that a burst costs microseconds a message.
Prices arrive as floats; a tick holds the shortest decimal of the same float, the price that was meant.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import msgpack
from websockets.sync.client import ClientConnection

from positions.feeds.connection import StreamRefused, read_together, stay_connected
from positions.feeds.protocol import Tick

logger = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5
_SYMBOLS_EACH_SECONDS: Final = 1.0
_SYMBOLS_A_MESSAGE: Final = 400
_OWN_DOMAIN: Final = "alpaca.markets"


def data_stream_url(base_url: str, *, source: str = "iex") -> str:
    """Return the address of the stock stream that belongs to a trading address; a simulator serves both.

    `source` is Alpaca's name of the market data: iex (free), sip (all exchanges) or test.
    """
    host = urlsplit(base_url).hostname or ""
    if host == _OWN_DOMAIN or host.endswith(f".{_OWN_DOMAIN}"):
        return f"wss://stream.data.alpaca.markets/v2/{source}"
    return f"ws{base_url.rstrip('/').removeprefix('http')}/v2/{source}"


class AlpacaFeed:
    """One market data connection; Alpaca allows a single one for each account."""

    def __init__(self, *, key: str, secret: str, url: str) -> None:
        self._key, self._secret, self._url = key, secret, url

    def __repr__(self) -> str:
        return f"AlpacaFeed({self._url!r})"

    def run(
        self,
        *,
        symbols: Callable[[], frozenset[str]],
        on_ticks: Callable[[Sequence[Tick]], None],
        until: Callable[[], bool],
    ) -> None:
        """Deliver ticks of the wanted symbols, reconnecting by itself, until `until()` is true."""

        def follow(socket: ClientConnection) -> None:
            self._sign_in(socket)
            logger.info("price_stream_connected url=%s", self._url)
            subscribed: frozenset[str] = frozenset()
            next_look = 0.0
            while not until():
                if time.monotonic() >= next_look:
                    subscribed = _follow_symbols(socket, subscribed=subscribed, wanted=symbols())
                    next_look = time.monotonic() + _SYMBOLS_EACH_SECONDS
                ticks = read_ticks(read_together(socket, seconds=_POLL_SECONDS))
                if ticks:
                    _deliver(ticks, on_ticks=on_ticks)

        stay_connected(url=self._url, follow=follow, until=until, headers={"Content-Type": "application/msgpack"})

    def _sign_in(self, socket: ClientConnection) -> None:
        _expect(socket, "connected")
        _send(socket, {"action": "auth", "key": self._key, "secret": self._secret})
        _expect(socket, "authenticated")


def read_ticks(frames: Iterable[str | bytes]) -> list[Tick]:
    """Return the ticks in msgpack frames, in their order.

    A frame that cannot be read is logged and left out.

    :raises StreamRefused: the stream says that it does not serve us any more.
    """
    ticks = []
    for frame in frames:
        try:
            messages = msgpack.unpackb(frame, timestamp=3)
        except (ValueError, TypeError, msgpack.UnpackException):
            logger.exception("price_frame_unreadable")
            continue
        for message in messages:
            kind = message.get("T")
            if kind in ("q", "t"):
                try:
                    ticks.append(_tick(message))
                except (KeyError, TypeError, ValueError, ArithmeticError):
                    logger.exception("price_message_unreadable kind=%s", kind)
            elif kind == "error":
                raise StreamRefused(f"{message.get('code')} {message.get('msg')}")
    return ticks


def _tick(message: dict[str, Any]) -> Tick:
    at = message["t"]
    if not isinstance(at, datetime):
        at = datetime.fromisoformat(at).astimezone(UTC)
    if message["T"] == "q":
        return Tick(message["S"], _price(message.get("bp")), _price(message.get("ap")), None, at)
    return Tick(message["S"], None, None, _price(message["p"]), at)


def _price(number: object) -> Decimal | None:
    """Return a price as the decimal it stands for; zero is Alpaca's word for a side without quotes."""
    if number is None:
        return None
    price = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)  # type: ignore[arg-type]
    if not price.is_finite():
        raise ValueError(f"{number!r} is not a price")
    return price or None


def _follow_symbols(socket: ClientConnection, *, subscribed: frozenset[str], wanted: frozenset[str]) -> frozenset[str]:
    for action, changed in (("subscribe", wanted - subscribed), ("unsubscribe", subscribed - wanted)):
        names = sorted(changed)
        for first in range(0, len(names), _SYMBOLS_A_MESSAGE):
            some = names[first : first + _SYMBOLS_A_MESSAGE]
            _send(socket, {"action": action, "quotes": some, "trades": some})
    return wanted


def _deliver(ticks: list[Tick], *, on_ticks: Callable[[Sequence[Tick]], None]) -> None:
    try:
        on_ticks(ticks)
    except Exception:
        logger.exception("ticks_failed count=%d", len(ticks))


def _send(socket: ClientConnection, message: dict[str, object]) -> None:
    socket.send(msgpack.packb(message))


def _expect(socket: ClientConnection, said: str) -> None:
    """Read the next frame, which must be the given confirmation."""
    messages = msgpack.unpackb(socket.recv(timeout=_ANSWER_SECONDS))
    first = messages[0] if messages else {}
    if first.get("T") != "success" or first.get("msg") != said:
        raise StreamRefused(f"expected {said}, got {first.get('code', '')} {first.get('msg')!r}")
