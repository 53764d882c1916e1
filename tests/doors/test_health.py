"""Whether we are alive and ready: every part by its name, and an answer within a second whatever hangs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from exitmgr import health
from exitmgr.sweep import beat
from positions.models import Account
from tests.doors.conftest import NOW


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Return a socket that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def simulator(listening: socket.socket, transactional_db: None) -> Account:
    port = listening.getsockname()[1]
    return Account.objects.create(
        name="paper", broker="paper", base_url=f"http://127.0.0.1:{port}", created_at=NOW, updated_at=NOW
    )


def ready() -> tuple[int, dict[str, Any]]:
    response = Client().get("/readyz")
    return response.status_code, response.json()


def down(body: dict[str, Any]) -> dict[str, str]:
    return {name: part["detail"] for name, part in body["parts"].items() if not part["up"]}


def test_alive_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database is allowed in this test, so any question would fail it."""
    response = Client().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_ready_when_every_part_works(simulator: Account) -> None:
    beat(name="scan", now=datetime.now(UTC))
    status, body = ready()
    assert (status, body["status"], down(body)) == (200, "ready", {})
    assert set(body["parts"]) == {"database", "redis", "scan", "simulator"}


@pytest.mark.parametrize(
    ("_case", "age", "detail"),
    [
        ("never", None, "there was no scheduled scan yet; is beat running?"),
        ("long ago", timedelta(minutes=2), "the last scheduled scan was 120 s ago; look at beat and the scan worker"),
    ],
)
def test_a_silent_scan_is_named(_case: str, age: timedelta | None, detail: str, simulator: Account) -> None:
    if age is not None:
        beat(name="scan", now=datetime.now(UTC) - age)
    status, body = ready()
    assert (status, body["status"], down(body)) == (503, "not ready", {"scan": detail})


def test_a_simulator_that_is_gone_is_named(simulator: Account, listening: socket.socket) -> None:
    beat(name="scan", now=datetime.now(UTC))
    listening.close()
    status, body = ready()
    assert (status, down(body)) == (503, {"simulator": "does not accept connections: ConnectionRefusedError"})


def test_a_redis_that_is_gone_is_named_without_its_password(simulator: Account, settings: Any) -> None:
    beat(name="scan", now=datetime.now(UTC))
    settings.REDIS_URL = "redis://:PLANTED@127.0.0.1:9/0"
    status, body = ready()
    assert (status, down(body)) == (503, {"redis": "does not answer: ConnectionError"})


def test_a_redis_that_hangs_costs_less_than_a_second(
    simulator: Account, listening: socket.socket, settings: Any
) -> None:
    beat(name="scan", now=datetime.now(UTC))
    settings.REDIS_URL = f"redis://:PLANTED@127.0.0.1:{listening.getsockname()[1]}/0"
    began = time.monotonic()
    status, body = ready()
    assert time.monotonic() - began < 1
    assert (status, down(body)) == (503, {"redis": "does not answer: TimeoutError"})


def test_a_check_that_never_ends_costs_less_than_a_second(simulator: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(name="scan", now=datetime.now(UTC))
    monkeypatch.setattr(health, "CHECKS", {**health.CHECKS, "database": lambda: time.sleep(1.5)})
    began = time.monotonic()
    status, body = ready()
    assert time.monotonic() - began < 1
    assert (status, down(body)) == (503, {"database": f"no answer within {health.DEADLINE} s"})


def test_a_database_that_is_gone_is_named(simulator: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("connection to server at 10.0.0.1 failed: password hunter2")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.connect", away)
    status, body = ready()
    named = down(body)
    assert status == 503
    assert named["database"] == "does not answer: OperationalError"
    assert set(named) == {"database", "scan", "simulator"}
    assert "hunter2" not in str(body)
