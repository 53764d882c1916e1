"""The configuration from the command line: literal answers; mistakes are one line and code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from exitmgr.models import Bracket, PolicyVersion
from exitmgr.policy.current import look_again
from exitmgr.policy.reference import written_reference
from tests import factories as f

Write = Callable[[str], None]


def run(*arguments: str) -> list[str]:
    look_again()
    out = StringIO()
    call_command("policy", *arguments, stdout=out)
    return out.getvalue().splitlines()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert caught.value.returncode == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def document(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a file and returns its name."""

    def write(text: str) -> str:
        path = tmp_path / "document.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_file_is_checked_without_a_database(document: Callable[[str], str]) -> None:
    name = document("exit_manager: {stop_loss: {threshold_pct: 2.5}}")
    assert run("check", name) == [
        f"{name} is valid",
        "warning: exit_manager.profit_taking.threshold_pct (2) is not above stop_loss.threshold_pct (2.5): "
        "it risks as much as it can win",
    ]


def test_the_file_in_use_is_checked_with_the_environment(
    write_file: Write, trading_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file("exit_manager: {retry_attempts: 4}")
    assert run("check") == [f"{trading_yaml} is valid"]
    monkeypatch.setenv("EXITMGR_TRADING__EXIT_MANAGER__RETRY_ATTEMPTS", "0")
    assert refused("check") == (
        "EXITMGR_TRADING__EXIT_MANAGER__RETRY_ATTEMPTS: must be a whole number from 1 to 20; got 0"
    )


@pytest.mark.parametrize(
    ("_case", "text", "message"),
    [
        ("two mistakes", "exit_manager: {retry_attempts: 0, price_source: bid}",
         "exit_manager.retry_attempts: must be a whole number from 1 to 20; got 0; "
         "exit_manager.price_source: must be tradable, last or mid; got 'bid'"),
        ("what does not fit", "trade_exit: {risk_reward: {max_ratio: 0.5}}",
         "trade_exit.risk_reward.min_ratio: must not be above max_ratio (0.5); got 1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(_case: str, text: str, message: str, document: Callable[[str], str]) -> None:
    assert refused("check", document(text)) == message


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, document: Callable[[str], str]) -> None:
    missing = str(tmp_path / "missing.yaml")
    assert refused("check", missing) == f"{missing}: cannot be read: No such file or directory"
    assert refused("check", str(tmp_path)) == f"{tmp_path}: cannot be read: Is a directory"
    name = document("a: 1\na: 2")
    assert refused("check", name) == f"{name}: line 2, column 1: 'a' is given twice"
    Path(name).write_bytes(b"\xff\xfe")
    assert refused("check", name) == f"{name}: is not UTF-8 text: invalid start byte at byte 0"


def test_the_reference_is_written() -> None:
    assert "\n".join(run("reference")) + "\n" == written_reference()


@pytest.mark.django_db(transaction=True)
def test_a_version_from_file_to_force_and_back(document: Callable[[str], str]) -> None:
    assert run("list") == []
    name = document("exit_manager: {stop_loss: {threshold_pct: 1.50}}\nsymbols: {AAPL: {trade_exit: {mode: atr}}}")
    assert run("draft", name, "--note", "wider") == ["drafted version 1"]
    assert refused("activate", "1") == "version 1 is a draft; validate it first"
    assert run("validate", "1") == ["version 1 is valid and may be activated"]
    assert run("diff", "file", "1") == [
        "exit_manager.stop_loss.threshold_pct: 1 -> 1.5",
        "symbols.AAPL.trade_exit.mode: null -> atr",
    ]
    assert run("diff", "1", "1") == ["no difference"]
    assert run("activate", "1", "--replaces", "file") == ["version 1 is in force"]
    assert run("explain", "exit_manager.stop_loss.threshold_pct", "--symbol", "AAPL") == [
        "exit_manager.stop_loss.threshold_pct = 1.50, from version 1",
        "  default: 1",
        "  version 1: 1.50",
    ]
    assert run("show", "--symbol", "AAPL")[0] == "exit_manager.profit_taking.enabled = true  (default)"
    assert "trade_exit.mode = atr  (version 1, symbol AAPL)" in run("show", "--symbol", "AAPL")
    shown: Any = json.loads("\n".join(run("show", "--json")))
    assert shown["exit_manager"]["stop_loss"] == {
        "enabled": True, "order_type": "market", "time_in_force": None, "threshold_pct": "1.50",
    }  # fmt: skip
    run("draft", document("{}"))
    run("validate", "2")
    assert refused("activate", "2", "--replaces", "file") == (
        "version 1, activated by command line, is in force, not no version; look at what differs and decide again"
    )
    run("activate", "2")
    assert run("rollback") == ["version 1 is in force again"]
    first, second = PolicyVersion.objects.order_by("number")
    assert run("list") == [
        f"1  active  {first.created_at:%Y-%m-%d %H:%M} UTC by command line, activated "
        f"{first.activated_at:%Y-%m-%d %H:%M} UTC by command line  wider",
        f"2  superseded  {second.created_at:%Y-%m-%d %H:%M} UTC by command line, activated "
        f"{second.activated_at:%Y-%m-%d %H:%M} UTC by command line",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_version_and_the_open_positions(document: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exitmgr.brackets.ring", lambda *_args, **_options: True)
    f.set_quote("98")
    position = f.hold(account=f.make_account(name="paper"), plan={"stop_loss": {"pct": "5"}})
    Bracket.objects.update(from_policy=True)
    run("draft", document("exit_manager: {profit_taking: {enabled: false}}"))
    run("validate", "1")
    assert run("preview", "1") == [
        f"position {position.pk} AAPL (paper): stop 95 -> 99, targets none -> none; would sell at once: stop_loss",
        "1 of 1 open positions with a plan from the configuration would change",
    ]
    run("activate", "1")
    assert run("reapply") == [
        f"position {position.pk}: it would leave the position at once (stop_loss); confirm it if that is meant",
        "changed 0 of 1",
    ]
    assert run("reapply", "--confirm", "--bracket", str(Bracket.objects.get().pk)) == [
        f"position {position.pk}: changed",
        "changed 1 of 1",
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("_case", "arguments", "message"),
    [
        ("no version yet", ["activate", "3"], "there is no configuration version 3; there is none yet; draft one"),
        ("nothing to roll back", ["rollback"], "no version is in force, so there is nothing to roll back from"),
        ("a key nobody knows", ["explain", "exit_manager.stops"],
         "exit_manager.stops: is unknown; did you mean stop_loss? known here: profit_taking, stop_loss, "
         "exit_cooldown_seconds, retry_attempts, retry_delay_seconds, max_slippage_bps, retry_slippage_bps, "
         "resubmit_delay_seconds, max_resubmit_attempts, limit_exit, price_source, prices, risk, adopt"),
        ("no number", ["diff", "file", "one"], "must be the number of a version, or file; got 'one'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(_case: str, arguments: list[str], message: str) -> None:
    assert refused(*arguments) == message


@pytest.mark.django_db
def test_a_wrong_draft_is_refused_when_it_is_read(document: Callable[[str], str]) -> None:
    name = document("exit_manager: {retry_attempts: 0}")
    assert refused("draft", name) == "exit_manager.retry_attempts: must be a whole number from 1 to 20; got 0"
    assert PolicyVersion.objects.count() == 0


_ALONE = """
import sys
from exitmgr.policy.check import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.split(".")[0] in ("django", "psycopg", "redis", "celery")]
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("_case", "text", "code", "out", "err"),
    [
        ("valid", "exit_manager: {retry_attempts: 4}", 0, "{name} is valid\n", ""),
        ("wrong", "exit_manager: {retry_attempts: 0}", 2, "",
         "error: exit_manager.retry_attempts: must be a whole number from 1 to 20; got 0\n"),
        ("what does not fit", "trade_exit: {risk_reward: {max_ratio: 0.5}}", 2, "",
         "error: trade_exit.risk_reward.min_ratio: must not be above max_ratio (0.5); got 1\n"),
    ],
)  # fmt: skip
def test_a_file_is_checked_where_nothing_runs(
    _case: str, text: str, code: int, out: str, err: str, document: Callable[[str], str]
) -> None:
    name = document(text)
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, name],
        env={"PATH": "/usr/bin:/bin"}, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (code, out.format(name=name), err)


def test_the_file_that_comes_with_it_is_checked_where_nothing_runs() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE],
        env={"PATH": "/usr/bin:/bin"}, cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{root}/config/trading.yaml is valid\n", "")
