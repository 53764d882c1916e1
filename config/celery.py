"""The Celery app of this installation: its guards against a broker that goes away, and its database connections."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

import redis
from celery import Celery, signals
from kombu.transport import redis as kombu_redis

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

log = logging.getLogger(__name__)

app = Celery("exitmgr")
app.config_from_object("config.celery_settings")
# Keep the database connection between tasks: Celery's Django fixup would close it before and after each one,
# which costs six times the throughput. close_old_connections below still drops what is broken or too old.
app.conf.CELERY_DB_REUSE_MAX = 10**9
app.autodiscover_tasks()

_connparams = kombu_redis.Channel._connparams  # type: ignore[attr-defined]


def _connparams_or_closed(self: Any, asynchronous: bool = False) -> Any:
    """Turn kombu's AttributeError on a torn-down transport into the ConnectionError its callers can handle.

    Without it a worker exits when Redis restarts while a task runs (kombu 5.7.0, `conninfo.hostname` on None).
    """
    if self.connection is None or self.connection.client is None:
        raise redis.exceptions.ConnectionError("channel is closed")
    return _connparams(self, asynchronous)


kombu_redis.Channel._connparams = _connparams_or_closed  # type: ignore[attr-defined]


@signals.task_prerun.connect
@signals.task_postrun.connect
def _drop_broken_connections(**_: Any) -> None:
    from django.db import close_old_connections

    close_old_connections()


@signals.setup_logging.connect
def _keep_django_logging(**_: Any) -> None:
    """Having a receiver is what stops Celery from replacing the logging that settings configured."""


@signals.worker_ready.connect
def _keep_watch(sender: Any, **_: Any) -> None:
    """Let the worker that serves only the stop lanes stand in for a silent beat or Redis."""
    queues = {queue.name for queue in sender.task_consumer.queues}
    if "stop_loss" not in queues or "entry" in queues:
        return
    from exitmgr.watch import keep_watch
    from orders.brokers.registry import connect

    threading.Thread(
        target=keep_watch,
        kwargs={"clock": lambda: datetime.now(UTC), "sleep": time.sleep, "connect": connect, "worker": sender.hostname},
        name="watch",
        daemon=True,
    ).start()


#: What a child would load with its first task: once in the parent, it is shared, and no stop waits for it.
_PRELOADED = ("django.db.backends.postgresql.base", "orders.brokers.alpaca")


@signals.worker_before_create_process.connect
def _share_memory_with_children(**_: Any) -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # objects loaded so far are never touched by the collector, so their pages stay shared after the fork


@signals.worker_process_init.connect
def _connect_before_the_first_task(**_: Any) -> None:
    from django.db import Error, connection

    try:
        connection.ensure_connection()
    except Error as error:
        log.warning("database_away_at_start error=%s", error)  # the first task connects, or fails and is swept up
