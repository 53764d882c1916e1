"""The kill switch on the database: what is sent, what is called off, what is left, and who said so."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from alerts.models import Alert, Event
from exitmgr.account_models import Flatten
from exitmgr.entries import EntryRefused
from exitmgr.flatten import keep_flattening, request_flatten
from exitmgr.safety import watch_limits
from exitmgr.scans import scan
from exitmgr.switches import (
    SwitchRefused,
    effective_state,
    hold_back_entries,
    is_being_left,
    switch_account,
    switch_all,
)
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.submit import claim
from orders.sync import due_orders
from orders.updates import apply_reports
from positions.models import Account, Position, TradingSwitch
from positions.values import TradingState
from tests import factories as f
from tests.exitmgr.losses import NOON, watched

D = Decimal
ACTIVE, REDUCE, HALTED = TradingState.ACTIVE, TradingState.REDUCE_ONLY, TradingState.HALTED
pytestmark = pytest.mark.django_db


def set_all(state, note="a test"):
    return switch_all(state=state, note=note, now=f.utc_now(), actor="ann")


def set_one(account, state, note="a test"):
    return switch_account(account_id=account.pk, state=state, note=note, now=f.utc_now(), actor="ann")


def flatten(account, *, confirm=None, note="a test"):
    return request_flatten(
        account_id=account.pk if account else None,
        confirm=confirm or (account.name if account else "everything"),
        note=note, now=f.utc_now(), actor="ann",
    )  # fmt: skip


def at_broker(order, state=ReportedState.WORKING, **report):
    Order.objects.filter(pk=order.pk, state="pending").update(state="submitting")
    apply_reports(account_id=order.account_id, reports=[f.report_of(order, state, **report)], now=f.utc_now())


def live_exits(account):
    return list(
        Order.objects.filter(account=account, intent="exit", ended_at=None).order_by("pk").values_list("reason", "lane")
    )


# -- what is sent


@pytest.mark.parametrize(
    ("own", "overall", "sent"),
    [
        (ACTIVE, None, {"entry", "take_profit_1", "stop_loss", "emergency"}),
        (ACTIVE, ACTIVE, {"entry", "take_profit_1", "stop_loss", "emergency"}),
        (ACTIVE, REDUCE, {"take_profit_1", "stop_loss", "emergency"}),
        (REDUCE, ACTIVE, {"take_profit_1", "stop_loss", "emergency"}),
        (ACTIVE, HALTED, {"emergency"}),
        (REDUCE, HALTED, {"emergency"}),
        (HALTED, ACTIVE, {"emergency"}),
    ],
)
def test_the_stricter_switch_is_read_by_the_claim_and_the_sweep(own, overall, sent):
    account = f.make_account()
    wanted = {f.entry_order(account=account, symbol="IBM").pk: "entry"}
    for reason in ("take_profit_1", "stop_loss", "emergency"):
        wanted[f.exit_order(f.hold(account=account), reason=reason).pk] = reason
    Account.objects.update(trading_state=own)
    if overall is not None:
        TradingSwitch.objects.create(state=overall)
    assert {wanted[pk] for pk, _ in due_orders(now=f.utc_now())} == sent
    assert {wanted[one.order_id] for one in claim(order_ids=list(wanted), worker="w")} == sent
    assert effective_state(account.pk) == max((own, overall or ACTIVE), key=[ACTIVE, REDUCE, HALTED].index)


def test_what_a_switch_held_back_goes_out_when_it_is_set_back():
    order = f.exit_order(f.hold())
    set_all(HALTED)
    assert claim(order_ids=[order.pk], worker="w") == []
    set_all(ACTIVE)
    assert [one.order_id for one in claim(order_ids=[order.pk], worker="w")] == [order.pk]


@pytest.mark.parametrize(
    ("_case", "exit_of", "fields", "sent"),
    [
        ("an exit of the symbol is live", "AAPL", {}, False),
        ("of another symbol", "IBM", {}, True),
        ("of another account", "other account", {}, True),
        ("protection that only rests", "AAPL", {"resting": True}, True),
        ("an exit that has ended", "AAPL", {"state": "cancelled", "reserved": 0}, True),
    ],
)
def test_an_exit_goes_before_an_entry_in_its_symbol(_case, exit_of, fields, sent):
    account = f.make_account()
    order = f.entry_order(account=account)
    held = (
        f.hold(account=None, symbol="AAPL") if exit_of == "other account" else f.hold(account=account, symbol=exit_of)
    )
    leaving = f.exit_order(held)
    ended = {"ended_at": f.utc_now()} if "state" in fields else {}
    Order.objects.filter(pk=leaving.pk).update(**fields, **ended)
    assert [one.order_id for one in claim(order_ids=[order.pk], worker="w")] == ([order.pk] if sent else [])
    if not sent:
        assert hold_back_entries(now=f.utc_now()) == 1
        assert f.read_again(order).state == "cancelled"
        assert f.read_again(leaving).state == "pending"


# -- what people say


def test_a_switch_is_journalled_with_who_why_and_what_was_before():
    account = f.make_account(name="swing")
    set_one(account, HALTED, " prices are wrong ")
    set_all(REDUCE, "exchange trouble")
    told = list(Event.objects.order_by("pk").values_list("kind", "actor", "account_ref", "data"))
    assert told == [
        (
            "account_switched", "ann", account.pk,
            {"before": {"trading_state": "active"}, "after": {"trading_state": "halted"}, "note": "prices are wrong"},
        ),
        (
            "all_accounts_switched", "ann", None,
            {"before": {"trading_state": "active"}, "after": {"trading_state": "reduce_only"}, "note": "exchange trouble"},
        ),
    ]  # fmt: skip
    switch = TradingSwitch.objects.get()
    assert (switch.state, switch.note, switch.set_by) == ("reduce_only", "exchange trouble", "ann")
    stopped = Alert.objects.filter(kind="trading_stopped", resolved_at=None).order_by("pk")
    assert list(stopped.values_list("severity", "account_ref")) == [("critical", account.pk), ("warning", None)]
    set_one(account, ACTIVE)
    set_all(ACTIVE)
    assert not stopped.exists()


@pytest.mark.parametrize("note", ["", "  "])
def test_without_a_reason_nothing_is_switched(note):
    account = f.make_account()
    for verb in (
        lambda: set_one(account, HALTED, note),
        lambda: set_all(HALTED, note),
        lambda: flatten(account, note=note),
    ):
        with pytest.raises(SwitchRefused, match="say why"):
            verb()
    assert f.read_again(account).trading_state == "active"
    assert (TradingSwitch.objects.count(), Flatten.objects.count(), Event.objects.count()) == (0, 0, 0)


def test_a_loss_limit_that_was_hit_is_not_gone_round():
    account, _ = watched(max_daily_loss=D(100), loss_action="reduce_only")
    f.set_quote("90")
    watch_limits(now=NOON)
    with pytest.raises(SwitchRefused, match=r"has hit its daily_loss limit; `manage.py limits reset"):
        set_one(account, ACTIVE)
    assert f.read_again(account).trading_state == "reduce_only"
    set_one(account, HALTED)
    assert f.read_again(account).trading_state == "halted"


def test_all_accounts_stopped_take_no_entry():
    f.make_instrument()
    set_all(REDUCE)
    with pytest.raises(EntryRefused, match="all accounts are reduce_only"):
        f.entry_order()
    assert Order.objects.count() == 0


@pytest.mark.parametrize("whose", ["own", "all"])
@pytest.mark.parametrize("state", [REDUCE, HALTED])
def test_entries_on_their_way_are_called_off_and_exits_are_not(whose, state):
    account, other = f.make_account(), f.make_account()
    unsent, working, theirs = (f.entry_order(account=one, symbol="IBM") for one in (account, account, other))
    at_broker(working)
    stop = f.exit_order(f.hold(account=account))
    if whose == "own":
        set_one(account, state)
    else:
        set_all(state)
    scan(now=f.utc_now(), everything=True)
    assert [f.read_again(one).state for one in (unsent, working, stop)] == ["cancelled", "cancel_requested", "pending"]
    assert f.read_again(theirs).state == ("pending" if whose == "own" else "cancelled")
    assert hold_back_entries(now=f.utc_now()) == 0


def test_while_all_is_well_holding_back_costs_three_queries(django_assert_num_queries):
    f.exit_order(f.hold())
    with django_assert_num_queries(3):
        assert hold_back_entries(now=f.utc_now()) == 0


@pytest.mark.parametrize("whose", ["own", "all"])
def test_a_loss_limit_does_nothing_while_halted_and_everything_after(whose):
    account, _ = watched(max_daily_loss=D(100))
    if whose == "own":
        set_one(account, HALTED)
    else:
        set_all(HALTED)
    f.set_quote("90")
    assert watch_limits(now=NOON) == 0
    assert live_exits(account) == []
    if whose == "own":
        set_one(account, REDUCE)
    else:
        set_all(ACTIVE)
    assert watch_limits(now=NOON + timedelta(seconds=1)) == 1
    assert live_exits(account) == [("daily_loss", "emergency")]


# -- leaving everything


def test_an_account_is_left_until_nothing_is_held_and_takes_no_entries():
    account, other = f.make_account(), f.make_account()
    f.set_quote("100")
    position, spared = f.hold(account=account), f.hold(account=other)
    entry = f.entry_order(account=account, symbol="IBM")
    wish = flatten(account, note="news")
    assert f.read_again(account).trading_state == "reduce_only"
    assert flatten(account).pk == wish.pk, "asked for twice it is one wish"
    scan(now=f.utc_now(), everything=True)
    order = Order.objects.get(position=position)
    assert (order.reason, order.lane, order.quantity) == ("emergency", "emergency", D(10))
    assert order.priced_from["flatten"]["note"] == "news"
    assert f.read_again(entry).state == "cancelled"
    assert not Order.objects.filter(position=spared).exists()
    assert keep_flattening(now=f.utc_now()) == 0
    assert f.read_again(wish).ended_at is None
    at_broker(order, ReportedState.FILLED, executions=[f.fill_of("10", "90")])
    keep_flattening(now=f.utc_now())
    wish = f.read_again(wish)
    assert (wish.ended_at is not None, wish.ended_why) == (True, "nothing is held any more")
    assert f.read_again(account).trading_state == "reduce_only"
    assert list(Event.objects.filter(kind__startswith="flatten").order_by("pk").values_list("kind", flat=True)) == [
        "flatten_requested", "flatten_done",
    ]  # fmt: skip
    assert not Alert.objects.filter(kind="flatten", resolved_at=None).exists()


def test_everything_is_left_in_all_accounts_halted_ones_too():
    accounts = [f.make_account(), f.make_account(trading_state=HALTED)]
    f.set_quote("100")
    for account in accounts:
        f.hold(account=account)
    waiting = f.exit_order(f.hold(account=accounts[1]))
    flatten(None)
    assert TradingSwitch.objects.get().state == "reduce_only"
    scan(now=f.utc_now(), everything=True)
    assert f.read_again(waiting).state == "cancelled", "a halt keeps it from leaving, so it gives its quantity back"
    scan(now=f.utc_now(), everything=True)
    assert [live_exits(account) for account in accounts] == [
        [("emergency", "emergency")],
        [("emergency", "emergency")] * 2,
    ]
    ids = list(Order.objects.filter(lane="emergency").values_list("pk", flat=True))
    assert len(claim(order_ids=ids, worker="w")) == 3


@pytest.mark.parametrize(("everything", "confirm"), [(False, "papre"), (False, "everything"), (True, "yes")])
def test_what_is_not_confirmed_is_not_done(everything, confirm):
    account = f.make_account(name="swing")
    f.hold(account=account)
    with pytest.raises(SwitchRefused, match=r"confirm must be '(swing|everything)', typed out"):
        flatten(None if everything else account, confirm=confirm)
    assert (Flatten.objects.count(), Order.objects.count()) == (0, 0)
    assert f.read_again(account).trading_state == "active"


def test_a_crash_between_batches_is_taken_up(monkeypatch):
    account = f.make_account()
    f.set_quote("98")
    for _ in range(3):
        f.hold(account=account)
    flatten(account)
    monkeypatch.setattr("exitmgr.flatten.POSITIONS_AT_ONCE", 2)

    class Killed(BaseException):
        pass

    def killed():
        raise Killed

    with pytest.raises(Killed):
        keep_flattening(now=f.utc_now(), after_batch=killed)
    assert len(live_exits(account)) == 2
    assert keep_flattening(now=f.utc_now()) == 1
    assert set(Position.objects.values_list("reserved", flat=True)) == {D(10)}


def test_an_account_that_cannot_be_left_calls_a_person_and_does_not_hold_up_the_others(monkeypatch):
    bad, good = f.make_account(), f.make_account()
    f.hold(account=bad)
    f.hold(account=good)
    flatten(None)
    from exitmgr import flatten as module

    real = module.leave_some

    def broken(account_id, **how):
        if account_id == bad.pk:
            raise RuntimeError("broken row")
        return real(account_id, **how)

    monkeypatch.setattr(module, "leave_some", broken)
    assert keep_flattening(now=f.utc_now()) == 1
    assert live_exits(good) == [("emergency", "emergency")]
    assert Alert.objects.get(kind="flatten_failed").account_ref == bad.pk


def test_setting_the_switch_back_ends_the_wish():
    account = f.make_account()
    f.hold(account=account)
    wish = flatten(account)
    set_one(account, ACTIVE)
    assert f.read_again(wish).ended_why == "ann set the account back to active"
    assert keep_flattening(now=f.utc_now()) == 0
    assert Order.objects.count() == 0


def test_what_a_late_fill_brings_is_left_too():
    account = f.make_account()
    f.hold(account=account)
    flatten(account)
    assert keep_flattening(now=f.utc_now()) == 1
    f.hold(account=account)
    assert keep_flattening(now=f.utc_now()) == 1


def test_the_database_refuses_a_second_wish_and_one_without_a_reason():
    account = f.make_account()
    now = f.utc_now()
    for whose in (account, None):
        Flatten.objects.create(account=whose, note="n", asked_by="a", asked_at=now)
        with pytest.raises(IntegrityError, match="flatten_open_once"), transaction.atomic():
            Flatten.objects.create(account=whose, note="n", asked_by="a", asked_at=now)
    with pytest.raises(IntegrityError, match="flatten_has_a_reason"), transaction.atomic():
        Flatten.objects.create(account=f.make_account(), note="", asked_by="a", asked_at=now)
    assert Flatten.objects.count() == 2


@pytest.mark.parametrize(
    ("_case", "left"), [("nobody", False), ("its own", True), ("everything", True), ("another account", False)]
)
def test_who_is_being_left_is_known_so_that_nothing_rests_there(_case, left):
    account, other = f.make_account(), f.make_account()
    wish = {"its own": account, "everything": None, "another account": other}
    if _case in wish:
        flatten(wish[_case])
    assert is_being_left(account.pk) is left
    if left:
        set_one(account, ACTIVE)
        set_all(ACTIVE)
        assert not is_being_left(account.pk)


@pytest.mark.parametrize(("action", "left"), [("flatten", True), ("reduce_only", False)])
def test_a_loss_limit_that_flattens_leaves_its_account(action, left):
    account, _ = watched(max_daily_loss=D(100), loss_action=action)
    assert not is_being_left(account.pk)
    f.set_quote("90")
    watch_limits(now=NOON)
    assert is_being_left(account.pk) is left
