"""Loss limits on the database: hit exactly, latched, acted on once for each position, reset by a person."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from exitmgr import safety
from exitmgr.entries import EntryRefused
from exitmgr.exits import make_exits
from exitmgr.safety import watch_limits
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.account_pnl import pnl_of_accounts
from positions.models import Account, LossWatch, Position
from positions.values import Side
from tests import factories as f
from tests.exitmgr.losses import NEXT_DAY, NOON, exits_of, watch_of, watched

D = Decimal
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("_case", "limits", "bid", "reason"),
    [
        ("a cent within the daily loss", {"max_daily_loss": D(100)}, "90.001", None),
        ("exactly at the daily loss", {"max_daily_loss": D(100)}, "90", "daily_loss"),
        ("exactly at the drawdown", {"max_drawdown": D(100)}, "90", "drawdown"),
        ("both: the daily loss", {"max_daily_loss": D(100), "max_drawdown": D(100)}, "90", "daily_loss"),
        ("only the tighter one", {"max_daily_loss": D(101), "max_drawdown": D(100)}, "90", "drawdown"),
    ],
)
def test_a_limit_is_hit_exactly_and_everything_leaves(_case, limits, bid, reason):
    account, position = watched(**limits)
    f.set_quote(bid)
    assert watch_limits(now=NOON) == (1 if reason else 0)
    account.refresh_from_db()
    if reason is None:
        assert (account.trading_state, watch_of(account).hit_at) == ("active", None)
        assert exits_of(account) == []
        assert not Alert.objects.exists()
        return
    assert (account.trading_state, watch_of(account).reason, watch_of(account).hit_at) == ("reduce_only", reason, NOON)
    assert exits_of(account) == [(reason, D(10), "emergency", "pending")]
    order = Order.objects.get(position=position)
    assert (order.expected_price, order.priced_from["loss_limit"]["pnl"]) == (D(bid), "-100")
    assert f.read_again(position).reserved == 10
    told = Event.objects.get(kind="loss_limit_hit")
    assert (told.account_ref, told.data["reason"], told.data["loss"]) == (account.pk, reason, "100")
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("loss_limit_hit", "critical", True)


def test_looking_again_does_nothing_twice():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    assert [watch_limits(now=NOON + timedelta(seconds=n)) for n in range(3)] == [1, 0, 0]
    assert len(exits_of(account)) == 1
    assert Event.objects.filter(kind="loss_limit_hit").count() == 1
    assert Alert.objects.get().count == 1


def test_without_a_limit_anywhere_it_is_one_query(django_assert_num_queries):
    f.hold(account=f.make_account())
    with django_assert_num_queries(1):
        assert watch_limits(now=NOON) == 0


def test_realised_and_unrealised_count_together_for_longs_and_shorts():
    account, position = watched(max_daily_loss=D(1000))
    order = f.exit_order(position, fraction_pct="40", expected="95")
    fill = f.fill_of("4", "95", fee="1.5")
    apply_reports(
        account_id=account.pk,
        reports=[f.report_of(order, ReportedState.FILLED, executions=[fill])],
        now=f.utc_now(),
    )
    f.set_quote("20", "21", symbol="IBM")
    f.hold(account=account, symbol="IBM", side=Side.SHORT, quantity="3", price="20")
    f.hold(account=account, symbol="NOQUOTE", quantity="3", price="20")
    f.set_quote("90", "91")
    # 4 x -5 - 1.5 of fees realised, 6 x -10 at the bid, 3 x -1 at the ask, and nothing known of the third
    assert pnl_of_accounts([account.pk]) == {account.pk: D("-84.5")}


def test_what_division_rounds_away_does_not_keep_a_loss_from_its_limit():
    account = f.make_account(max_daily_loss=D(90), loss_action="flatten")
    f.set_quote("30", "30")
    position = f.hold(account=account, quantity="3", price="30")
    Position.objects.filter(pk=position.pk).update(entry_cost=D(100), realized_pnl=0)
    LossWatch.objects.create(account=account, since=NOON, pnl=0, noted_at=NOON, day=NOON.date(), day_start_pnl=0)
    order = f.exit_order(position, fraction_pct="34", expected="2")
    fill = f.fill_of("1", "2")
    apply_reports(
        account_id=account.pk,
        reports=[f.report_of(order, ReportedState.FILLED, executions=[fill])],
        now=f.utc_now(),
    )
    f.set_quote("4", "4")
    assert str(Position.objects.get().realized_pnl).startswith("-31.33333")
    assert pnl_of_accounts([account.pk]) == {account.pk: D(-90)}
    assert watch_limits(now=NOON) == 1


def test_reduce_only_takes_no_entries_and_leaves_positions_to_their_plans():
    account, position = watched(max_daily_loss=D(100), loss_action="reduce_only")
    entry = f.entry_order(account=account, limit="50")
    f.set_quote("90")
    assert watch_limits(now=NOON) == 0
    assert exits_of(account) == []
    assert f.read_again(position).reserved == 0
    assert f.read_again(entry).state == "cancelled"
    with pytest.raises(EntryRefused, match="takes no entries until resumed"):
        f.entry_order(account=f.read_again(account), limit="50")


def test_a_working_entry_is_called_off_at_the_broker():
    account, _ = watched(max_daily_loss=D(100))
    entry = f.entry_order(account=account, limit="50")
    Order.objects.filter(pk=entry.pk).update(state="submitting")
    apply_reports(account_id=account.pk, reports=[f.report_of(entry)], now=f.utc_now())
    f.set_quote("90")
    watch_limits(now=NOON)
    assert f.read_again(entry).state == "cancel_requested"


def test_what_a_late_fill_of_an_entry_opens_is_left_too():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    assert watch_limits(now=NOON) == 1
    late = f.hold(account=account)
    assert watch_limits(now=NOON + timedelta(seconds=1)) == 1
    assert Order.objects.get(position=late).reason == "daily_loss"


def test_a_halted_account_stays_halted_and_leaves_nothing_until_it_is_not():
    account, _ = watched(max_daily_loss=D(100))
    Account.objects.filter(pk=account.pk).update(trading_state="halted")
    f.set_quote("90")
    assert watch_limits(now=NOON) == 0
    assert f.read_again(account).trading_state == "halted"
    assert exits_of(account) == []
    assert "NOTHING is left" in Alert.objects.get().message
    Account.objects.filter(pk=account.pk).update(trading_state="active")
    assert watch_limits(now=NOON + timedelta(seconds=1)) == 1
    assert f.read_again(account).trading_state == "reduce_only"


def test_the_latch_holds_against_better_prices_higher_limits_and_a_new_day():
    account, _ = watched(max_daily_loss=D(100), loss_action="reduce_only")
    f.set_quote("90")
    watch_limits(now=NOON)
    f.set_quote("150", "150")
    Account.objects.filter(pk=account.pk).update(trading_state="active", max_daily_loss=None, loss_action="flatten")
    assert watch_limits(now=NEXT_DAY) == 0, "what was to be done when it was hit is what is done"
    assert f.read_again(account).trading_state == "reduce_only"
    watch = watch_of(account)
    assert (watch.hit_at, watch.reason, watch.pnl, watch.day) == (NOON, "daily_loss", D(-100), NOON.date())
    assert Event.objects.get(kind="loss_limit_held").data["after"] == {"trading_state": "reduce_only"}


def test_the_day_begins_at_midnight_with_what_was_noted_last():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("91")
    watch_limits(now=NOON + timedelta(seconds=10))
    f.set_quote("90.1")
    assert watch_limits(now=NEXT_DAY) == 0
    watch = watch_of(account)
    assert (watch.day, watch.day_start_pnl, watch.pnl) == (date(2026, 3, 3), D(-90), D(-99))
    f.set_quote("81.001")
    assert watch_limits(now=NEXT_DAY + timedelta(hours=1)) == 0
    f.set_quote("81")
    assert watch_limits(now=NEXT_DAY + timedelta(hours=1)) == 1


def test_a_new_best_is_noted_at_once_and_raises_what_the_drawdown_is_measured_from():
    account, _ = watched(max_drawdown=D(100))
    f.set_quote("120", "120")
    watch_limits(now=NOON + timedelta(seconds=1))
    assert watch_of(account).best_pnl == 200
    f.set_quote("110")
    assert watch_limits(now=NEXT_DAY) == 1
    assert exits_of(account) == [("drawdown", D(10), "emergency", "pending")]


def test_the_pnl_in_between_is_written_every_ten_seconds(django_assert_num_queries):
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("99")
    with django_assert_num_queries(2):
        watch_limits(now=NOON + timedelta(seconds=9))
    assert watch_of(account).pnl == 0
    watch_limits(now=NOON + timedelta(seconds=10))
    assert watch_of(account).pnl == -10


def test_a_working_target_is_called_off_and_what_it_frees_leaves():
    account, position = watched(max_daily_loss=D(100))
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="60", expected="102")
    Order.objects.filter(pk=target.pk).update(state="submitting", order_type="limit", limit_price=D(102))
    apply_reports(account_id=account.pk, reports=[f.report_of(target)], now=f.utc_now())
    f.set_quote("90")
    assert watch_limits(now=NOON) == 1
    assert exits_of(account, reason="daily_loss") == [("daily_loss", D(4), "emergency", "pending")]
    assert f.read_again(target).state == "cancel_requested"
    assert watch_limits(now=NOON) == 0
    first = Order.objects.get(reason="daily_loss")
    target = f.read_again(target)
    apply_reports(
        account_id=account.pk,
        reports=[
            f.report_of(first, ReportedState.FILLED, executions=[f.fill_of("4", "90")]),
            f.report_of(target, ReportedState.CANCELLED, executions=[f.fill_of("1", "102")]),
        ],
        now=f.utc_now(),
    )
    assert watch_limits(now=NOON) == 1
    assert exits_of(account, reason="daily_loss", state="pending") == [("daily_loss", D(5), "emergency", "pending")]
    assert f.read_again(position).reserved == 5


def test_an_exit_at_the_market_is_left_alone_and_the_rest_leaves_beside_it():
    account, position = watched(max_daily_loss=D(100))
    stop = f.exit_order(position, fraction_pct="60")
    f.set_quote("90")
    assert watch_limits(now=NOON) == 1
    assert f.read_again(stop).state == "pending"
    assert exits_of(account) == [
        ("stop_loss", D(6), "stop_loss", "pending"),
        ("daily_loss", D(4), "emergency", "pending"),
    ]


def test_a_crash_between_batches_is_taken_up_by_the_next_look(monkeypatch):
    account, _ = watched(max_daily_loss=D(100))
    for _ in range(4):
        f.hold(account=account)
    f.set_quote("98")
    monkeypatch.setattr("exitmgr.flatten.POSITIONS_AT_ONCE", 2)
    batches = []

    def fail_in_the_second(*arguments, **options):
        batches.append(1)
        if len(batches) == 2:
            raise RuntimeError("killed")
        return make_exits(*arguments, **options)

    with monkeypatch.context() as broken:
        broken.setattr("exitmgr.flatten.make_exits", fail_in_the_second)
        assert watch_limits(now=NOON) == 0
    assert len(exits_of(account)) == 2
    assert watch_of(account).hit_at == NOON
    assert Alert.objects.filter(kind="loss_limits_not_watched").count() == 1
    signs = []
    assert watch_limits(now=NOON + timedelta(seconds=1), after_batch=lambda: signs.append(1)) == 3
    assert signs == [1]
    assert sorted(Order.objects.values_list("position_id", flat=True)) == sorted(
        Position.objects.values_list("pk", flat=True)
    )
    assert set(Position.objects.values_list("reserved", flat=True)) == {D(10)}


def test_a_failed_exit_is_tried_again_after_a_minute_not_each_second():
    account, _ = watched(max_daily_loss=D(100))
    f.set_quote("90")
    now = f.utc_now()
    watch_limits(now=now)
    order = Order.objects.get()
    Order.objects.filter(pk=order.pk).update(state="submitting")
    apply_reports(account_id=account.pk, reports=[f.report_of(f.read_again(order), ReportedState.REJECTED)], now=now)
    assert f.read_again(order).state == "rejected"
    assert watch_limits(now=now + timedelta(seconds=59)) == 0
    assert watch_limits(now=now + timedelta(seconds=61)) == 1


def test_other_accounts_go_on():
    watched(max_daily_loss=D(100))
    others = [f.make_account(max_daily_loss=D(500), loss_action="flatten"), f.make_account()]
    held = [f.hold(account=other) for other in others]
    f.set_quote("90")
    assert watch_limits(now=NOON) == 1
    assert [f.read_again(other).trading_state for other in others] == ["active", "active"]
    assert not Order.objects.filter(position__in=held).exists()
    assert watch_of(others[0]).hit_at is None
    assert not LossWatch.objects.filter(account=others[1]).exists()
    f.entry_order(account=others[0], limit="50")


def test_an_account_that_cannot_be_looked_at_calls_a_person_and_does_not_hold_up_the_others(monkeypatch):
    bad, _ = watched(max_daily_loss=D(100))
    good = f.make_account(max_daily_loss=D(90), loss_action="flatten")
    f.hold(account=good)
    watch_limits(now=NOON)
    f.set_quote("90")
    real = safety._judge

    def judge(account_id, **options):
        if account_id == bad.pk:
            raise RuntimeError("broken row")
        return real(account_id, **options)

    monkeypatch.setattr(safety, "_judge", judge)
    assert watch_limits(now=NOON) == 1
    assert len(exits_of(good)) == 1
    assert Alert.objects.get(kind="loss_limits_not_watched").account_ref == bad.pk


def test_taking_the_limit_away_ends_the_watch_and_a_new_one_starts_from_then():
    account, _ = watched(max_drawdown=D(100), loss_action="flatten")
    f.set_quote("95")
    watch_limits(now=NOON)
    Account.objects.filter(pk=account.pk).update(max_drawdown=None)
    watch_limits(now=NOON)
    assert not LossWatch.objects.exists()
    f.set_quote("80")
    Account.objects.filter(pk=account.pk).update(max_drawdown=D(100))
    assert watch_limits(now=NEXT_DAY) == 0
    assert (watch_of(account).best_pnl, watch_of(account).hit_at) == (D(-200), None)


def test_closed_positions_are_settled_once_and_the_pnl_stays_the_same():
    account, position = watched(max_daily_loss=D(1000))
    order = f.exit_order(position)
    apply_reports(
        account_id=account.pk,
        reports=[f.report_of(order, ReportedState.FILLED, executions=[f.fill_of("10", "95")])],
        now=f.utc_now(),
    )
    soon = f.utc_now()
    watch_limits(now=soon)
    assert (watch_of(account).pnl, watch_of(account).settled_pnl, f.read_again(position).settled) == (D(-50), 0, False)
    for hours in (2, 3):
        watch_limits(now=soon + timedelta(hours=hours))
        watch = watch_of(account)
        assert (watch.pnl, watch.settled_pnl, f.read_again(position).settled) == (D(-50), D(-50), True)
    assert pnl_of_accounts([account.pk]) == {account.pk: D(-50)}
    Account.objects.filter(pk=account.pk).update(max_daily_loss=None)
    watch_limits(now=soon)
    Account.objects.filter(pk=account.pk).update(max_daily_loss=D(1000))
    watch_limits(now=soon)
    assert watch_of(account).pnl == -50, "a watch that begins again still knows what was settled"
