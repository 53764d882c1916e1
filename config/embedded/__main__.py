"""Command line of the embedded servers: serve one, provision the database, run a command beside both."""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from config.embedded.home import COMMANDS, MARK, EmbeddedError, default_var, discard_home, stop_orphan
from config.embedded.running import provision_database, serve, start_services
from config.ports import PortsError
from config.secrets import SecretsError

MOST_SCRATCHES = 9


def main() -> int:
    """Run one command and return its exit code; a user's mistake is one line on stderr and code 2."""
    parser = argparse.ArgumentParser(prog="python -m config.embedded", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, meaning in (
        ("postgres", "serve Postgres in the foreground"),
        ("redis", "serve Redis in the foreground"),
        ("provision", "create the programs' role and database"),
        ("discard", "delete the servers' data"),
        ("run", "start both servers, run a command with their addresses, stop them"),
    ):
        verb = verbs.add_parser(name, help=meaning)
        verb.add_argument("--var", type=Path, default=default_var(), help="folder of data (default: %(default)s)")
        if name in {"postgres", "redis"}:
            verb.add_argument("--keep-port", action="store_true", help="fail rather than move to another port")
        if name == "run":
            verb.add_argument("--scratch", action="store_true", help="start empty, and delete the folder afterwards")
            verb.add_argument("command", nargs=argparse.REMAINDER, help="command and its arguments")
    asked = parser.parse_args()
    var = asked.var.absolute()
    os.environ[MARK] = str(var)
    try:
        if asked.verb in {"postgres", "redis"}:
            serve(asked.verb, var=var, keep_port=asked.keep_port)
        elif asked.verb == "provision":
            provision_database(var=var)
        elif asked.verb == "discard":
            discard_home(var)
        else:
            return _run_on_scratch(asked.command, var=var) if asked.scratch else _run(asked.command, var=var)
    except KeyboardInterrupt:
        return 130
    except (EmbeddedError, PortsError, SecretsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _run(command: list[str], *, var: Path) -> int:
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        raise EmbeddedError("give a command to run: python -m config.embedded run -- pytest")
    with start_services(var, create_databases=True) as services:
        environment = {**os.environ, **services.urls, MARK: str(var)}
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        except FileNotFoundError as error:
            raise EmbeddedError(f"no such command: {command[0]}") from error


def _run_on_scratch(command: list[str], *, var: Path) -> int:
    """Run on the first folder of var, var-2, var-3 … that no other run uses."""
    var.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, MOST_SCRATCHES + 1):
        folder = var if number == 1 else var.with_name(f"{var.name}-{number}")
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            try:
                _wipe(folder)  # what a killed run left
                os.environ[MARK] = str(folder)
                return _run(command, var=folder)
            finally:
                _wipe(folder)
    raise EmbeddedError(f"{MOST_SCRATCHES} runs are using {var} and its neighbours already")


def _wipe(folder: Path) -> None:
    for service in COMMANDS:
        stop_orphan(folder, service)
    discard_home(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
