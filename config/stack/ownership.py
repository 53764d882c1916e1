"""Owns who a running stack belongs to, and clearing what one left whose launcher or supervisor was killed.

Processes are recognised by a mark in their environment, never by name or by a stored pid alone.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from config.embedded import is_alive, stop_orphan

STACK_MARK = "EXITMGR_STACK"  #: only processes of a stack carry it; its value is the stack's var folder


def marked_processes(var: Path) -> list[psutil.Process]:
    """Return the living processes that a stack on this folder started, this process and its parents apart."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in own and process.environ().get(STACK_MARK) == str(var) and is_alive(process):
                found.append(process)
    return found


def clear_leftovers(var: Path, *, services: Sequence[str], patience: float = 5) -> int:
    """Stop the programs, then the servers, that nobody supervises any more, and return how many there were.

    :raises EmbeddedError: a server is running that somebody else supervises.
    """
    programs = marked_processes(var)
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, patience)):
        # again for each round: a worker's children show only when it is gone
        remaining = marked_processes(var)
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while any(is_alive(process) for process in remaining) and time.monotonic() < deadline:
            time.sleep(0.05)
    for service in services:
        stop_orphan(var, service)
    return len(programs)


def record_owner(var: Path, *, attached: bool) -> None:
    """Write down that this process started the stack, and whether the stack is to live only as long as it."""
    owner = psutil.Process()
    record = {"attached": attached, "launcher": owner.pid, "started": owner.create_time()}
    _owner_file(var).write_text(json.dumps(record))


def forget_owner(var: Path) -> None:
    """Write down that nobody owns a stack here."""
    _owner_file(var).unlink(missing_ok=True)


def owner_lives(var: Path) -> bool:
    """Say whether the running stack is somebody's: detached on purpose, or its launcher is alive."""
    try:
        record = json.loads(_owner_file(var).read_text())
        if not record["attached"]:
            return True
        launcher = psutil.Process(record["launcher"])
        return launcher.create_time() == record["started"] and is_alive(launcher)
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return False


@contextlib.contextmanager
def starting_or_stopping(var: Path) -> Iterator[bool]:
    """Give True while this process alone starts or stops the stack, False if another one is at it."""
    with (var / "run" / "stack.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _owner_file(var: Path) -> Path:
    return var / "run" / "stack.json"
