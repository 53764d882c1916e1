"""Whether this process lives, and whether all that an exit needs is there. Answers within a second, whatever hangs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from redis.backoff import NoBackoff
from redis.retry import Retry

from exitmgr.models import Heartbeat
from exitmgr.watch import HEARTBEAT, SILENCE
from positions.models import Account

#: Seconds all checks together may take.
DEADLINE: Final = 0.8
_PATIENCE: Final = 0.5
_SIMULATED: Final = "paper"


class Down(Exception):
    """A part does not work; the message says what is known, and never an address or a password."""


def alive(_request: HttpRequest) -> JsonResponse:
    """Say that this process answers; nothing else is asked."""
    return JsonResponse({"status": "alive"})


def ready(_request: HttpRequest) -> JsonResponse:
    """Name every part an exit needs and whether it works; 503 when one does not."""
    began = time.monotonic()
    running = {name: _pool(name).submit(_timed, check) for name, check in CHECKS.items()}
    wait(running.values(), timeout=DEADLINE)
    parts = {name: _told(future) for name, future in running.items()}
    is_ready = all(part["up"] for part in parts.values())
    return JsonResponse(
        {
            "status": "ready" if is_ready else "not ready",
            "parts": parts,
            "seconds": round(time.monotonic() - began, 4),
        },
        status=200 if is_ready else 503,
    )


@lru_cache
def _pool(name: str) -> ThreadPoolExecutor:
    """Return the threads that ask about one part; what hangs keeps them busy, and those of no other part."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix=f"ready-{name}")


def _timed(check: Callable[[], str]) -> tuple[str, float]:
    began = time.monotonic()
    return check(), time.monotonic() - began


def _told(future: Future[tuple[str, float]]) -> dict[str, object]:
    if not future.done():
        future.cancel()
        return {"up": False, "detail": f"no answer within {DEADLINE} s"}
    error = future.exception()
    if isinstance(error, Down):
        return {"up": False, "detail": str(error)}
    if error is not None:
        return {"up": False, "detail": f"the check failed: {type(error).__name__}"}
    detail, seconds = future.result()
    return {"up": True, "detail": detail, "seconds": round(seconds, 4)}


def check_database() -> str:
    """Ask the database for anything.

    :raises Down: it does not answer.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "answers"
    except Error as error:
        raise Down(f"does not answer: {type(error).__name__}") from None
    finally:
        connection.close()


def check_scan() -> str:
    """Look when the last scheduled scan was: beat, its queue and its worker all work if it was just now.

    :raises Down: it was too long ago, or never.
    """
    try:
        last = Heartbeat.objects.filter(pk=HEARTBEAT).values_list("at", flat=True).first()
    except Error as error:
        raise Down(f"the database does not answer: {type(error).__name__}") from None
    finally:
        connection.close()
    if last is None:
        raise Down("there was no scheduled scan yet; is beat running?")
    age = datetime.now(UTC) - last
    if age > SILENCE:
        raise Down(f"the last scheduled scan was {age.total_seconds():.0f} s ago; look at beat and the scan worker")
    return f"the last scheduled scan was {max(age.total_seconds(), 0):.1f} s ago"


def check_redis() -> str:
    """Ping Redis.

    :raises Down: it does not answer.
    """
    client = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        return "answers"
    except (redis.RedisError, OSError) as error:
        raise Down(f"does not answer: {type(error).__name__}") from None
    finally:
        client.close()


def check_simulator() -> str:
    """See whether the simulated broker of the paper accounts accepts connections.

    :raises Down: it does not.
    """
    try:
        urls = set(Account.objects.filter(broker=_SIMULATED).values_list("base_url", flat=True))
    except Error as error:
        raise Down(f"the database does not answer: {type(error).__name__}") from None
    finally:
        connection.close()
    for url in urls:
        place = urlsplit(url)
        try:
            socket.create_connection((place.hostname or "", place.port or 443), timeout=_PATIENCE).close()
        except OSError as error:
            raise Down(f"does not accept connections: {type(error).__name__}") from None
    return "accepts connections" if urls else "no paper account"


CHECKS: Final[Mapping[str, Callable[[], str]]] = {
    "database": check_database,
    "redis": check_redis,
    "scan": check_scan,
    "simulator": check_simulator,
}
