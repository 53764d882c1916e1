"""Command line of the stack: up, down, status, restart."""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from config.embedded import EmbeddedError, default_var
from config.ports import PortsError
from config.secrets import SecretsError, load_secrets
from config.stack.lifecycle import Stack
from config.stack.market import open_market
from config.stack.processes import FLOWER_USER
from config.stack.readiness import StackError
from config.stack.supervision import SupervisionError


def main() -> int:
    """Run one command and return its exit code; a user's mistake is one line on stderr and code 2."""
    parser = argparse.ArgumentParser(prog="python -m config.stack", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, meaning in (
        ("up", "start everything, and return when it is ready"),
        ("down", "stop everything"),
        ("status", "show processes and memory"),
        ("restart", "restart one process"),
    ):
        verb = verbs.add_parser(name, help=meaning)
        verb.add_argument("--var", type=Path, default=default_var(), help="folder of data (default: %(default)s)")
        if name == "up":
            verb.add_argument("--wait", action="store_true", help="stay, and stop everything on Ctrl-C")
            verb.add_argument("--no-market", action="store_true", help="let the simulated broker be silent")
        if name == "restart":
            verb.add_argument("name", help="process to restart")
    asked = parser.parse_args()
    stack = Stack(asked.var)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if asked.verb == "up":
            _up(stack, wait=asked.wait, market=not asked.no_market)
        elif asked.verb == "down":
            stack.stop()
        elif asked.verb == "status":
            _print_status(stack)
        else:
            stack.restart(asked.name)
    except (StackError, SupervisionError, EmbeddedError, PortsError, SecretsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _up(stack: Stack, *, wait: bool, market: bool) -> None:
    began = time.monotonic()
    stack.start(lambda message: _say(f"{time.monotonic() - began:5.1f} s  {message}"), attached=wait)
    _say(f"{time.monotonic() - began:5.1f} s  Ready")
    _print_addresses(stack, market=_open_market(stack) if market else "silent")
    if not wait:
        return
    _say("Ctrl-C stops it.")
    try:
        while stack.is_up():
            time.sleep(1)
        raise StackError(f"the supervisor ended; see {stack.var}/log/supervisord.log")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        _say("Stopping")
    finally:
        stack.stop()


def _open_market(stack: Stack) -> str:
    token = load_secrets(var=stack.var).simulator_control_token
    return open_market(url=stack.urls()["simulator"], control_token=token)


def _print_addresses(stack: Stack, *, market: str) -> None:
    secrets, urls = load_secrets(var=stack.var), stack.urls()
    total = sum(stack.pss().values()) / 1e6
    _say("")
    _say(f"  admin     {urls['admin']}   admin / {secrets.admin_password}")
    _say(f"  API docs  {urls['api_docs']}")
    _say(f"  Flower    {urls['flower']}   {FLOWER_USER} / {secrets.flower_password}")
    _say("  API token .venv/bin/python manage.py token create admin")
    _say(f"  market    {market}")
    _say(f"  logs      {stack.var / 'log'}")
    _say(f"  memory    {total:.0f} MB")
    _say("")


def _print_status(stack: Stack) -> None:
    rows = stack.status()
    _say(f"{'process':<14}{'pid':>8}  {'state':<10}{'up':>10}{'PSS MB':>9}")
    for row in rows:
        uptime = f"{row['uptime'] // 3600}:{row['uptime'] // 60 % 60:02}:{row['uptime'] % 60:02}"
        memory = f"{row['pss'] / 1e6:>9.1f}"
        _say(f"{row['name']:<14}{row['pid'] or '-':>8}  {row['state']:<10}{uptime:>10}{memory}")
    _say(f"{'total':<14}{'':>8}  {'':<10}{'':>10}{sum(row['pss'] for row in rows) / 1e6:>9.1f}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
