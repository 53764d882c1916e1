"""Several who look at the same losses at the same moment: one breach, one exit a position, nothing left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import pytest
from django.db import connection, transaction

from alerts.models import Alert, Event
from exitmgr import safety
from exitmgr.safety import reset_limits, watch_limits
from orders.models import Order
from positions.models import Account, LossWatch, Position
from tests import factories as f
from tests.exitmgr.losses import NEXT_DAY, NOON, exits_of, watch_of, watched
from tests.positions.sessions import in_thread, somebody_waits_for_us
from tests.races.crowd import at_once

D = Decimal
pytestmark = pytest.mark.django_db(transaction=True)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait a second at most, then fail."""
    for _ in range(100):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_four_lookers_latch_one_breach_and_make_one_exit_a_position():
    account = f.make_account(max_daily_loss=D(200), max_drawdown=D(200), loss_action="flatten")
    f.set_quote("100", "100")
    for _ in range(20):
        f.hold(account=account)
    at_once(*[partial(watch_limits, now=f.utc_now()) for _ in range(4)])
    assert LossWatch.objects.count() == 1
    f.set_quote("99")
    ends = at_once(*[partial(watch_limits, now=f.utc_now()) for _ in range(4)])
    assert not [end for end in ends if isinstance(end, Exception)], ends
    watch_limits(now=f.utc_now())
    assert sorted(Order.objects.values_list("position_id", flat=True)) == sorted(
        Position.objects.values_list("pk", flat=True)
    )
    assert set(Order.objects.values_list("reason", "quantity")) == {("daily_loss", D(10))}
    assert Event.objects.filter(kind="loss_limit_hit").count() == 1
    assert Alert.objects.get().count == 1


def test_entries_that_come_with_the_breach_are_refused_or_called_off():
    account = f.make_account(max_daily_loss=D(100), loss_action="reduce_only")
    f.set_quote("100", "100")
    f.hold(account=account)
    watch_limits(now=f.utc_now())
    f.set_quote("90")
    enter = [partial(f.entry_order, account=account, limit="50") for _ in range(4)]
    at_once(partial(watch_limits, now=f.utc_now()), *enter)
    watch_limits(now=f.utc_now())
    assert f.read_again(account).trading_state == "reduce_only"
    assert set(Order.objects.values_list("state", flat=True)) <= {"cancelled"}


def test_a_new_session_finds_the_latch():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    watch_limits(now=NOON)
    connection.close()
    f.set_quote("100", "100")
    assert watch_limits(now=NEXT_DAY) == 0
    assert (watch_of(account).reason, f.read_again(account).trading_state) == ("daily_loss", "reduce_only")
    assert len(exits_of(account)) == 1


def test_a_second_looker_passes_by_while_the_first_is_at_it():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    ends = []
    with transaction.atomic():
        LossWatch.objects.select_for_update().get(pk=account.pk)
        looker = in_thread(lambda: ends.append(watch_limits(now=NOON)))
        looker.join(timeout=20)
        assert ends == [0]
        assert not Order.objects.exists()
        assert not Alert.objects.exists()  # nor did it wait until the database lost patience
    assert watch_limits(now=NOON) == 1


def test_a_looker_that_read_before_the_breach_was_latched_latches_it_no_second_time():
    account, _ = watched(max_daily_loss=D(100))
    assert [safety._judge(account.pk, pnl=D(-100), now=NOON) for _ in range(2)] == [True, True]
    assert safety._judge(account.pk, pnl=D(50), now=NEXT_DAY) is True
    assert Event.objects.filter(kind="loss_limit_hit").count() == 1
    assert (watch_of(account).pnl, watch_of(account).hit_at) == (D(-100), NOON)


def test_a_limit_raised_while_the_breach_waits_for_the_account_is_the_one_that_counts():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    ends = []
    with transaction.atomic():
        Account.objects.filter(pk=account.pk).update(max_daily_loss=D(101))
        looker = in_thread(lambda: ends.append(watch_limits(now=NOON)))
        wait_until(somebody_waits_for_us)
    looker.join(timeout=20)
    assert ends == [0]
    assert (watch_of(account).hit_at, watch_of(account).pnl) == (None, D(-100))
    assert f.read_again(account).trading_state == "active"


def test_a_reset_waits_for_the_looker_and_ends_what_that_has_just_latched():
    account, _ = watched(max_daily_loss=D(100))
    ends = []
    with transaction.atomic():
        LossWatch.objects.select_for_update().get(pk=account.pk)
        resetting = in_thread(
            lambda: ends.append(reset_limits(account_id=account.pk, now=NOON, actor="ann", note="n").reason)
        )
        wait_until(somebody_waits_for_us)
        LossWatch.objects.filter(pk=account.pk).update(
            hit_at=NOON, reason="daily_loss", action="flatten", state_before="active"
        )
    resetting.join(timeout=20)
    assert ends == [""]
    assert Event.objects.get(kind="loss_limits_reset").data["before"]["reason"] == "daily_loss"
    assert watch_of(account).hit_at is None
