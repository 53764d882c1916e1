"""The whole stack starts, heals what is killed, takes over what a killed supervisor left, and stays small."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import requests

from config.embedded import ROOT, service_urls
from config.stack import AlreadyRunning, Stack, StackError
from config.stack.ownership import marked_processes
from config.stack.supervision import Supervisor

pytestmark = pytest.mark.flow

MOST_MEMORY = 10**9


def eventually(check: Callable[[], bool], *, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def replaced(var: Path, name: str, pid: int) -> bool:
    row = Supervisor(var).processes()[name]
    return row["statename"] == "RUNNING" and row["pid"] != pid


def test_a_stack_survives_every_kill(var: Path, environ: dict[str, str]) -> None:
    said: list[str] = []
    with Stack(var, environ=environ) as stack:
        stack.start(said.append)
        assert said[0] == "Starting Postgres and Redis"
        assert requests.get(stack.urls()["admin"], timeout=10).status_code == 200
        states = {row["name"]: row["state"] for row in stack.status()}
        assert set(states.values()) == {"RUNNING"}
        assert sum(stack.pss().values()) < MOST_MEMORY

        with pytest.raises(AlreadyRunning, match="already running"):
            Stack(var, environ=environ).start()
        with pytest.raises(StackError, match="there is no process 'nobody'"):
            stack.restart("nobody")

        urls = service_urls(var=var, environ=environ) or {}
        with psycopg.connect(urls["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        for name in ("postgres", "redis", "stop", "beat"):
            pid = stack.kill(name)
            assert eventually(lambda name=name, pid=pid: replaced(var, name, pid)), name  # type: ignore[misc]

        supervisor = next(row["pid"] for row in stack.status() if row["name"] == "supervisor")
        os.kill(supervisor, signal.SIGKILL)
        assert eventually(lambda: not stack.is_up())
        assert marked_processes(var) != []

        said.clear()
        with Stack(var, environ=environ) as second:
            second.start(said.append)
            assert said[0].startswith("Cleared ")
            assert service_urls(var=var, environ=environ) == urls
            with psycopg.connect(urls["DATABASE_URL"]) as connection:
                assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert marked_processes(var) == []


def test_the_command_line_explains_itself(var: Path, environ: dict[str, str]) -> None:
    def stack(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "config.stack", *arguments, "--var", str(var)]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    idle = stack("status")
    assert (idle.returncode, idle.stdout) == (2, "")
    assert idle.stderr == f"error: the stack of {var} is not running; start it with: script/up\n"
    assert stack("down").returncode == 0
    unknown = stack("restart", "web")
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1
