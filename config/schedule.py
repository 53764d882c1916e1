"""Beat that may be started many times and ticks once: only the holder of a Postgres advisory lock sends tasks."""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import Scheduler
from django.db import Error, connection

log = logging.getLogger(__name__)

#: Any constant will do, as long as nothing else in this database uses it.
LOCK_KEY = 0x6578_6974
RETRY_SECONDS = 1.0


class SoleScheduler(Scheduler):
    """Ticks while its own database session holds the lock; a standby takes over when that session dies.

    The schedule is code, so nothing is kept between starts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._holding = False
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due when this beat is the one that may, and return the seconds until the next look."""
        if not self._may_tick():
            return RETRY_SECONDS
        return min(super().tick(*args, **kwargs), RETRY_SECONDS)

    def _may_tick(self) -> bool:
        try:
            with connection.cursor() as cursor:
                # asked for at each tick: the lock lives as long as the session, and this may be a new one
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY])
                row = cursor.fetchone()
        except Error as error:
            log.warning("beat_lost_database error=%s", error)
            self._holding = False
            connection.close()
            return False
        held, self._holding = self._holding, bool(row and row[0])
        if self._holding and not held:
            log.info("beat_holds_lock")
        return self._holding
