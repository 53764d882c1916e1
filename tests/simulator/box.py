"""Starts a real simulator process on a free port, for any test that needs a broker."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
SIMULATOR = ROOT / "orders" / "brokers" / "simulator"
STARTED_WITHIN = 15.0
T = TypeVar("T")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Box:
    """One simulator process and how to reach it; the ledger outlives the process."""

    ledger: Path
    port: int
    key: str
    secret: str
    control_token: str
    arguments: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the base URL for TradingClient(url_override=...) and StockHistoricalDataClient."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Return the base URL of the streams: /stream for updates, /v2/iex for market data."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        environment = {
            **os.environ,
            "SIMULATOR_KEY": self.key,
            "SIMULATOR_SECRET": self.secret,
            "SIMULATOR_CONTROL_TOKEN": self.control_token,
        }
        command = [sys.executable, str(SIMULATOR), "--port", str(self.port)]
        command += ["--ledger", str(self.ledger), *self.arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the simulator ended with exit code {self.process.returncode}")
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):  # noqa: S310
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"the simulator did not answer within {STARTED_WITHIN} s")

    def stop(self) -> int:
        """End the process by SIGTERM and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End the process by SIGKILL and return its exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def restart(self) -> None:
        """Kill the process and start it again on the same port and ledger."""
        self.kill()
        self.start()

    def control(self, method: str, path: str, json: Any = None) -> Any:
        """Call a control endpoint and return its JSON; /control may be left out of the path.

        :raises BoxError: the answer is not a success.
        """
        status, _, body = self.call(
            method, f"/control{path.removeprefix('/control')}", json, {"X-Control-Token": self.control_token}
        )
        if status >= 400:
            raise BoxError(status, body)
        return body

    def api(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        """Call an API endpoint with the box's keys; return the status and the JSON, errors too."""
        status, _, body = self.call(method, path, json, self.keys)
        return status, body

    @property
    def keys(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        return {"APCA-API-KEY-ID": self.key, "APCA-API-SECRET-KEY": self.secret}

    def call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        """Send one request on its own connection; bytes are sent as they are, anything else as JSON.

        :raises http.client.RemoteDisconnected: the simulator hung up without an answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if isinstance(body, bytes) else None if body is None else dumps(body).encode()
            connection.request(method, path, raw, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, json.loads(text, parse_float=Decimal) if text else None

    def quote(self, symbol: str, bid: str, ask: str | None = None, last: str | None = None) -> None:
        """Push one quote; without an ask, bid and ask are the same."""
        quote = {"symbol": symbol, "bid": bid, "ask": ask or bid}
        if last is not None:
            quote["last"] = last
        self.control("POST", "/quotes", {"quotes": [quote]})


class BoxError(Exception):
    """A control request was refused."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def dumps(value: Any) -> str:
    """Return JSON in which Decimals are text."""
    return json.dumps(value, default=str)


def start_box(tmp_path: Path, *arguments: str) -> Box:
    """Start a simulator with its ledger below tmp_path; arguments are added to its command line."""
    box = Box(
        ledger=tmp_path / "broker.sqlite3",
        port=free_port(),
        key="KEY" + secrets.token_hex(8).upper(),
        secret=secrets.token_hex(16),
        control_token=secrets.token_hex(16),
        arguments=list(arguments),
    )
    box.start()
    return box


def eventually(read: Callable[[], T], *, within: float = 5.0) -> T:
    """Return the first true value of read.

    :raises AssertionError: it stayed false too long.
    """
    deadline = time.monotonic() + within
    while True:
        value = read()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {within} s")
        time.sleep(0.005)
