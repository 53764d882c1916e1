"""Owns knowing when a started process works, and giving up in words a person can act on."""

import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from config.embedded import EmbeddedError
from config.embedded.postgres_server import PasswordRefused
from config.embedded.running import await_service
from config.ports import LOOPBACK, read_ports
from config.stack.processes import PROGRAM_PORTS, Process
from config.stack.supervision import Supervisor

MOST_STARTS = 4  #: a program that starts more often than this before it is ready will not get there


class StackError(RuntimeError):
    """A person can act on this: the message says what is wrong and where to look."""


class Watch:
    """Looks whether a program works; make it before the program starts, for it reads the log from there."""

    def __init__(self, process: Process, *, var: Path) -> None:
        self.process = process
        self._var = var
        self._log = log_path(var, process.name)
        self._start = self._log.stat().st_size if self._log.exists() else 0

    def is_ready(self) -> bool:
        """Say whether the program runs, listens where it should, and has said that it is ready."""
        name = self.process.name
        if Supervisor(self._var).processes()[name]["statename"] != "RUNNING":
            return False
        if name in PROGRAM_PORTS:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((LOOPBACK, read_ports(self._var)[name])) != 0:
                    return False
        if not self.process.ready_line:
            return True
        with self._log.open("rb") as file:
            file.seek(self._start)
            return self.process.ready_line.encode() in file.read()


def answers(service: str, *, var: Path, environ: Mapping[str, str]) -> bool:
    """Say whether an embedded server answers.

    :raises PasswordRefused: it does, but refuses our password.
    """
    try:
        await_service(service, var=var, patience=0, environ=environ)
    except PasswordRefused:
        raise
    except EmbeddedError:
        return False
    return True


def await_names(
    missing: Callable[[], list[str]],
    *,
    var: Path,
    supervisord: "subprocess.Popen[bytes] | None",
    patience: float,
) -> None:
    """Return once `missing` names nothing any more.

    :raises StackError: time is over, a process dies again and again, or the supervisor ended.
    """
    deadline = time.monotonic() + patience
    seen: dict[str, set[int]] = {}
    supervisor = Supervisor(var)
    while names := missing():
        if supervisord is not None and supervisord.poll() is not None:
            out = var / "log" / "supervisord.out"
            raise StackError(f"the supervisor ended: {last_line(out)} (see {out})")
        rows = supervisor.processes() if supervisor.pid() is not None else {}
        for name in names:
            if pid := int(rows.get(name, {}).get("pid", 0)):
                seen.setdefault(name, set()).add(pid)
            if len(seen.get(name, ())) > MOST_STARTS or time.monotonic() > deadline:
                log = log_path(var, name)
                raise StackError(f"{name} does not start: {last_line(log)} (see {log})")
        time.sleep(0.1)


def log_path(var: Path, name: str) -> Path:
    """Return where a process's output is kept."""
    return var / "log" / f"{name}.log"


def last_line(log: Path) -> str:
    """Return the last thing a log says."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it logged nothing"
