"""Doorbells. A message carries ids and nothing else; losing one costs the time until the sweep rings again."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from celery import current_app
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


def ring(task: str, *, queue: str, kwargs: Mapping[str, object] | None = None, expires: float | None = None) -> bool:
    """Send one task by name and return whether it left; a dead Redis is logged, because the sweep finds the row.

    `expires` is in seconds: a doorbell that nobody heard by then is dropped.
    """
    try:
        current_app.send_task(task, kwargs=dict(kwargs or {}), queue=queue, expires=expires, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("doorbell_lost task=%s queue=%s error=%s", task, queue, error)
        return False
    return True
