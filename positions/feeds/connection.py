"""A websocket that is kept open: connect, follow, and after any loss connect again after a growing wait.

It ends only when told to. A silent peer is found by pings; a peer that answers pings but says nothing is not,
so whoever depends on a stream must also ask from time to time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 20.0
PING_SECONDS: Final = 5.0
#: A connection that lasted this long was a good one: the next loss starts with the first wait again.
_GOOD_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class StreamRefused(Exception):
    """The peer does not accept us (credentials, limits) or does not speak as we expect."""


def waits() -> Iterator[float]:
    """Yield the seconds to wait before each new try: doubling, each shortened by up to half at random."""
    longest = FIRST_WAIT_SECONDS
    while True:
        yield longest * random.uniform(0.5, 1.0)
        longest = min(longest * 2, LONGEST_WAIT_SECONDS)


def stay_connected(
    *,
    url: str,
    follow: Callable[[ClientConnection], None],
    until: Callable[[], bool],
    headers: dict[str, str] | None = None,
) -> None:
    """Run `follow` on a fresh connection again and again until `until()` is true.

    `follow` signs in, subscribes and reads; it returns when `until()` is true and raises when the connection
    is of no more use.
    """
    pauses = waits()
    while not until():
        began = time.monotonic()
        try:
            with connect(
                url,
                additional_headers=headers,
                compression=None,
                open_timeout=5,
                close_timeout=1,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                max_size=2**24,
                max_queue=4096,
                proxy=None if urlsplit(url).hostname in _LOOPBACK else True,
            ) as socket:
                follow(socket)
        except (WebSocketException, OSError, EOFError, StreamRefused) as error:
            logger.warning("stream_lost url=%s error=%s %s", url, type(error).__name__, error)
        except Exception:  # a stream outlives whatever it was sent
            logger.exception("stream_failed url=%s", url)
        if time.monotonic() - began >= _GOOD_SECONDS:
            pauses = waits()
        pause_until(time.monotonic() + next(pauses), until=until)


def pause_until(moment: float, *, until: Callable[[], bool]) -> None:
    """Sleep up to a moment of the monotonic clock, but no longer than until `until()` is true."""
    while (left := moment - time.monotonic()) > 0 and not until():
        time.sleep(min(left, _POLL_SECONDS))


def read_together(socket: ClientConnection, *, seconds: float, at_most: int = 512) -> list[str | bytes]:
    """Return what has arrived, waiting up to `seconds` for the first message; empty when nothing came.

    :raises ConnectionClosed: the connection ended and everything that came before was returned already.
    """
    try:
        messages = [socket.recv(timeout=seconds)]
    except TimeoutError:
        return []
    try:
        while len(messages) < at_most:
            messages.append(socket.recv(timeout=0))
    except (TimeoutError, ConnectionClosed):  # a lost connection says so again at the next call
        pass
    return messages
