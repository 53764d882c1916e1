"""Doing one thing from many threads at the same moment, each with its own database session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from django.db import connection

T = TypeVar("T")
WITHIN_SECONDS = 60.0


def at_once(*calls: Callable[[], T]) -> list[T | Exception]:
    """Start all calls together and return what each returned or raised, in their order.

    :raises AssertionError: one did not come back.
    """
    start = threading.Barrier(len(calls))
    ends: list[T | Exception] = [TimeoutError("did not come back")] * len(calls)

    def run(place: int, call: Callable[[], T]) -> None:
        try:
            connection.ensure_connection()
            start.wait(timeout=WITHIN_SECONDS)
            ends[place] = call()
        except Exception as error:
            ends[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=WITHIN_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a thread did not come back"
    return ends
