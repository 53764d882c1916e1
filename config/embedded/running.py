"""Owns running the embedded servers: one in the foreground, or both behind a handle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from config.embedded.addresses import embedded_names, service_urls
from config.embedded.home import (
    COMMANDS,
    MARK,
    ROOT,
    EmbeddedError,
    become_server,
    make_var,
    own_service,
    process_name,
    service_folder,
)
from config.embedded.postgres_server import PasswordRefused, await_postgres, prepare_postgres, provision
from config.embedded.redis_server import await_redis, prepare_redis
from config.ports import claim_ports, is_free, read_ports
from config.secrets import load_secrets


def serve(service: str, *, var: Path, keep_port: bool = False) -> None:
    """Prepare a server and become it, so that whoever started this process owns the server; never returns.

    :param keep_port: fail if the last start's port is taken, because programs know it; else choose another.
    :raises EmbeddedError: it is running already, or its port is taken.
    """
    secrets = load_secrets(var=var)
    folder = service_folder(var, service)
    own_service(var, service, folder)
    known = read_ports(var).get(service)
    if keep_port and known is not None and not is_free(known):
        raise EmbeddedError(f"port {known} of the {service} server is taken by another program")
    port = known if keep_port and known is not None else claim_ports(var, [service])[service]
    if service == "postgres":
        log = var / "log" / "initdb.log"
        argv = prepare_postgres(folder=folder, port=port, password=secrets.postgres_owner_password, log=log)
    else:
        argv = prepare_redis(folder=folder, port=port, password=secrets.redis_password)
    become_server(argv, var=var, workdir=folder / "data")


def await_service(service: str, *, var: Path, patience: float = 30, environ: Mapping[str, str] = os.environ) -> None:
    """Return once the embedded server answers.

    :raises EmbeddedError: it does not within `patience` seconds.
    """
    secrets, port = load_secrets(var=var, environ=environ), read_ports(var)[service]
    if service == "postgres":
        await_postgres(port=port, password=secrets.postgres_owner_password, patience=patience)
    else:
        await_redis(port=port, password=secrets.redis_password, patience=patience)


def provision_database(*, var: Path, create_databases: bool = False, environ: Mapping[str, str] = os.environ) -> None:
    """Create the programs' role and database in the embedded Postgres; leave an external one alone."""
    if "postgres" not in embedded_names(environ):
        return
    secrets = load_secrets(var=var, environ=environ)
    provision(
        port=read_ports(var)["postgres"],
        owner_password=secrets.postgres_owner_password,
        app_password=secrets.postgres_app_password,
        create_databases=create_databases,
    )


def start_services(var: Path, *, create_databases: bool = False, environ: Mapping[str, str] = os.environ) -> "Services":
    """Start the servers whose address the environment does not give; return once they are ready to use.

    :raises EmbeddedError: one is running already, or does not start; none is left running then.
    """
    services = Services(var=var.absolute(), environ=environ)
    names = embedded_names(environ)
    try:
        for name in names:
            services.start(name)
        for name in names:
            services.await_ready(name)
        if "postgres" in names:
            provision_database(var=services.var, create_databases=create_databases, environ=environ)
    except BaseException:
        services.stop()
        raise
    return services


class Services:
    """The embedded servers as children of this process."""

    def __init__(self, *, var: Path, environ: Mapping[str, str]) -> None:
        self.var = var
        self._environ = {**environ, MARK: str(var)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> dict[str, str]:
        """DATABASE_URL and REDIS_URL."""
        urls = service_urls(var=self.var, environ=self._environ)
        return urls or {}

    def start(self, name: str) -> None:
        """Start one server, `postgres` or `redis`, without waiting for it."""
        log = self.var / "log" / f"{name}.log"
        make_var(self.var)
        with log.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "config.embedded", name, "--var", str(self.var)],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process, which stops the servers in order
            )

    def await_ready(self, name: str, *, patience: float = 30) -> None:
        """Return once the server answers.

        :raises EmbeddedError: it ended, or does not answer in time.
        """
        deadline = time.monotonic() + patience
        while True:
            code = self._processes[name].poll()
            if code is not None:
                log = self.var / "log" / f"{name}.log"
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise EmbeddedError(f"the {name} server ended with code {code}: {last} (see {log})")
            # before the process has become the server, an old one it is about to stop may answer
            if process_name(self._processes[name].pid).startswith(COMMANDS[name]):
                try:
                    await_service(name, var=self.var, patience=0, environ=self._environ)
                except PasswordRefused:
                    raise
                except EmbeddedError:
                    pass  # not yet
                else:
                    return
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the {name} server does not answer after {patience:.0f} s; see {self.var}/log/{name}.log"
                )
            time.sleep(0.03)

    def restart(self, name: str) -> None:
        """Start a server that was killed, and wait until it is ready."""
        self.start(name)
        self.await_ready(name)

    def kill_postgres(self) -> None:
        """Kill Postgres as a power cut would: no shutdown, no checkpoint."""
        self._kill("postgres")

    def kill_redis(self) -> None:
        """Kill Redis without letting it save."""
        self._kill("redis")

    def stop(self) -> None:
        """Stop the servers in order, waiting for them to save."""
        for name, number in (("redis", signal.SIGTERM), ("postgres", signal.SIGINT)):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            process.send_signal(number)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self, name: str) -> None:
        process = self._processes[name]
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
