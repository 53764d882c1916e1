"""Order updates of a venue without a stream: its open orders are asked for from time to time and compared."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from orders.brokers.protocol import Broker, OrderRef, OrderReport
from orders.errors import BrokerError
from positions.feeds.connection import pause_until

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 2.0


def watch_by_asking(
    broker: Broker,
    *,
    on_reports: Callable[[Sequence[OrderReport]], None],
    on_connected: Callable[[], None],
    until: Callable[[], bool],
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Report each open order that is new or has changed, and what became of each that is gone, until `until()`.

    An order that comes and goes between two looks is not seen: whoever placed it asks for it. `on_connected` runs
    at the first answer and at the first after a failure.
    """
    known: dict[str, OrderReport] = {}
    connected = False
    while not until():
        try:
            found = {report.broker_order_id: report for report in broker.open_orders()}
            gone = [report for name in known.keys() - found.keys() if (report := _ended(broker, known[name]))]
        except BrokerError as error:
            logger.warning("order_polling_failed error=%s %s", type(error).__name__, error)
            connected = False
        else:
            if not connected:
                connected = True
                _guarded(on_connected)
            changed = [report for name, report in found.items() if known.get(name) != report]
            known = found
            if reports := [*gone, *changed]:
                _guarded(lambda reports=reports: on_reports(reports))  # type: ignore[misc]
        pause_until(time.monotonic() + poll_seconds, until=until)


def _ended(broker: Broker, last: OrderReport) -> OrderReport | None:
    ref = OrderRef(client_order_id=last.client_order_id, broker_order_id=last.broker_order_id, symbol=last.symbol)
    return broker.find_order(ref)


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        logger.exception("order_updates_failed")
