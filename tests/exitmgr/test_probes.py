"""Which price a plan is judged on: its own extremes, nobody else's, and none from before the position."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection

from exitmgr import probes
from exitmgr.armed import armed_triggers, judge
from exitmgr.scans import scan
from orders.models import Order
from positions.feeds.protocol import Tick
from positions.models import Instrument, Position, Quote
from positions.quotes import write_quotes
from positions.values import Side
from tests import factories as f

D = Decimal
LONG, SHORT = Side.LONG, Side.SHORT
pytestmark = pytest.mark.django_db

#: Bid, ask and last of a print whose price on one basis is moved by so much from 100, the others standing still or,
#: for the mid, moving with it: the mid is moved by one side alone.
PRINTS = {
    ("tradable", LONG): lambda away: (100 + away, max(D(101), 100 + away), D(100)),
    ("tradable", SHORT): lambda away: (min(D(99), 100 + away), 100 + away, D(100)),
    ("last", LONG): lambda away: (D(100), D("100.02"), 100 + away),
    ("last", SHORT): lambda away: (D(100), D("100.02"), 100 + away),
    ("mid", LONG): lambda away: (90 + away, D(110) + away, D(100)),
    ("mid", SHORT): lambda away: (90 + away, D(110) + away, D(100)),
}
BASES = list(PRINTS)


def see(price_source: str, side: Side, *aways: str) -> None:
    """Write prints, one a call, whose price on a basis lies so far from 100."""
    f.make_instrument(collar_pct=D(50))
    for away in aways:
        bid, ask, last = PRINTS[price_source, side](D(away))
        now = f.utc_now()
        tick = Tick("AAPL", bid, ask, last, now)
        assert write_quotes(ticks=[tick], source="test", now=now, ring=lambda: None).accepted_symbols == {"AAPL"}


def hold(price_source: str, side: Side) -> Position:
    """Take a holding at 100 that is left at 1 against and 2 in favour, on a basis."""
    return f.hold(side=side, plan={**f.PLAN, "price_source": price_source})


def look() -> list[str]:
    """Scan now and return the reasons of all exits so far."""
    scan(now=f.utc_now())
    return list(Order.objects.order_by("pk").values_list("reason", flat=True))


@pytest.mark.parametrize(("price_source", "side"), BASES)
@pytest.mark.parametrize(
    ("_case", "favour", "fires"),
    [
        ("a cent before the stop", "-0.99", []),
        ("at the stop", "-1", ["stop_loss"]),
        ("beyond the stop", "-1.5", ["stop_loss"]),
        ("a cent before the target", "1.99", []),
        ("at the target", "2", ["take_profit_1"]),
        ("beyond the target", "3", ["take_profit_1"]),
    ],
)
def test_a_level_fires_on_the_price_it_is_based_on(
    _case: str, favour: str, fires: list[str], price_source: str, side: Side
) -> None:
    see(price_source, side, "0")
    hold(price_source, side)
    see(price_source, side, f"{side * D(favour)}")
    assert look() == fires


@pytest.mark.parametrize(("price_source", "side"), BASES)
@pytest.mark.parametrize(("_case", "favour", "fires"), [("stop", "-1", "stop_loss"), ("target", "2", "take_profit_1")])
def test_a_spike_between_two_scans_is_seen(_case: str, favour: str, fires: str, price_source: str, side: Side) -> None:
    see(price_source, side, "0")
    hold(price_source, side)
    assert look() == []
    see(price_source, side, f"{side * D(favour)}", "0")
    assert look() == [fires]
    assert Order.objects.get().expected_price == 100 + side * D(favour)


@pytest.mark.parametrize(("price_source", "side"), BASES)
@pytest.mark.parametrize("favour", ["-5", "5"])
def test_an_extreme_from_before_the_position_is_not_held_against_it(favour: str, price_source: str, side: Side) -> None:
    see(price_source, side, "0", f"{side * D(favour)}", "0")
    position = hold(price_source, side)
    instrument_id = position.instrument_id
    assert probes.probe_levels([instrument_id], chosen=frozenset(), limit=10) == []  # or it would crowd out what fires
    seen, _ = probes.snapshots_of([instrument_id])[instrument_id]
    triggers = armed_triggers(position.triggers.values_list("pk", flat=True))
    assert [judge(trigger, seen, now=f.utc_now()) for trigger in triggers] == [None, None]
    assert look() == []
    see(price_source, side, "0.5", "-0.5")
    assert look() == []


@pytest.mark.parametrize(("price_source", "side"), BASES)
def test_an_extreme_of_the_interval_a_position_was_armed_in_stays_out_of_it(price_source: str, side: Side) -> None:
    """The interval goes on after the arming: its extremes are older, the newest price is not."""
    see(price_source, side, "0", f"{side * D(-5)}", "0")
    hold(price_source, side)
    see(price_source, side, "0.25")
    assert look() == []
    see(price_source, side, f"{side * D(-1)}")
    assert look() == ["stop_loss"]


@pytest.mark.parametrize(("price_source", "side"), BASES)
def test_a_price_already_beyond_a_level_fires_it_at_once(price_source: str, side: Side) -> None:
    see(price_source, side, "0", f"{side * D(-3)}")
    hold(price_source, side)
    assert look() == ["stop_loss"]


def test_half_the_sum_of_two_moments_is_no_mid() -> None:
    """The bid fell while the ask rose, then the other way round: the mid never moved."""
    see("mid", LONG, "0")
    hold("mid", LONG)
    for bid, ask in ((80, 120), (95, 105), (90, 110)):
        now = f.utc_now()
        write_quotes(ticks=[Tick("AAPL", D(bid), D(ask), None, now)], source="test", now=now, ring=lambda: None)
    quote = Quote.objects.get()
    assert ((quote.bid_low + quote.ask_low) / 2, quote.mid_low, quote.mid_high) == (D("92.5"), 100, 100)
    assert look() == []


def test_a_scanned_interval_leaves_the_mid_where_it_is() -> None:
    see("mid", LONG, "3", "-3", "0.5")
    assert look() == []
    assert Quote.objects.values_list("mid_low", "mid_high", "dirty").get() == (D("100.5"), D("100.5"), False)


def test_plans_on_every_price_are_judged_together() -> None:
    see("last", LONG, "0")
    held = {source: hold(source, LONG) for source in ("tradable", "last", "mid")}
    now = f.utc_now()
    write_quotes(ticks=[Tick("AAPL", D(99), D(105), D(90), now)], source="test", now=now, ring=lambda: None)
    scan(now=f.utc_now())
    assert {
        source: list(Order.objects.filter(position=position).values_list("reason", "expected_price"))
        for source, position in held.items()
    } == {"tradable": [("stop_loss", 99)], "last": [("stop_loss", 90)], "mid": [("take_profit_1", 102)]}


def test_an_exit_says_every_price_it_could_have_been_judged_on() -> None:
    see("mid", LONG, "0")
    hold("mid", LONG)
    see("mid", LONG, "-4", "-2")
    assert look() == ["stop_loss"]
    shown = Order.objects.get().priced_from
    assert {name: shown[name] for name in ("mid", "mid_low", "mid_high", "spread", "last", "last_low", "bid")} == {
        "mid": "98", "mid_low": "96", "mid_high": "100", "spread": "20", "last": "100", "last_low": "100", "bid": "88",
    }  # fmt: skip


# -- what it costs


@pytest.mark.parametrize(
    ("_case", "sources", "probed"),
    [
        ("nobody has chosen", ["tradable"], set()),
        ("somebody judges on the last price", ["tradable", "last"], {"last"}),
        ("and somebody on the mid", ["last", "mid"], {"last", "mid"}),
    ],
)
def test_only_prices_that_plans_have_chosen_are_probed(
    _case: str, sources: list[str], probed: set[str], django_assert_num_queries: object
) -> None:
    see("tradable", LONG, "0")
    for source in sources:
        hold(source, LONG)
    instrument = Instrument.objects.get()
    with django_assert_num_queries(2) as captured:  # type: ignore[operator]
        assert probes.probe_levels([instrument.pk], chosen=probes.rules_in_use().chosen, limit=10) == []
    asked = captured.captured_queries[1]["sql"]
    assert {basis for basis in ("bid", "ask", "last", "mid") if f"t.basis = '{basis}'" in asked} == {
        "bid", "ask", *probed,
    }  # fmt: skip


def test_that_nobody_has_chosen_is_known_from_an_index_of_the_chosen_alone() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + probes._IN_USE)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("using trigger_on_a_chosen_price") == 2, plan


# -- how old a price may be


@pytest.mark.parametrize(
    ("_case", "max_age", "age", "fires"),
    [
        ("as old as it may be", 5, timedelta(seconds=5), ["stop_loss"]),
        ("a moment older", 5, timedelta(seconds=5, microseconds=1), []),
        ("an instrument that may wait longer", 300, timedelta(seconds=299), ["stop_loss"]),
    ],
)
def test_each_instrument_says_how_old_a_price_may_decide(
    _case: str, max_age: int, age: timedelta, fires: list[str]
) -> None:
    f.make_instrument(max_age_seconds=max_age)
    see("tradable", LONG, "0")
    hold("tradable", LONG)
    see("tradable", LONG, "-2")
    for options in ({}, {"everything": True}):
        scan(now=Quote.objects.get().received_at + age, **options)
    assert list(Order.objects.values_list("reason", flat=True)) == fires
