"""What the headers of an answer say about limits and clocks, kept for the thread that asked.

Adapters note it, whoever called them takes it: it is no part of an answer, and a failed call has heard it too.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The side remarks of the last answer; what it did not say is None."""

    #: Requests a minute.
    limit: int | None = None
    #: Requests left until the limit starts anew, and the seconds until then by the broker's own clock.
    remaining: int | None = None
    reset_seconds: float | None = None
    #: Whether it turned us away for asking too often.
    turned_away: bool = False
    #: The broker's clock less that of this machine, in seconds; exact to about one.
    clock_ahead_seconds: float | None = None


_local = threading.local()


def note_heard(heard: Heard) -> None:
    """Keep what an answer said, in place of what the answer before it said."""
    _local.heard = heard


def take_heard() -> Heard | None:
    """Return what this thread heard last and forget it."""
    heard: Heard | None = getattr(_local, "heard", None)
    _local.heard = None
    return heard
