"""The process that follows every account's order updates."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand

from orders.brokers.registry import connect
from orders.follow import Follower


class Command(BaseCommand):
    """Follow the order update streams of all accounts until told to stop."""

    help = "Follow the order update streams of all accounts until told to stop."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until SIGTERM or Ctrl-C."""
        follower = Follower(connect=connect, clock=lambda: datetime.now(UTC))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: follower.stop())
        follower.run()
