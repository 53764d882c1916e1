"""Owns a running installation: starts its processes in order under a supervisor, watches them, stops them.

Whoever is killed, launcher, supervisor or server, the next start finds what is left and clears it first.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from config.embedded import MARK, ROOT, embedded_names, is_running, make_var
from config.embedded.running import provision_database
from config.ports import LOOPBACK, claim_ports, read_ports
from config.secrets import load_secrets
from config.stack.memory import tree_pss
from config.stack.ownership import (
    STACK_MARK,
    clear_leftovers,
    forget_owner,
    owner_lives,
    record_owner,
    starting_or_stopping,
)
from config.stack.processes import PROGRAM_PORTS, Phase, Process, declare_processes
from config.stack.readiness import StackError, Watch, answers, await_names, last_line
from config.stack.supervision import (
    Supervisor,
    make_socket_folder,
    remove_socket_folder,
    render_configuration,
)

Progress = Callable[[str], None]


class AlreadyRunning(StackError):
    """The stack of this folder runs already."""


def _say_nothing(_message: str) -> None:
    pass


class Stack:
    """The processes of one installation, kept below one folder."""

    def __init__(self, var: Path, *, environ: Mapping[str, str] = os.environ) -> None:
        self.var = var.absolute()
        self._environ = environ
        self._supervisord: subprocess.Popen[bytes] | None = None

    @property
    def services(self) -> list[str]:
        """The embedded servers that are part of this stack."""
        return embedded_names(self._environ)

    def processes(self) -> list[Process]:
        """Return the declared processes, with the ports of the last start."""
        ports = read_ports(self.var)
        if not ports.keys() >= set(PROGRAM_PORTS):
            raise StackError(f"the stack of {self.var} was never started")
        secrets = load_secrets(var=self.var, environ=self._environ)
        return declare_processes(var=self.var, ports=ports, secrets=secrets, services=self.services)

    def start(self, progress: Progress = _say_nothing, *, attached: bool = True, patience: float = 120) -> None:
        """Start everything and return once it is ready to trade.

        :param progress: is told each step in words.
        :param attached: the stack belongs to this process: if it dies, the next start replaces the stack.
        :param patience: seconds within which all programs must be ready.
        :raises AlreadyRunning: it runs, and its owner lives.
        :raises StackError: a step failed; nothing is left running.
        """
        with self._alone():
            self._clear(progress)
            try:
                self._start_services(progress)
                self._prepare(progress)
                self._start_programs(progress, patience=patience)
            except BaseException:
                self._stop()
                raise
            record_owner(self.var, attached=attached)

    def stop(self) -> None:
        """Stop everything, programs first, and return once nothing is left; do nothing if nothing runs."""
        with self._alone():
            self._stop()

    def restart(self, name: str) -> None:
        """Stop one process politely and start it again.

        :raises StackError: there is no such process.
        """
        Supervisor(self.var).restart(self._declared(name))

    def stop_process(self, name: str) -> None:
        """Stop one process politely and leave it stopped.

        :raises StackError: there is no such process.
        """
        Supervisor(self.var).stop_process(self._declared(name))

    def start_process(self, name: str, *, patience: float = 60) -> None:
        """Start one process that was stopped and return once it works.

        :raises StackError: there is no such process, or it does not start in time.
        """
        process = self._declared(name)
        watch = Watch(process, var=self.var)
        Supervisor(self.var).start_process(process)
        self._await(lambda: [] if watch.is_ready() else [name], patience=patience)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, group: bool = False) -> int:
        """Send a signal to a process, or with its children, and return its pid; what dies is replaced.

        :raises StackError: it is not running.
        """
        pid = int(Supervisor(self.var).processes()[self._declared(name).name]["pid"])
        if not pid:
            raise StackError(f"{name} is not running")
        if group:
            os.killpg(os.getpgid(pid), number)
        else:
            os.kill(pid, number)
        return pid

    def urls(self) -> dict[str, str]:
        """Return the addresses of what listens, for people and programs."""
        ports = read_ports(self.var)
        web = f"http://{LOOPBACK}:{ports['web']}"
        return {
            "web": web,
            "admin": f"{web}/admin/",
            "api_docs": f"{web}/api/v1/docs",
            "flower": f"http://{LOOPBACK}:{ports['flower']}/",
            "simulator": f"http://{LOOPBACK}:{ports['simulator']}",
        }

    def is_up(self) -> bool:
        """Say whether the supervisor of this folder answers."""
        return Supervisor(self.var).pid() is not None

    def status(self) -> list[dict[str, Any]]:
        """Return name, pid, state, uptime in seconds and PSS in bytes of each process, the supervisor first.

        :raises StackError: nothing runs.
        """
        supervisor = Supervisor(self.var)
        head = supervisor.pid()
        if head is None:
            raise StackError(f"the stack of {self.var} is not running; start it with: script/up")
        found = supervisor.processes()
        family = {head: "supervisor", **{int(row["pid"]): name for name, row in found.items() if row["pid"]}}
        started = {pid: psutil.Process(pid).create_time() for pid in family if psutil.pid_exists(pid)}
        total = tree_pss(head)
        below = {name: tree_pss(pid) for pid, name in family.items() if pid != head}
        rows = [
            {
                "name": name,
                "pid": int(row["pid"]) or None,
                "state": row["statename"],
                "uptime": int(row["now"] - row["start"]) if row["pid"] else 0,
                "pss": below.get(name, 0),
            }
            for name, row in sorted(found.items(), key=lambda item: self._position(item[0]))
        ]
        uptime = int(time.time() - started.get(head, time.time()))
        own = max(total - sum(below.values()), 0)
        return [{"name": "supervisor", "pid": head, "state": "RUNNING", "uptime": uptime, "pss": own}, *rows]

    def pss(self) -> dict[str, int]:
        """Return the bytes of memory each process takes with its children."""
        return {row["name"]: row["pss"] for row in self.status()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return what every process of the stack finds in its environment, beyond that of the launcher."""
        return {
            MARK: str(self.var),
            STACK_MARK: str(self.var),
            "SIMULATOR_URL": self.urls()["simulator"],
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # glibc keeps an arena per thread otherwise, mostly empty
            # the preparation has run them; they would load the web's whole address table into each worker
            "CELERY_SKIP_CHECKS": "true",
        }

    def _clear(self, progress: Progress) -> None:
        if self.is_up():
            if owner_lives(self.var):
                raise AlreadyRunning(f"the stack of {self.var} is already running; stop it with: script/up down")
            progress("Stopping the stack a killed launcher left behind")
            self._stop()
            return
        if self._supervisord is not None:
            self._supervisord.wait()  # it was killed and this launcher lives: nobody else can reap it
            self._supervisord = None
        if cleared := clear_leftovers(self.var, services=self.services):
            progress(f"Cleared {cleared} processes a killed supervisor left behind")

    def _start_services(self, progress: Progress) -> None:
        claim_ports(self.var, [*self.services, *PROGRAM_PORTS])
        (self.var / "simulator").mkdir(mode=0o700, exist_ok=True)
        make_socket_folder(self.var)
        conf = self.var / "run" / "supervisord.conf"
        conf.unlink(missing_ok=True)
        with os.fdopen(os.open(conf, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(
                render_configuration(self.processes(), var=self.var, directory=ROOT, environment=self.environment())
            )
        with (self.var / "log" / "supervisord.out").open("wb") as output:
            self._supervisord = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
                cwd=ROOT,
                env={**self._environ, MARK: str(self.var), STACK_MARK: str(self.var)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the launcher, which stops the stack in order
            )
        self._await(lambda: [] if self.is_up() else ["supervisord"], patience=15)
        if not self.services:
            progress("Using the Postgres and Redis of DATABASE_URL and REDIS_URL")
            return
        progress(f"Starting {' and '.join(name.capitalize() for name in self.services)}")
        Supervisor(self.var).start_phase(Phase.SERVICES)
        self._await(
            lambda: [name for name in self.services if not answers(name, var=self.var, environ=self._environ)],
            patience=30,
        )

    def _await(self, missing: Callable[[], list[str]], *, patience: float) -> None:
        await_names(missing, var=self.var, supervisord=self._supervisord, patience=patience)

    def _prepare(self, progress: Progress) -> None:
        if "postgres" in self.services:
            provision_database(var=self.var, environ=self._environ)
        progress("Preparing the database")
        log = self.var / "log" / "preparation.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-m", "config.stack.preparation"],
                cwd=ROOT,
                env={**self._environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode != 0:
            raise StackError(f"preparing the database failed: {last_line(log)} (see {log})")

    def _start_programs(self, progress: Progress, *, patience: float) -> None:
        processes = [process for process in self.processes() if process.phase is Phase.PROGRAMS]
        watches = [Watch(process, var=self.var) for process in processes]
        progress(f"Starting {len(processes)} programs")
        Supervisor(self.var).start_phase(Phase.PROGRAMS)
        self._await(lambda: [watch.process.name for watch in watches if not watch.is_ready()], patience=patience)

    def _stop(self) -> None:
        supervisor = Supervisor(self.var)
        pid = supervisor.pid()
        if pid is not None:
            supervisor.shut_down()
            deadline = time.monotonic() + 90
            while psutil.pid_exists(pid) and time.monotonic() < deadline:
                if self._supervisord is not None and self._supervisord.poll() is not None:
                    break
                with contextlib.suppress(psutil.Error):
                    if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                        break
                time.sleep(0.05)
        clear_leftovers(self.var, services=[name for name in self.services if is_running(self.var, name)])
        if self._supervisord is not None:
            self._supervisord.wait()
            self._supervisord = None
        remove_socket_folder(self.var)
        forget_owner(self.var)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        make_var(self.var)
        with starting_or_stopping(self.var) as alone:
            if not alone:
                raise AlreadyRunning(f"the stack of {self.var} is being started or stopped right now")
            yield

    def _declared(self, name: str) -> Process:
        processes = {process.name: process for process in self.processes()}
        if name not in processes:
            raise StackError(f"there is no process {name!r}; there are: {', '.join(processes)}")
        return processes[name]

    def _position(self, name: str) -> int:
        names = [process.name for process in self.processes()]
        return names.index(name) if name in names else len(names)
