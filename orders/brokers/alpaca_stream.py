"""Alpaca's trade_updates stream, driven on the `websockets` library directly.

alpaca-py's own stream is not used: importing it brings pandas (a second and 60 MB for every worker), it
needs an event loop of its own, tells nobody that it has reconnected (when a snapshot is due), and hands out
one message at a time. The protocol is two messages long: authenticate, listen.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from websockets.sync.client import ClientConnection

from orders.brokers.alpaca_payloads import CORRECTION_EVENTS, update_report
from orders.brokers.exact import Unreadable
from orders.brokers.protocol import OrderReport
from positions.feeds.connection import StreamRefused, read_together, stay_connected

logger = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.5
#: A peer that answers pings but says nothing for so long is left for a new connection, which asks for a snapshot:
#: whatever a stuck stream kept back is known then.
QUIET_SECONDS: Final = 600.0


def watch(
    *,
    url: str,
    key: str,
    secret: str,
    on_reports: Callable[[Sequence[OrderReport]], None],
    on_connected: Callable[[], None],
    until: Callable[[], bool],
    quiet_seconds: float = QUIET_SECONDS,
) -> None:
    """Follow the order updates of the account until `until()` is true."""

    def follow(socket: ClientConnection) -> None:
        _subscribe(socket, key=key, secret=secret)
        logger.info("order_stream_connected url=%s", url)
        _guarded(on_connected, what="on_connected")
        heard_at = time.monotonic()
        while not until():
            messages = read_together(socket, seconds=_POLL_SECONDS)
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > quiet_seconds:
                raise StreamRefused(f"nothing was said for {quiet_seconds:g} s")
            if reports := read_reports(messages):
                _deliver(reports, on_reports=on_reports)

    stay_connected(url=url, follow=follow, until=until)


def _subscribe(socket: ClientConnection, *, key: str, secret: str) -> None:
    socket.send(json.dumps({"action": "authenticate", "data": {"key_id": key, "secret_key": secret}}))
    said = _next_of(socket, stream="authorization")
    if said.get("status") != "authorized":
        raise StreamRefused(f"not authorized: {said.get('status')}")
    socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
    if "trade_updates" not in (_next_of(socket, stream="listening").get("streams") or ()):
        raise StreamRefused("trade_updates was not subscribed")


def _next_of(socket: ClientConnection, *, stream: str) -> dict[str, Any]:
    """Return the data of the next message of one stream; nothing else is due before it."""
    message = json.loads(socket.recv(timeout=_ANSWER_SECONDS))
    if message.get("stream") != stream:
        raise StreamRefused(f"expected {stream}, got {message.get('stream')!r}")
    data: dict[str, Any] = message.get("data") or {}
    return data


def read_reports(messages: list[str | bytes]) -> list[OrderReport]:
    """Return the reports in trade_updates messages, in their order; one that cannot be read is logged."""
    reports = []
    for raw in messages:
        try:
            message = json.loads(raw, parse_float=Decimal)
            if message.get("stream") != "trade_updates":
                continue
            report = update_report(message["data"])
            if message["data"]["event"] in CORRECTION_EVENTS:
                logger.error(
                    "execution_corrected event=%s client_order_id=%s broker_order_id=%s",
                    message["data"]["event"],
                    report.client_order_id,
                    report.broker_order_id,
                )
        except (Unreadable, ValueError, KeyError, TypeError, AttributeError):
            logger.exception("order_update_unreadable")
            continue
        reports.append(report)
    return reports


def _deliver(reports: list[OrderReport], *, on_reports: Callable[[Sequence[OrderReport]], None]) -> None:
    """Hand over a batch; where it fails, each report alone: a bad one must not take its neighbours along."""
    try:
        on_reports(reports)
    except Exception:
        logger.exception("order_updates_failed count=%d", len(reports))
        if len(reports) > 1:
            for report in reports:
                _guarded(partial(on_reports, [report]), what=report.client_order_id)


def _guarded(call: Callable[[], None], *, what: str) -> None:
    try:
        call()
    except Exception:
        logger.exception("order_updates_failed what=%s", what)
