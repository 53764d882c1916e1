"""Frozen positions: nothing fires, people may leave, and a confirmed split puts everything into new terms."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from django.db import transaction

from alerts.models import Alert
from exitmgr.advance import advance
from exitmgr.exits import request_exit
from exitmgr.firing import fire as fire_found
from exitmgr.models import Bracket
from exitmgr.probes import Candidate
from exitmgr.reconcile.freezing import freeze_positions, release_position
from exitmgr.reconcile.splitting import SplitRefused, confirm_split, plan_after
from exitmgr.rules.plan import parse_plan
from exitmgr.safety import watch_limits
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.models import Account, Bar, Position, Quote
from tests import factories as f

D = Decimal
FOUR = Fraction(4)
pytestmark = pytest.mark.django_db


def there(box, quantity, average="100"):
    """Let the broker hold this, with no order."""
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": quantity, "avg_entry_price": average})


def freeze(position):
    """Freeze a position as reconciliation does."""
    freeze_positions([position.pk], why="holding:AAPL looks odd", now=f.utc_now(), actor="test")


def release(position):
    """Release it as a person does."""
    release_position(position_id=position.pk, note="all is well", now=f.utc_now(), actor="test")


def fire():
    """Scan everything and return how many exits were made."""
    return scan(now=f.utc_now(), everything=True).orders


@pytest.mark.parametrize(
    ("_case", "plan"),
    [
        ("level", {"stop_loss": {"pct": "1"}}),
        ("trail", {"trailing": {"pct": "1"}}),
        ("timer", {"time_limit_seconds": 1}),
    ],
)
def test_nothing_of_a_frozen_position_fires_until_it_is_released(_case, plan):
    f.set_quote("100")
    position = f.hold(plan=plan, now=f.utc_now() - timedelta(seconds=0.9))
    freeze(position)
    f.set_quote("90")
    later = f.utc_now() + timedelta(seconds=2)
    assert scan(now=later, everything=True).orders == 0
    release(position)
    assert scan(now=later, everything=True).orders == 1


def test_a_frozen_position_does_not_keep_others_of_its_symbol_from_firing():
    frozen, other = f.hold(), f.hold()
    freeze(frozen)
    f.set_quote("90")
    assert fire() == 1
    assert Order.objects.get().position == other


def test_people_may_leave_a_frozen_position():
    position = f.hold()
    freeze(position)
    assert request_exit(position_id=position.pk, now=f.utc_now(), actor="test").quantity == 10


def test_prices_seen_while_it_was_frozen_are_not_held_against_it():
    f.set_quote("100")
    position = f.hold()
    freeze(position)
    for price in ("90", "90", "100", "100"):
        f.push_price(price)
    release(position)
    assert fire() == 0
    f.push_price("98")
    assert fire() == 1


def test_a_trail_keeps_its_best_price_and_follows_none_that_came_while_it_was_frozen():
    f.set_quote("100")
    position = f.hold(plan={"trailing": {"pct": "5"}})
    f.push_price("104")
    fire()
    freeze(position)
    for price in ("118", "118"):
        f.push_price(price)
        fire()
    f.set_quote("102")
    release(position)
    trigger = position.triggers.get()
    assert (trigger.trail.cohort.best, trigger.level) == (104, None)
    assert fire() == 0
    f.push_price("98.70")
    assert fire() == 1


def test_what_a_trigger_had_sent_is_called_off_and_armed_again():
    position = f.hold()
    f.set_quote("90")
    assert fire() == 1
    freeze(position)
    order = Order.objects.get()
    assert (order.state, f.read_again(position).reserved) == ("cancelled", 0)
    advance(now=f.utc_now())
    assert Order.objects.count() == 1  # and nothing follows the stop that fired
    release(position)
    assert fire() == 1
    assert Order.objects.latest("pk").reason == "stop_loss"


def test_a_working_exit_is_called_off_and_not_sent_anew_by_itself():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitted", broker_order_id="b")
    freeze(position)
    assert f.read_again(order).state == "cancel_requested"
    apply_reports(account_id=order.account_id, reports=[f.report_of(order, ReportedState.CANCELLED)], now=f.utc_now())
    advance(now=f.utc_now())
    assert Order.objects.count() == 1


def test_an_account_with_a_frozen_position_hits_no_loss_limit():
    position = f.hold(plan={"stop_loss": {"pct": "90"}})
    Account.objects.update(max_daily_loss=D(50))
    watch_limits(now=f.utc_now())
    f.set_quote("25")
    freeze(position)
    watch_limits(now=f.utc_now())
    assert Account.objects.get().trading_state == "active"
    release(position)
    watch_limits(now=f.utc_now())
    assert Account.objects.get().trading_state == "reduce_only"


# -- splits


def split(box, look, *, plan=None):
    """Hold 10 at 100, let the broker split it 4:1, and return the position once that was seen."""
    f.set_quote("100")
    position = f.hold(account=Account.objects.get(name="sim"), plan=plan)
    there(box, "40", "25")
    look()
    return position


def test_a_split_freezes_at_once_so_that_no_stop_is_false(box, account, look):
    position = split(box, look)
    assert f.read_again(position).frozen_why == "holding:AAPL looks split 4:1 at the broker"
    f.set_quote("25.10")
    assert fire() == 0
    alert = Alert.objects.get(resolved_at__isnull=True)
    assert (alert.kind, alert.severity, alert.requires_action) == ("books_differ", "critical", True)
    assert alert.data["difference"] == "split"
    assert "manage.py reconcile split AAPL 4:1" in alert.message
    look(later=10)
    assert f.read_again(position).remaining == 10  # nothing else is done about it


def test_a_confirmed_split_puts_everything_into_new_terms(box, account, look):
    plan = {
        "stop_loss": {"price": "96"},
        "take_profits": [{"pct": "8", "fraction_pct": "50"}],
        "trailing": [{"distance": "6"}],
    }
    position = split(box, look, plan=plan)
    old = f.utc_now() - timedelta(days=1)
    bar = Bar.objects.create(
        instrument=position.instrument, start=old, seconds=86400, open=98, high=104, low=96, close=100, volume=1000
    )
    assert confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test") == [position.pk]
    position = f.read_again(position)
    assert (position.quantity, position.remaining, position.average_entry) == (40, 40, 25)
    assert (position.entry_cost, position.realized_pnl, position.frozen_at) == (1000, 0, None)
    bracket = f.bracket_of(position)
    assert (bracket.entry_price, bracket.stop_price, bracket.target_prices) == (25, 24, ["27"])
    assert bracket.plan["stop_loss"]["price"] == "24"
    assert parse_plan(bracket.plan).trailing[0].distance == D("1.5")
    levels = dict(position.triggers.values_list("slot", "level"))
    assert (levels["stop_loss"], levels["take_profit_1"]) == (24, 27)
    trail = position.triggers.get(kind="trail")
    assert (trail.offset, trail.trail.offset, trail.trail.cohort.best) == (D("1.5"), D("1.5"), 25)
    bar = f.read_again(bar)
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (D("24.5"), 26, 24, 25, 4000)
    quote = Quote.objects.get()
    assert (quote.bid, quote.bid_low, quote.bid_high, quote.from_seq) == (25, 25, 25, quote.seq)
    assert fire() == 0
    f.push_price("23.90")
    assert fire() == 1
    assert Order.objects.get().quantity == 40


def test_the_books_agree_after_a_confirmed_split(box, account, look):
    split(box, look)
    confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test")
    assert look(later=10) == []
    assert Alert.objects.filter(resolved_at__isnull=True).count() == 0


def test_a_false_stop_that_was_on_its_way_is_armed_again_in_new_terms(box, account, look):
    f.set_quote("100")
    position = f.hold(account=account)
    f.set_quote("25")
    assert fire() == 1
    there(box, "40", "25")
    look()
    assert Order.objects.get().state == "cancelled"
    confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test")
    stop = position.triggers.get(slot="stop_loss", status="armed")
    assert stop.level == D("24.75")


def test_a_quote_in_new_terms_already_is_not_divided_again(box, account, look):
    split(box, look)
    Quote.objects.update(last=25, bid=25, ask=D("25.01"), last_low=25, bid_low=25, ask_low=25, mid_low=25,
                         received_at=f.utc_now())  # fmt: skip
    confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test")
    quote = Quote.objects.get()
    assert (quote.bid, quote.bid_high) == (25, 25)
    assert fire() == 0


@pytest.mark.parametrize(
    ("_case", "symbol", "factor", "why"),
    [
        ("another ratio", "AAPL", Fraction(2), "AAPL looks like 4:1 there"),
        ("unknown", "NOPE", FOUR, "there is no instrument 'NOPE'"),
    ],
)
def test_what_the_broker_does_not_show_is_refused(box, account, look, _case, symbol, factor, why):
    position = split(box, look)
    with pytest.raises(SplitRefused, match=why):
        confirm_split(symbol=symbol, factor=factor, now=f.utc_now(), actor="test")
    assert f.read_again(position).remaining == 10


def test_a_position_that_is_not_frozen_is_no_split(box, account):
    position = f.hold(account=account)
    with pytest.raises(SplitRefused, match="shows no split"):
        confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test")
    assert f.read_again(position).quantity == 10


def test_a_live_exit_keeps_a_split_from_being_confirmed(box, account, look):
    position = split(box, look)
    request_exit(position_id=position.pk, now=f.utc_now(), actor="test")
    with pytest.raises(SplitRefused, match="still live"):
        confirm_split(symbol="AAPL", factor=FOUR, now=f.utc_now(), actor="test")
    assert Position.objects.get().quantity == 10


def test_a_reverse_split_leaves_the_fraction_to_the_broker(box, account, look):
    f.set_quote("100")
    position = f.hold(account=account, quantity="25", price="100")
    there(box, "2", "1000")  # half a share was paid out
    look()
    confirm_split(symbol="AAPL", factor=Fraction(1, 10), now=f.utc_now(), actor="test")
    assert f.read_again(position).remaining == D("2.5")
    look(later=10)
    look(later=16)
    assert f.read_again(position).remaining == 2


def test_a_plan_after_a_split_is_a_plan_and_percentages_stay():
    plan = {
        "stop_loss": {"distance": "3", "order_type": "limit"},
        "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"price": "130"}],
        "trailing": [{"pct": "1"}],
    }
    after = plan_after(plan, FOUR)
    assert after["stop_loss"]["distance"] == "0.75"
    assert [one.get("price") for one in after["take_profits"]] == [None, "32.5"]
    assert after["trailing"] == [{"pct": "1"}]
    parse_plan(after)
    assert Bracket.objects.count() == 0


@pytest.mark.parametrize("plan", [{"stop_loss": {"pct": "1"}}, {"time_limit_seconds": 1}])
def test_frozen_positions_do_not_crowd_out_what_can_fire(monkeypatch, plan):
    for place in ("exitmgr.scans", "exitmgr.timers"):
        monkeypatch.setattr(f"{place}.TRIGGERS_AT_ONCE", 1)
    frozen, other = (f.hold(plan=plan, now=f.utc_now() - timedelta(seconds=0.9)) for _ in range(2))
    freeze(frozen)
    f.set_quote("90")
    assert scan(now=f.utc_now() + timedelta(seconds=2), everything=True).orders == 1
    assert Order.objects.get().position == other


def test_what_was_found_before_the_freeze_does_not_fire_after_it():
    position = f.hold()
    f.set_quote("90")
    freeze(position)
    trigger = position.triggers.get(slot="stop_loss")
    with transaction.atomic():
        fired = fire_found([Candidate(trigger.pk, position.pk, position.instrument_id)], now=f.utc_now())
    assert (fired.orders, fired.changed) == (0, 0)
    assert f.read_again(trigger).status == "armed"


def test_a_stop_that_waited_for_its_quantity_does_not_go_out_while_it_is_frozen():
    position = f.hold()
    target = f.exit_order(position, reason="take_profit_1")
    Order.objects.filter(pk=target.pk).update(state="submitted", broker_order_id="b")
    position.triggers.filter(slot="stop_loss").update(status="breached", fired_at=f.utc_now(), seen_price=D(90))
    freeze(position)
    apply_reports(account_id=target.account_id, reports=[f.report_of(target, ReportedState.CANCELLED)], now=f.utc_now())
    advance(now=f.utc_now())
    assert Order.objects.count() == 1
