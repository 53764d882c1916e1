"""The demonstration: a scene plays to its end and its checks pass; the command keeps its hands off other folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from config.demo.outcomes import Outcome
from config.demo.run import Moment, Run
from config.demo.scenes import SCENES, Scene
from config.demo.tape import Tape
from config.embedded import ROOT, discard_home
from config.secrets import load_secrets
from config.stack.ownership import marked_processes
from tests.flows.rig import Rig, eventually

pytestmark = pytest.mark.flow

COMMAND = [sys.executable, "-m", "config.demo", "--var"]


class Listener:
    """A spectator that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moments: list[Moment] = []
        self.outcomes: list[Outcome] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def see(self, moment: Moment) -> None:
        self.moments.append(moment)

    def see_scene(self, scene: Scene, number: int, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes


def test_a_market_day_is_played_and_judged(rig: Rig):
    secrets = load_secrets(var=rig.stack.var)
    listener = Listener()
    url = rig.stack.urls()["simulator"]
    with Tape(url=url, key=secrets.simulator_key, secret=secrets.simulator_secret) as tape:
        run = Run(desk=rig.desk, simulator=rig.simulator, book=rig.book, tape=tape, spectator=listener)
        course = run.play(SCENES[1:2])
    assert [(check.name, check.differences) for check in course.checks if not check.passed] == []
    assert len(course.checks) == 3
    left = {outcome.position_id: [one.reason for one in outcome.exits] for outcome in listener.outcomes}
    assert sorted(left.values()) == sorted(
        [["stop_loss"]] * 5
        + [["take_profit_1"]] * 2
        + [["manual"]] * 2
        + [["take_profit_1", "stop_loss"], ["take_profit_1", "take_profit_2", "take_profit_3", "take_profit_4"]]
    )
    assert all(outcome.closed for outcome in listener.outcomes)
    assert course.first_exit_at is not None
    assert rig.simulator.ledger().cash - rig.opening_cash == sum(one.realized_pnl for one in listener.outcomes)
    assert listener.moments[-1].progress == 1.0


def test_a_change_behind_our_back_at_the_broker_is_a_difference(rig: Rig):
    assert rig.differences() == []
    rig.simulator.call("POST", "positions", {"symbol": "AAPL", "qty": "5", "avg_entry_price": "100"})
    assert rig.differences() == ["AAPL: the broker holds 5, the positions add up to 0"]
    rig.simulator.call("POST", "positions", {"symbol": "AAPL", "qty": "0"})
    assert rig.simulator.ledger().positions == {}
    assert Decimal(0) == sum(row.reserved for row in rig.book.positions())


def test_a_folder_that_is_somebodys_is_left_alone(tmp_path: Path):
    (tmp_path / "letters.txt").write_text("dear")
    done = subprocess.run([*COMMAND, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path} is not empty and not a demonstration's; name another folder with --var\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Let children hear Ctrl-C even where these tests run in the background of a shell, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_an_interrupt_leaves_nothing_running(tmp_path: Path):
    var = tmp_path / "var"
    environ = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    log = tmp_path / "out.txt"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*COMMAND, str(var), "--json"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=output
        ) as running,
    ):
        try:
            eventually(lambda: "Preparing the database" in log.read_text(), seconds=60)
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=60) == 130
        finally:
            running.kill()
    assert marked_processes(var) == []
    assert log.read_text().endswith("stopped\n")
    discard_home(var)
