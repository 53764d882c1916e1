"""The scan: what fires at which price, what waits, in which order, and that its cost follows what fires."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection

from alerts.models import Alert, Event
from exitmgr import probes, scans
from exitmgr.advance import advance
from exitmgr.entries import register_position
from exitmgr.exits import request_exit
from exitmgr.models import Bracket, Trigger
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.models import Order
from orders.updates import apply_reports
from positions.feeds.protocol import Tick
from positions.models import Instrument, Position, Quote
from positions.quotes import write_quotes
from positions.values import Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db
LADDER = {
    "stop_loss": {"pct": "5"},
    "take_profits": [{"pct": "1", "fraction_pct": "50"}, {"pct": "2", "fraction_pct": "50"}, {"pct": "3"}],
}


def look(**options):
    """Scan now."""
    return scan(now=f.utc_now(), **options)


def orders_of(position):
    """Return reason and quantity of each exit of a position, in the order they were made."""
    return list(Order.objects.filter(position=position, intent="exit").order_by("pk").values_list("reason", "quantity"))


# -- levels


@pytest.mark.parametrize(
    ("_case", "side", "bid", "ask", "fires"),
    [
        ("long, a cent above the stop", Side.LONG, "99.01", "99.02", None),
        ("long, exactly at the stop", Side.LONG, "99.00", "99.02", "stop_loss"),
        ("long, a cent beyond the stop", Side.LONG, "98.99", "99.02", "stop_loss"),
        ("long, a gap far through the stop", Side.LONG, "90", "90.02", "stop_loss"),
        ("long, a cent below the target", Side.LONG, "101.99", "102.50", None),
        ("long, exactly at the target", Side.LONG, "102.00", "102.50", "take_profit_1"),
        ("short, a cent below the stop", Side.SHORT, "100.90", "100.99", None),
        ("short, exactly at the stop", Side.SHORT, "100.90", "101.00", "stop_loss"),
        ("short, the bid alone is beyond the stop's mirror", Side.SHORT, "97.50", "98.01", None),
        ("short, exactly at the target", Side.SHORT, "97.50", "98.00", "take_profit_1"),
    ],
)
def test_a_level_fires_at_or_beyond_it_on_the_price_one_can_trade_at(_case, side, bid, ask, fires):
    f.set_quote("100")
    position = f.hold(side=side)
    f.set_quote(bid, ask)
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == ([(fires, D(10))] if fires else [])
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "armed"} | (
        {fires: "fired"} if fires else {}
    )


def test_an_exit_carries_the_evidence_it_was_decided_on():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.50", "98.60")
    look()
    order = Order.objects.get()
    assert (order.trigger_price, order.expected_price) == (D(99), D("98.5"))
    assert {name: order.priced_from[name] for name in ("bid", "bid_low", "ask", "source")} == {
        "bid": "98.5", "bid_low": "98.5", "ask": "98.6", "source": "test",
    }  # fmt: skip
    assert order.priced_at == Quote.objects.get().received_at
    trigger = position.triggers.get(reason="stop_loss")
    assert (trigger.order_id, trigger.seen_price) == (order.pk, D("98.5"))
    assert Event.objects.get(kind="exit_requested").actor == "scan"


def test_a_spike_between_two_scans_is_seen_after_the_price_came_back():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.90")
    f.push_price("100")
    look()
    assert orders_of(position) == [("stop_loss", D(10))]
    assert Order.objects.get().expected_price == D("98.9")


def test_an_interval_older_than_the_trigger_is_not_held_against_it():
    f.set_quote("100")
    f.push_price("98.90")
    f.push_price("100")
    position = f.hold()
    look()
    assert orders_of(position) == []
    f.push_price("98.95")
    look()
    assert orders_of(position) == [("stop_loss", D(10))]


def test_a_price_already_beyond_a_fresh_trigger_fires_it():
    f.set_quote("98")
    position = f.hold()
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == [("stop_loss", D(10))]


def test_a_scanned_interval_is_consumed():
    f.set_quote("100")
    f.push_price("99.50")
    f.push_price("100.20")
    look()
    quote = Quote.objects.get()
    assert (quote.dirty, quote.from_seq, quote.bid_low, quote.bid_high) == (False, quote.seq, D("100.2"), D("100.2"))
    assert look().symbols == 0


def test_a_stale_price_decides_nothing_and_keeps_its_interval():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98")
    later = f.utc_now() + timedelta(seconds=61)
    for options in ({}, {"everything": True}, {"instrument_ids": [position.instrument_id]}):
        assert scan(now=later, **options).symbols == 0
    assert orders_of(position) == []
    assert Quote.objects.get().dirty
    look()
    assert orders_of(position) == [("stop_loss", D(10))]


@pytest.mark.parametrize(
    ("bid", "ask"), [("NaN", "NaN"), ("0", "100"), ("-1", "1"), ("98", "97"), ("1E+400", "1E+401"), ("Infinity", "1")]
)
def test_a_price_that_is_none_never_gets_in(bid, ask):
    f.set_quote("100")
    position = f.hold()
    now = f.utc_now()
    tick = Tick(symbol="AAPL", bid=D(bid), ask=D(ask), last=None, source_at=now)
    assert write_quotes(ticks=[tick], source="test", now=now, ring=lambda: None).accepted_symbols == set()
    look(everything=True)
    assert orders_of(position) == []
    assert Quote.objects.get().bid == 100


# -- several at once


def test_several_rungs_in_one_interval_sell_in_their_order():
    f.set_quote("100")
    position = f.hold(plan=LADDER)
    f.push_price("103")
    look()
    # half, then half of the other half in whole lots, then all the rest
    assert orders_of(position) == [("take_profit_1", D(5)), ("take_profit_2", D(2)), ("take_profit_3", D(3))]
    assert f.triggers_of(position) == {
        "stop_loss": "armed", "take_profit_1": "fired", "take_profit_2": "fired", "take_profit_3": "fired",
    }  # fmt: skip
    assert f.read_again(position).available == 0


def test_a_stop_outranks_a_target_in_the_same_interval():
    f.set_quote("100")
    position = f.hold()
    f.push_price("102.10")
    f.push_price("98.90")
    look()
    assert orders_of(position) == [("stop_loss", D(10))]
    assert f.triggers_of(position) == {"stop_loss": "fired", "take_profit_1": "armed"}


def test_two_positions_in_one_symbol_are_left_each_for_itself():
    f.set_quote("100")
    near, far = f.hold(), f.hold(plan={"stop_loss": {"pct": "5"}})
    f.push_price("98.90")
    look()
    assert (orders_of(near), orders_of(far)) == ([("stop_loss", D(10))], [])


def test_a_target_that_finds_everything_claimed_stays_armed():
    f.set_quote("100")
    position = f.hold()
    request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    f.push_price("102.10")
    assert look().orders == 0
    assert f.triggers_of(position)["take_profit_1"] == "armed"


def test_a_stop_that_finds_everything_claimed_is_latched_and_goes_out_when_the_quantity_is_free():
    f.set_quote("100")
    position = f.hold()
    manual = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    f.push_price("98.90")
    assert look().orders == 0
    assert f.triggers_of(position)["stop_loss"] == "breached"
    f.push_price("100")  # the price comes back; the stop has been hit all the same
    look()
    apply_reports(account_id=manual.account_id, reports=[f.report_of(manual, ReportedState.REJECTED)], now=f.utc_now())
    advance(now=f.utc_now())
    assert orders_of(position) == [("manual", D(10)), ("stop_loss", D(10))]
    assert f.triggers_of(position)["stop_loss"] == "fired"
    assert Order.objects.latest("pk").trigger_price == 99


def test_a_closed_position_is_left_alone():
    f.set_quote("100")
    position = f.hold()
    Position.objects.filter(pk=position.pk).update(status="closed", exited=10, closed_at=f.utc_now())
    f.push_price("98.90")
    assert look().orders == 0
    assert Order.objects.count() == 0


# -- many


def many(count, *, symbol="AAPL", level="99"):
    """Insert positions with one armed stop each, in three statements."""
    account, instrument, now = f.make_account(), f.make_instrument(symbol), f.utc_now()
    positions = Position.objects.bulk_create(
        Position(
            account=account, instrument=instrument, side=1, quantity=D(10), entry_cost=D(1000), opened_at=now
        )
        for _ in range(count)
    )  # fmt: skip
    brackets = Bracket.objects.bulk_create(
        Bracket(position=position, status="active", plan={}, created_at=now) for position in positions
    )
    return Trigger.objects.bulk_create(
        Trigger(
            bracket=bracket, position=bracket.position, instrument=instrument, kind="level", basis="bid",
            direction="fall", level=D(level), reason="stop_loss", urgency=10, armed_at=now,
        )
        for bracket in brackets
    )  # fmt: skip


def test_more_triggers_than_one_batch_fire_completely():
    f.set_quote("100")
    many(2_500)
    f.push_price("98.90")
    batches = 2_500 // scans.TRIGGERS_AT_ONCE + 1  # each takes the symbol again, the last finds nothing more
    signs: list[None] = []
    done = look(after_batch=lambda: signs.append(None))
    assert len(signs) == batches - 1
    assert done == scans.Scanned(symbols=batches, candidates=2_500, orders=2_500)
    assert Order.objects.filter(quantity=10, reserved=10).count() == 2_500
    assert set(Trigger.objects.values_list("status", flat=True)) == {"fired"}
    assert Position.objects.exclude(reserved=10).count() == 0
    assert not Quote.objects.get().dirty


def test_what_cannot_fire_does_not_crowd_out_what_can(monkeypatch):
    """Triggers armed after a spike are no candidates for it, however many there are."""
    monkeypatch.setattr(scans, "TRIGGERS_AT_ONCE", 5)
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.90")
    f.push_price("100")
    seq = Quote.objects.get().seq
    Trigger.objects.filter(pk__in=[trigger.pk for trigger in many(20, level="98.95")]).update(armed_seq=seq, urgency=0)
    look()
    assert orders_of(position) == [("stop_loss", D(10))]
    assert Order.objects.count() == 1


def test_targets_that_are_wholly_claimed_do_not_crowd_out_those_that_can_fire(monkeypatch):
    monkeypatch.setattr(scans, "TRIGGERS_AT_ONCE", 3)
    f.set_quote("100")
    for _ in range(8):
        request_exit(position_id=f.hold().pk, now=f.utc_now(), actor="ann")
    free = f.hold()
    f.push_price("102.10")
    look()
    assert orders_of(free) == [("take_profit_1", D(10))]


def test_one_instrument_that_cannot_be_scanned_does_not_hold_up_the_others():
    sick, sound = f.hold(symbol="SICK"), f.hold(symbol="WELL")
    Trigger.objects.filter(position=sick, reason="stop_loss").update(reason="no reason we know")
    for symbol in ("SICK", "WELL"):
        f.set_quote("100", symbol=symbol)
        f.push_price("98.90", symbol=symbol)
    assert look().orders == 1
    assert (orders_of(sick), orders_of(sound)) == ([], [("stop_loss", D(10))])
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity) == ("scan_failed", "critical")
    assert dict(Quote.objects.values_list("instrument__symbol", "dirty")) == {"SICK": True, "WELL": False}


def test_scans_probe_the_index_and_never_read_every_trigger():
    now = f.utc_now()
    instruments = Instrument.objects.bulk_create(Instrument(symbol=f"S{number}") for number in range(500))
    Quote.objects.bulk_create(
        Quote(
            instrument=instrument, last=D(100), bid=D(100), ask=D(101), last_low=D(100), last_high=D(100),
            bid_low=D(100), bid_high=D(100), ask_low=D(101), ask_high=D(101), mid_low=D("100.5"), mid_high=D("100.5"),
            source="test", source_at=now, received_at=now,
        )
        for instrument in instruments
    )  # fmt: skip
    position = Position.objects.create(
        account=f.make_account(), instrument=instruments[0], side=1, quantity=1, entry_cost=1, opened_at=now
    )
    bracket = Bracket.objects.create(position=position, plan={}, created_at=now)
    Trigger.objects.bulk_create(
        Trigger(
            bracket=bracket, position=position, instrument=instruments[number % 500], kind="level", basis="bid",
            direction="fall" if number % 2 else "rise", level=D(80) if number % 2 else D(120), reason=f"r{number}",
            slot=f"r{number}", urgency=10, armed_at=now,
        )
        for number in range(20_000)
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE exitmgr_trigger, positions_quote, positions_position")
        cursor.execute(
            "EXPLAIN " + probes.PROBE,
            {"ids": [instrument.pk for instrument in instruments], "triggers": scans.TRIGGERS_AT_ONCE},
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("trigger_level_probe") == 4, plan
    assert "Seq Scan on exitmgr_trigger" not in plan, plan


def test_a_holding_registered_beyond_its_stop_leaves_by_the_doorbell_of_its_own_arming(
    django_capture_on_commit_callbacks, monkeypatch
):
    rung = []
    monkeypatch.setattr("exitmgr.brackets.ring", lambda task, **options: rung.append((task, options)))
    f.set_quote("98")
    with django_capture_on_commit_callbacks(execute=True):
        position, _ = register_position(
            account=f.make_account(), symbol="AAPL", side=Side.LONG, quantity=D(1), entry_price=D(100),
            opened_at=f.utc_now(), now=f.utc_now(), actor="ann",
        )  # fmt: skip
    assert rung == [
        ("exitmgr.scan", {"queue": "scan", "kwargs": {"instrument_ids": [position.instrument_id]}, "expires": 5})
    ]
