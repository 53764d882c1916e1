"""The process that follows every account's prices."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand

from positions.follow import PriceFollower


class Command(BaseCommand):
    """Follow the market data of all accounts until told to stop."""

    help = "Follow the market data of all accounts until told to stop."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until SIGTERM or Ctrl-C."""
        follower = PriceFollower(clock=lambda: datetime.now(UTC))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: follower.stop())
        follower.run()
