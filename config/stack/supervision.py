"""Owns supervisord: its configuration, made from the declared processes, and talking to it."""

import contextlib
import hashlib
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
import xmlrpc.client
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import SupervisorTransport

from config.stack.processes import Phase, Process

LONGEST_SOCKET_PATH = 90  #: the kernel takes 107 bytes; supervisord binds a longer name first and renames it

HEAD = """\
[unix_http_server]
file = {socket}
chmod = 0700

[supervisord]
logfile = {log}/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 2
pidfile = {run}/supervisord.pid
childlogdir = {log}
nodaemon = true
silent = true
umask = 077
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

PROGRAM = """
[program:{name}]
command = {command}
directory = {directory}
environment = {environment}
autostart = false
autorestart = true
startsecs = 1
startretries = 1000000000
stopsignal = {stop_signal}
stopwaitsecs = {stop_seconds}
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


class SupervisionError(RuntimeError):
    """The supervisor cannot be configured or reached; the message says why."""


def render_configuration(
    processes: Sequence[Process], *, var: Path, directory: Path, environment: Mapping[str, str]
) -> str:
    """Return supervisord's configuration.

    The stop signal goes to a process alone, for a Celery worker's children would drop their tasks on it; what
    outlives its time is killed with its children. Nothing gives up restarting.

    :raises SupervisionError: a path or secret cannot be written in this format.
    """
    user = f"user = {pwd.getpwuid(0).pw_name}\n" if os.geteuid() == 0 else ""
    log, run = _plain(var / "log"), _plain(var / "run")
    text = HEAD.format(socket=_plain(socket_path(var)), log=log, run=run, user=user)
    for process in processes:
        text += PROGRAM.format(
            name=process.name,
            command=_plain(shlex.join(process.argv)),
            directory=_plain(directory),
            environment=",".join(
                f"{k}={_quoted(v)}"
                for k, v in {**environment, "EXITMGR_PROCESS": process.name, **process.environment}.items()
            ),
            stop_signal=process.stop_signal,
            stop_seconds=process.stop_seconds,
            log=log.replace("%", "%%"),  # this key is expanded twice
        )
    for phase in Phase:
        names = [process.name for process in processes if process.phase is phase]
        if names:
            # a lower priority starts earlier and stops later
            priority = 1 + list(Phase).index(phase)
            text += f"\n[group:{phase}]\nprograms = {','.join(names)}\npriority = {priority}\n"
    return text


def socket_path(var: Path) -> Path:
    """Return where supervisord listens: below var/run, or where that is too long in a private folder.

    :raises SupervisionError: that folder is somebody else's.
    """
    path = var / "run" / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"exitmgr-{os.geteuid()}-{digest}"
    with contextlib.suppress(FileNotFoundError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise SupervisionError(f"{folder} is not a private folder of ours: remove it")
    return folder / "supervisor.sock"


def make_socket_folder(var: Path) -> None:
    """Make the folder supervisord listens in."""
    with contextlib.suppress(FileExistsError):
        socket_path(var).parent.mkdir(mode=0o700)
    socket_path(var)


def remove_socket_folder(var: Path) -> None:
    """Remove the folder supervisord listened in where it lies outside var/."""
    path = socket_path(var)
    if path.parent != var / "run" and path.parent.exists():
        shutil.rmtree(path.parent)


class Supervisor:
    """A running supervisord, reached over its socket."""

    def __init__(self, var: Path) -> None:
        self._transport = SupervisorTransport(None, None, f"unix://{socket_path(var)}")
        self._server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=self._transport)

    def pid(self) -> int | None:
        """Return supervisord's process id, or None if it does not answer."""
        try:
            return cast(int, self._server.supervisor.getPID())
        except (OSError, HTTPException):
            return None
        finally:
            self._transport.close()

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return supervisord's record of each process (statename, pid, start, spawnerr …) by name."""
        rows = cast(list[dict[str, Any]], self._call("getAllProcessInfo"))
        return {row["name"]: row for row in rows}

    def start_phase(self, phase: Phase) -> None:
        """Start all processes of a phase at once, without waiting for them."""
        self._call("startProcessGroup", str(phase), False)

    def restart(self, process: Process) -> None:
        """Stop one process the polite way and start it again."""
        self.stop_process(process)
        self.start_process(process)

    def stop_process(self, process: Process) -> None:
        """Stop one process the polite way; it stays stopped."""
        try:
            self._call("stopProcess", f"{process.phase}:{process.name}")
        except SupervisionError as error:
            if "NOT_RUNNING" not in str(error):
                raise

    def start_process(self, process: Process) -> None:
        """Start one process that was stopped, without waiting for it."""
        self._call("startProcess", f"{process.phase}:{process.name}", False)

    def shut_down(self) -> None:
        """Ask supervisord to stop everything, programs before services, and end."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: Any) -> object:
        try:
            return getattr(self._server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisionError(f"supervisord refuses {method}: {fault.faultString}") from fault
        except (OSError, HTTPException) as error:
            raise SupervisionError(f"supervisord does not answer: {error}") from error
        finally:
            self._transport.close()


def _plain(value: object) -> str:
    text = str(value)
    if re.search(r"[\x00-\x1f]|\s[;#]|^\s|\s$", text):
        raise SupervisionError(f"supervisord cannot use a path with a line break, ' ;' or ' #' in it: {text!r}")
    return text.replace("%", "%%")


def _quoted(value: str) -> str:
    if re.search(r"[\x00-\x1f\"']|\s[;#]", value):
        raise SupervisionError("supervisord cannot pass on a value with quotes, a line break, ' ;' or ' #' in it")
    return '"' + value.replace("%", "%%") + '"'
