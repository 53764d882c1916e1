"""What is in force: changes are seen within a second, mistakes change nothing and are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from alerts.models import Alert
from exitmgr.models import PolicyVersion
from exitmgr.policy import versions
from exitmgr.policy.current import LOOK_AGAIN_SECONDS, forget, in_force, look_again, policy_for
from exitmgr.policy.schema import Policy
from exitmgr.states import PolicyStatus
from tests.factories import utc_now

D = Decimal

Write = Callable[[str], None]

pytestmark = pytest.mark.django_db(transaction=True)


def stop(**who: Any) -> D:
    return policy_for(account="", symbol="", now=utc_now(), **who).exit_manager.stop_loss.threshold_pct


def file_with(pct: str) -> str:
    return f"exit_manager:\n  stop_loss:\n    threshold_pct: {pct}\n"


def put_into_force(document: dict[str, Any]) -> PolicyVersion:
    number = versions.create_draft(document=document, now=utc_now(), actor="test").number
    versions.validate(number, now=utc_now(), actor="test")
    return versions.activate(number, now=utc_now(), actor="test")


def open_alerts() -> list[tuple[str, str, bool]]:
    return [
        (alert.kind, alert.message, alert.requires_action)
        for alert in Alert.objects.filter(resolved_at__isnull=True).order_by("pk")
    ]


def test_without_any_configuration_the_defaults_hold() -> None:
    assert policy_for(account="paper", symbol="AAPL", now=utc_now()) == Policy()
    assert open_alerts() == []


def test_a_file_that_changes_is_seen(write_file: Write) -> None:
    assert stop() == D(1)
    write_file(file_with("1.5"))
    assert stop() == D("1.5")
    write_file(file_with("1.6"))
    assert stop() == D("1.6")


def test_account_symbol_and_position_have_their_own(write_file: Write) -> None:
    write_file(
        "accounts: {paper: {exit_manager: {stop_loss: {threshold_pct: 2}}}}\n"
        "symbols: {AAPL: {exit_manager: {stop_loss: {threshold_pct: 3}}}}\n"
    )
    own = {"exit_manager": {"stop_loss": {"threshold_pct": "4"}}}
    wrong = {"exit_manager": {"stop_loss": {"threshold_pct": "400"}}}
    asked = [("other", "MSFT", {}), ("paper", "MSFT", {}), ("paper", "AAPL", {}), ("paper", "AAPL", own)]
    found = [policy_for(account=a, symbol=s, overrides=o, now=utc_now()) for a, s, o in asked]
    assert [policy.exit_manager.stop_loss.threshold_pct for policy in found] == [D(1), D(2), D(3), D(4)]
    left_out = policy_for(account="paper", symbol="AAPL", overrides=wrong, now=utc_now())
    assert left_out.exit_manager.stop_loss.threshold_pct == D(3)


@pytest.mark.parametrize(
    ("_case", "text", "message"),
    [
        ("a value", file_with("0"),
         "exit_manager.stop_loss.threshold_pct: must be a number above 0 and at most 99; got 0. Mend"),
        ("a key", "exit_manager: {stop: 1}", "exit_manager.stop: is unknown; did you mean stop_loss? known here: "),
        ("no YAML", "a: [", "trading.yaml: line 1, column 5: "),
        ("what does not fit", "trade_exit: {risk_reward: {min_ratio: 5}}",
         "trade_exit.risk_reward.min_ratio: must not be above max_ratio (3); got 5. Mend"),
    ],
)  # fmt: skip
def test_a_broken_file_changes_nothing_and_is_told_until_it_is_mended(
    _case: str, text: str, message: str, write_file: Write
) -> None:
    write_file(file_with("1.5"))
    assert stop() == D("1.5")
    write_file(text)
    assert stop() == D("1.5")
    ((kind, told, requires_action),) = open_alerts()
    assert (kind, requires_action) == ("policy_file_invalid", True)
    assert message in told
    look_again()
    assert stop() == D("1.5")
    assert Alert.objects.get().count == 1
    write_file(file_with("1.7"))
    assert stop() == D("1.7")
    assert open_alerts() == []


def test_a_start_with_a_broken_file_takes_the_last_good_one(write_file: Write) -> None:
    write_file("exit_manager: {stop_loss: {threshold_pct: 1.5, enabled: true, time_in_force: null}}")
    assert stop() == D("1.5")
    forget()
    write_file(file_with("-1"))
    assert stop() == D("1.5")
    assert [kind for kind, _, _ in open_alerts()] == ["policy_file_invalid"]


def test_a_first_start_with_a_broken_file_takes_the_defaults(write_file: Write) -> None:
    write_file(file_with("-1"))
    assert stop() == D(1)
    assert [kind for kind, _, _ in open_alerts()] == ["policy_file_invalid"]


def test_a_file_that_vanishes_stays_in_force(write_file: Write, trading_yaml: Path) -> None:
    write_file(file_with("1.5"))
    assert stop() == D("1.5")
    trading_yaml.unlink()
    for start in (look_again, forget):
        start()
        assert stop() == D("1.5")
    ((_, told, _),) = open_alerts()
    assert f"{trading_yaml}: cannot be read: No such file or directory" in told


def test_a_wrong_environment_is_told_and_the_last_good_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "EXITMGR_TRADING__EXIT_MANAGER__STOP_LOSS__THRESHOLD_PCT"
    monkeypatch.setenv(name, "1.5")
    assert stop() == D("1.5")
    forget()
    monkeypatch.setenv(name, "much")
    assert stop() == D("1.5")
    ((_, told, _),) = open_alerts()
    assert f"{name}: must be a number above 0 and at most 99; got 'much'" in told


def test_an_alert_whose_transaction_failed_is_raised_by_the_next_look(write_file: Write) -> None:
    write_file(file_with("-1"))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert stop() == D(1)
        raise ZeroDivisionError
    assert open_alerts() == []
    look_again()
    assert stop() == D(1)
    assert [kind for kind, _, _ in open_alerts()] == ["policy_file_invalid"]


def test_a_file_that_contradicts_the_active_version_is_to_blame(write_file: Write) -> None:
    version = put_into_force({"trade_exit": {"risk_reward": {"max_ratio": "2"}}})
    write_file("trade_exit: {risk_reward: {min_ratio: 2.5}}")
    ratio = policy_for(account="", symbol="", now=utc_now()).trade_exit.risk_reward
    assert (ratio.min_ratio, ratio.max_ratio) == (D(1), D(2))
    assert in_force(now=utc_now()).version_id == version.pk
    assert [kind for kind, _, _ in open_alerts()] == ["policy_file_invalid"]
    forget()
    assert policy_for(account="", symbol="", now=utc_now()).trade_exit.risk_reward.max_ratio == D(2)


def test_a_version_that_was_broken_behind_our_back_gives_way_to_the_one_before() -> None:
    put_into_force({"exit_manager": {"stop_loss": {"threshold_pct": "2"}}})
    second = put_into_force({"exit_manager": {"stop_loss": {"threshold_pct": "3"}}})
    assert stop() == D(3)
    PolicyVersion.objects.filter(pk=second.pk).update(document={"exit_manager": {"stops": 1}}, activated_at=utc_now())
    look_again()
    assert stop() == D(3)
    ((kind, told, _),) = open_alerts()
    assert kind == "policy_version_invalid"
    assert told.startswith("exit_manager.stops: is unknown; did you mean stop_loss? known here: ")
    forget()
    assert stop() == D(2)
    put_into_force({"exit_manager": {"stop_loss": {"threshold_pct": "4"}}})
    assert stop() == D(4)
    assert open_alerts() == []


def test_looking_costs_next_to_nothing(django_assert_num_queries: Any) -> None:
    policy_for(account="paper", symbol="AAPL", now=utc_now())
    look_again()
    with django_assert_num_queries(1):
        began = time.perf_counter()
        for _ in range(1_000):
            policy_for(account="paper", symbol="AAPL", now=utc_now())
        assert time.perf_counter() - began < LOOK_AGAIN_SECONDS


def test_what_is_kept_for_a_restart_is_exact(write_file: Write, tmp_path: Path) -> None:
    write_file(file_with("1.10"))
    stop()
    kept = json.loads((tmp_path / "var" / "policy" / "last_good.json").read_text())
    assert kept == {"file": {"exit_manager": {"stop_loss": {"threshold_pct": "1.10"}}}, "environment": {}}


_WATCHER = """
import sys, time
from datetime import UTC, datetime
import django
django.setup()
from exitmgr.policy.current import policy_for
pct = lambda: policy_for(account="", symbol="", now=datetime.now(UTC)).exit_manager.stop_loss.threshold_pct
print(pct(), flush=True)
while str(pct()) != "2.5":
    time.sleep(0.02)
print(time.time(), flush=True)
"""


def test_an_activation_is_seen_by_another_process_within_a_second(tmp_path: Path) -> None:
    to = connection.settings_dict
    url = f"postgresql://{to['USER']}:{to['PASSWORD']}@{to['HOST']}:{to['PORT']}/{to['NAME']}"
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCHER],
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings",
             "EXITMGR_TRADING_FILE": str(tmp_path / "empty.yaml")},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert watcher.stdout is not None
    (tmp_path / "empty.yaml").write_text("")
    try:
        assert watcher.stdout.readline() == "1\n"
        version = put_into_force({"exit_manager": {"stop_loss": {"threshold_pct": "2.5"}}})
        activated = time.time()
        seen = float(watcher.stdout.readline())
    finally:
        watcher.kill()
        watcher.communicate()
    assert version.status == PolicyStatus.ACTIVE
    assert seen - activated < 1.0
