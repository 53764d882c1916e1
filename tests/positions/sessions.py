"""Work in a database session of its own, and whether such a session waits for this one."""

from __future__ import annotations

import threading
from typing import Any

from django.db import connection


def in_thread(work: Any) -> threading.Thread:
    """Start work that has its own database connection."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def somebody_waits_for_us() -> bool:
    """Say whether another session waits for a lock of this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])
