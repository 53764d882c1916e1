"""Beat that may be started many times and ticks once: only the holder of a Postgres advisory lock sends tasks."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from celery.beat import Scheduler

from config.embedded import default_var, require_url

log = logging.getLogger(__name__)

#: Any constant will do, as long as nothing else in this database uses it.
LOCK_KEY = 0x6578_6974
RETRY_SECONDS = 1.0


class SoleScheduler(Scheduler):
    """Ticks while its own database session holds the lock; a standby takes over when that session dies.

    The schedule is code, so nothing is kept between starts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._session: psycopg.Connection[Any] | None = None
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due when this beat is the one that may, and return the seconds until the next look."""
        if not self._may_tick():
            return RETRY_SECONDS
        return min(super().tick(*args, **kwargs), RETRY_SECONDS)

    def close(self) -> None:
        """Give the lock up, so that a standby need not wait for the session to be missed."""
        if self._session is not None:
            self._session.close()
        super().close()

    def _may_tick(self) -> bool:
        try:
            if self._session is not None:
                self._session.execute("SELECT 1")  # the lock lives exactly as long as this session
                return True
            return self._take_lock()
        except psycopg.Error as error:
            log.warning("beat_lost_database error=%s", error)
            if self._session is not None:
                self._session.close()
            self._session = None
            return False

    def _take_lock(self) -> bool:
        session = psycopg.connect(
            require_url("DATABASE_URL", var=default_var()),
            autocommit=True,
            connect_timeout=3,
            application_name="beat",
            options="-c statement_timeout=5000",
        )
        try:
            row = session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone()
        except psycopg.Error:
            session.close()
            raise
        if row is None or not row[0]:
            session.close()
            return False
        self._session = session
        log.info("beat_holds_lock")
        return True
