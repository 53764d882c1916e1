"""The command line of the simulator: reads options and secrets, then serves until a signal."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sqlite3
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from .app import Setup, build

BUNDLED_BARS = Path(__file__).parent / "bars" / "us_daily.csv"
SECRETS = ("SIMULATOR_KEY", "SIMULATOR_SECRET", "SIMULATOR_CONTROL_TOKEN")


class Mistake(Exception):  # the user's, and said in one line
    """The simulator cannot start with what it was given."""


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="simulator", description="A broker in a box that speaks Alpaca's API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8900, help="port to listen on (default: %(default)s)")
    parser.add_argument("--ledger", type=Path, required=True, help="SQLite file that keeps orders and positions")
    parser.add_argument("--bars", type=Path, default=BUNDLED_BARS, help="CSV of daily bars to replay")
    parser.add_argument("--cash", default="1000000", help="cash of a new account (default: %(default)s)")
    return parser.parse_args(arguments)


def read_cash(text: str) -> Decimal:
    """Return an amount of money.

    :raises Mistake: it is not one.
    """
    try:
        cash = Decimal(text)
    except InvalidOperation:
        cash = Decimal("NaN")
    if not cash.is_finite() or cash < 0:
        raise Mistake(f"--cash must be a number of at least 0, not {text!r}")
    return cash


def prepare(options: argparse.Namespace) -> tuple[ASGIApp, socket.socket]:
    """Return the application and the socket it is to serve.

    :raises Mistake: a secret is missing, or an option cannot be used.
    """
    secrets = {name: os.environ.get(name, "") for name in SECRETS}
    if missing := [name for name, value in secrets.items() if not value]:
        raise Mistake(f"set {', '.join(missing)} in the environment")
    setup = Setup(
        ledger=options.ledger,
        bars=options.bars,
        cash=read_cash(options.cash),
        key=secrets["SIMULATOR_KEY"],
        secret=secrets["SIMULATOR_SECRET"],
        control_token=secrets["SIMULATOR_CONTROL_TOKEN"],
    )
    try:
        app = build(setup)
    except sqlite3.Error as error:
        raise Mistake(f"cannot use the ledger {options.ledger}: {error}") from error
    except (ValueError, OSError) as error:
        raise Mistake(f"cannot read the bars: {error}") from error
    try:
        listener = socket.create_server((options.host, options.port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise Mistake(f"cannot listen on {options.host}:{options.port}: {error}") from error
    return app, listener


def main(arguments: list[str]) -> int:
    """Serve until a signal; return the exit code."""
    options = read_arguments(arguments)
    try:
        app, listener = prepare(options)
    except Mistake as mistake:
        sys.stderr.write(f"simulator: {mistake}\n")
        return 2
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="websockets-sansio",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
    )
    # uvicorn raises the signal again once it has stopped; without this the exit code would be the signal
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1
