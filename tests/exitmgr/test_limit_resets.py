"""A breach ends by a person, through the function or the command."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from alerts.models import Alert, Event
from exitmgr.safety import ResetRefused, reset_limits, watch_limits
from positions.models import Account
from tests import factories as f
from tests.exitmgr.losses import NOON, watch_of, watched

D = Decimal
pytestmark = pytest.mark.django_db


def test_a_reset_gives_back_what_the_breach_took_and_measures_from_now():
    account, _ = watched(max_daily_loss=D(100), max_drawdown=D(300), loss_action="reduce_only")
    f.set_quote("90")
    watch_limits(now=NOON)
    later = NOON + timedelta(hours=1)
    f.set_quote("85")
    watch = reset_limits(account_id=account.pk, now=later, actor="ann", note="wrong figures at the venue")
    assert (watch.hit_at, watch.reason, watch.since) == (None, "", later)
    assert (watch.day_start_pnl, watch.best_pnl) == (D(-150), D(-150))
    assert f.read_again(account).trading_state == "active"
    told = Event.objects.get(kind="loss_limits_reset")
    assert (told.actor, told.data["note"], told.data["before"]["reason"]) == (
        "ann", "wrong figures at the venue", "daily_loss",
    )  # fmt: skip
    assert Alert.objects.get().resolved_at == later
    f.set_quote("75.001")
    assert watch_limits(now=later) == 0
    assert watch_of(account).hit_at is None
    f.set_quote("75")
    watch_limits(now=later)
    assert watch_of(account).hit_at == later
    assert Alert.objects.filter(resolved_at=None).count() == 1


@pytest.mark.parametrize(
    ("_case", "before", "meanwhile", "after"),
    [
        ("what the breach took", "active", None, "active"),
        ("a person had reduced it before", "reduce_only", None, "reduce_only"),
        ("a person has halted it since", "active", "halted", "halted"),
        ("it was halted all along", "halted", None, "halted"),
    ],
)
def test_a_reset_loosens_nothing_a_person_has_tightened(_case, before, meanwhile, after):
    account, _ = watched(max_daily_loss=D(100), loss_action="reduce_only")
    Account.objects.filter(pk=account.pk).update(trading_state=before)
    f.set_quote("90")
    watch_limits(now=NOON)
    if meanwhile:
        Account.objects.filter(pk=account.pk).update(trading_state=meanwhile)
    reset_limits(account_id=account.pk, now=NOON, actor="ann", note="n")
    assert f.read_again(account).trading_state == after


def test_a_reset_that_makes_no_sense_is_refused():
    account = f.make_account()
    with pytest.raises(ResetRefused, match="has no loss limit"):
        reset_limits(account_id=account.pk, now=NOON, actor="ann", note="n")
    hit, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    watch_limits(now=NOON)
    with pytest.raises(ResetRefused, match="say why"):
        reset_limits(account_id=hit.pk, now=NOON, actor="ann", note="  ")
    assert watch_of(hit).hit_at == NOON
    assert not Event.objects.filter(kind="loss_limits_reset").exists()


def run(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("limits", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_the_command_shows_and_resets():
    watched(max_daily_loss=D(100), name="desk", loss_action="reduce_only")
    f.set_quote("90")
    watch_limits(now=NOON)
    assert run("show", "desk") == [
        "desk: reduce_only, daily loss limit 100, drawdown limit none, then reduce_only",
        "  P&L -100 at 2026-03-02 12:00:00 UTC, 0 when 2026-03-02 began, best none",
        "  HIT daily_loss at 2026-03-02 12:00:00 UTC, action reduce_only; not reset yet",
    ]
    assert run("reset", "desk", "--note", "understood") == ["desk is active; losses are measured from a P&L of -100 on"]
    assert len(run("show")) == 2


@pytest.mark.parametrize(
    ("_case", "arguments", "told"),
    [
        ("an account nobody knows", ("reset", "nobody", "--note", "n"), "there is no account 'nobody'; known are desk"),
        ("nothing to reset", ("reset", "desk", "--note", "n"), "has no loss limit"),
        ("show of an unknown account", ("show", "nobody"), "there is no account 'nobody'"),
    ],
)
def test_mistakes_at_the_command_end_with_one_line_and_code_two(_case, arguments, told):
    f.make_account(name="desk")
    with pytest.raises(CommandError, match=told) as refused:
        run(*arguments)
    assert refused.value.returncode == 2
