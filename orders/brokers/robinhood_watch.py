"""Order updates from a venue that has no stream: asking again and again for what changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from orders.brokers.protocol import OrderReport
from orders.errors import NotSent, OutcomeUnknown

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
#: Their clock and ours differ a little, and what changed may show late.
_SLACK: Final = timedelta(seconds=5)


def poll_changes(
    *,
    changed_since: Callable[[datetime], list[OrderReport]],
    clock: Callable[[], datetime],
    on_reports: Callable[[Sequence[OrderReport]], None],
    on_connected: Callable[[], None],
    until: Callable[[], bool],
) -> None:
    """Tell changes until `until()` is true; `on_connected` runs whenever something may have been missed before."""
    since: datetime | None = None
    while not until():
        asked_at = clock()
        try:
            reports = changed_since((since or asked_at) - _SLACK)
        except (NotSent, OutcomeUnknown) as error:
            logger.warning("order_poll_failed error=%s", error)
            since = None
        else:
            if since is None:
                on_connected()
            since = asked_at
            if reports and not _heard(on_reports, reports):
                since = None
        time.sleep(POLL_SECONDS)


def _heard(on_reports: Callable[[Sequence[OrderReport]], None], reports: Sequence[OrderReport]) -> bool:
    try:
        on_reports(reports)
    except Exception:
        logger.exception("order_updates_failed count=%d", len(reports))
        return False
    return True
