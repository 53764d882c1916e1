"""The command line: one line and exit code 2 for a user's mistake."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulator.box import SIMULATOR, Box, start_box

SECRETS = {"SIMULATOR_KEY": "k", "SIMULATOR_SECRET": "s", "SIMULATOR_CONTROL_TOKEN": "t"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return subprocess.run(
        [sys.executable, str(SIMULATOR), *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("_case", "arguments", "missing", "problem"),
    [
        ("no secrets", [], tuple(SECRETS), "set SIMULATOR_KEY, SIMULATOR_SECRET, SIMULATOR_CONTROL_TOKEN in the"),
        ("no token", [], ("SIMULATOR_CONTROL_TOKEN",), "set SIMULATOR_CONTROL_TOKEN in the environment"),
        ("cash in words", ["--cash", "plenty"], (), "--cash must be a number of at least 0, not 'plenty'"),
        ("debt", ["--cash=-5"], (), "--cash must be a number of at least 0, not '-5'"),
        ("no such bars", ["--bars", "/nowhere/bars.csv"], (), "cannot read the bars:"),
        ("a port too high", ["--port", "70000"], (), "cannot listen on 127.0.0.1:70000:"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    _case: str, arguments: list[str], missing: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    secrets = {name: value for name, value in SECRETS.items() if name not in missing}
    ended = run("--ledger", str(tmp_path / "l.sqlite3"), *arguments, **secrets)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"simulator: {problem}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("_case", "spoil"),
    [
        ("no folder", lambda path: path / "missing" / "ledger.sqlite3"),
        ("not a ledger", lambda path: path.joinpath("notes.txt")),
    ],
)
def test_a_ledger_that_cannot_be_used_is_said(_case: str, spoil: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be looked at" * 100)
    ended = run("--ledger", str(spoil(tmp_path)), **SECRETS)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("simulator: cannot use the ledger")


def test_a_ledger_or_port_in_use_is_said(own_box: Box, tmp_path: Path) -> None:
    ended = run("--ledger", str(own_box.ledger), "--port", "0", **SECRETS)
    assert (ended.returncode, "locked" in ended.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("--ledger", str(tmp_path / "other.sqlite3"), "--port", port, **SECRETS)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"simulator: cannot listen on 127.0.0.1:{port}")


def test_cash_and_bars_of_your_own(tmp_path: Path) -> None:
    bars = tmp_path / "bars.csv"
    bars.write_text(
        "ts,symbol,open,high,low,close,volume\n2020-03-16T13:30:00Z,SPY,241.18,256.9,237.36,239.85,297240000\n"
    )
    box = start_box(tmp_path, "--cash", "2500.50", "--bars", str(bars))
    try:
        assert box.api("GET", "/v2/account")[1]["cash"] == "2500.5"
        assert [asset["symbol"] for asset in box.api("GET", "/v2/assets")[1]] == ["SPY"]
        assert box.control("POST", "/replay/prime", {"session": "2020-03-16"})["quotes"][0]["last"] == "239.85"
    finally:
        assert box.stop() == 0


def test_the_program_stays_small_and_loads_no_other_room(own_box: Box) -> None:
    maps = Path(f"/proc/{own_box.process.pid}/status").read_text() if own_box.process else ""
    resident = next(int(line.split()[1]) for line in maps.splitlines() if line.startswith("VmRSS"))
    assert resident < 80_000
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, 'orders/brokers'); import simulator.command;"
            "print([m for m in ('django', 'pandas', 'numpy', 'orders', 'positions', 'alpaca') if m in sys.modules])",
        ],
        cwd=SIMULATOR.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"
