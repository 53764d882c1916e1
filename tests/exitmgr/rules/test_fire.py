"""When a level, a trail or a timer fires, on which price, and which of several gives the reason."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.compile import compile_plan
from exitmgr.rules.fire import best_price, by_precedence, fire_level, fire_timer, fire_trail, trail_level
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.types import (
    Act,
    Decision,
    Direction,
    ExitReason,
    OrderTerms,
    TimerTrigger,
    TrailTrigger,
)
from positions.values import Basis, Range, Side, Snapshot
from tests.exitmgr.rules.values import AT, LONG, SHORT, D, after, by_slot, entry, seen

FALL, RISE = Direction.FALL, Direction.RISE
ENTRY = D(100)
PLAN = parse_plan({"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}]})


def fired(side, snapshot, *, armed_seq=10):
    stop, target = compile_plan(PLAN, entry=entry(side)).triggers
    decisions = [fire_level(trigger, snapshot, armed_seq=armed_seq) for trigger in (stop, target)]
    return [(decision.reason, decision.seen_price) for decision in decisions if decision]


@pytest.mark.parametrize(
    ("_case", "side", "price", "extremes", "armed_seq", "expected"),
    [
        ("at the entry", LONG, "100", (None, None), 10, []),
        ("a cent above the stop", LONG, "99.01", (None, None), 10, []),
        ("exactly at the stop", LONG, "99", (None, None), 10, [("stop_loss", D("99"))]),
        ("a cent beyond the stop", LONG, "98.99", (None, None), 10, [("stop_loss", D("98.99"))]),
        ("a gap past the stop", LONG, "90", (None, None), 10, [("stop_loss", D("90"))]),
        ("a spike to the stop that came and went", LONG, "100", ("99", None), 10, [("stop_loss", D("99"))]),
        ("a spike that missed by a cent", LONG, "100", ("99.01", None), 10, []),
        ("a spike older than the trigger", LONG, "100", ("90", "110"), 11, []),
        ("the price now, whatever the age", LONG, "99", ("90", "110"), 11, [("stop_loss", D("99"))]),
        (
            "armed with the interval's own first price",
            LONG,
            "100",
            ("98", None),
            10,
            [("stop_loss", D("98"))],
        ),
        ("armed long before", LONG, "100", ("98", None), 1, [("stop_loss", D("98"))]),
        ("a cent below the target", LONG, "101.99", (None, None), 10, []),
        ("exactly at the target", LONG, "102", (None, None), 10, [("take_profit_1", D("102"))]),
        ("a cent beyond the target", LONG, "102.01", (None, None), 10, [("take_profit_1", D("102.01"))]),
        ("a gap past the target", LONG, "150", (None, None), 10, [("take_profit_1", D("150"))]),
        ("a spike to the target", LONG, "100", (None, "102"), 10, [("take_profit_1", D("102"))]),
        (
            "a spike both ways",
            LONG,
            "100",
            ("98", "103"),
            10,
            [("stop_loss", D("98")), ("take_profit_1", D("103"))],
        ),
        ("extremes that lag behind the price", LONG, "98", ("99.5", "100"), 10, [("stop_loss", D("98"))]),
        ("short: a cent below the stop", SHORT, "100.99", (None, None), 10, []),
        ("short: exactly at the stop", SHORT, "101", (None, None), 10, [("stop_loss", D("101"))]),
        ("short: a cent beyond the stop", SHORT, "101.01", (None, None), 10, [("stop_loss", D("101.01"))]),
        ("short: a gap past the stop", SHORT, "110", (None, None), 10, [("stop_loss", D("110"))]),
        ("short: a spike to the stop", SHORT, "100", (None, "101"), 10, [("stop_loss", D("101"))]),
        ("short: a spike older than the trigger", SHORT, "100", ("90", "110"), 11, []),
        ("short: a cent above the target", SHORT, "98.01", (None, None), 10, []),
        ("short: exactly at the target", SHORT, "98", (None, None), 10, [("take_profit_1", D("98"))]),
        ("short: a spike to the target", SHORT, "100", ("97.99", None), 10, [("take_profit_1", D("97.99"))]),
        ("short: extremes that lag behind", SHORT, "102", ("100", "100.5"), 10, [("stop_loss", D("102"))]),
    ],
)
def test_when_a_level_is_crossed(_case, side, price, extremes, armed_seq, expected):
    low, high = extremes
    assert fired(side, seen(price, low=low, high=high), armed_seq=armed_seq) == expected


def on_its_own_prices():
    """Return a snapshot with a price of its own for each basis."""
    bid, ask, last, mid = (Range(D(price), D(price), D(price)) for price in ("99", "101", "99.8", "100"))
    return Snapshot(
        symbol="AAPL", bid=bid, ask=ask, last=last, mid=mid, seq=1, from_seq=1, source_at=AT, received_at=AT
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "side", "level", "fires"),
    [
        ("tradable", LONG, "99", True),
        ("tradable", LONG, "98.99", False),
        ("tradable", SHORT, "101", True),
        ("tradable", SHORT, "101.01", False),
        ("last", LONG, "99.8", True),
        ("last", LONG, "99.79", False),
        ("last", SHORT, "99.8", True),
        ("last", SHORT, "99.81", False),
        ("mid", LONG, "100", True),
        ("mid", LONG, "99.99", False),
        ("mid", SHORT, "100", True),
        ("mid", SHORT, "100.01", False),
    ],
)
def test_only_the_price_the_plan_names_counts(source, side, level, fires):
    bought_at = 110 if side is LONG else 90
    stop = by_slot({"stop_loss": {"price": level}, "price_source": source}, side, bought_at)["stop_loss"]
    assert (fire_level(stop, on_its_own_prices(), armed_seq=1) is not None) is fires


def test_a_decision_carries_what_was_crossed_and_how_much_to_close():
    target = by_slot({"take_profits": [{"pct": 2, "fraction_pct": 50, "order_type": "limit"}]})["take_profit_1"]
    assert fire_level(target, seen("103"), armed_seq=1) == Decision(
        reason="take_profit_1",
        fraction_pct=D(50),
        trigger_price=D(102),
        seen_price=D(103),
        direction=RISE,
        order=OrderTerms(limit=True),
    )


def test_a_decaying_target_before_its_first_step_never_fires():
    target = by_slot({"take_profits": [{"schedule": [{"after_seconds": 60, "pct": 5}]}]})["take_profit_1"]
    assert fire_level(target, seen("1000"), armed_seq=1) is None


def trail(side=LONG, *, best="110", **offset):
    basis, against = (Basis.BID, FALL) if side is LONG else (Basis.ASK, RISE)
    return TrailTrigger(
        slot="trailing_1", reason="trailing_stop", basis=basis, direction=against,
        best=None if best is None else D(best), **{key: D(value) for key, value in offset.items()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "made", "level"),
    [
        ("one percent of the best price", trail(offset_pct="1"), "108.9"),
        ("a distance", trail(offset="2.5"), "107.5"),
        ("short: one percent of the lowest", trail(SHORT, best="90", offset_pct="1"), "90.9"),
        ("short: a distance", trail(SHORT, best="90", offset="2.5"), "92.5"),
        ("not started", trail(best=None, offset_pct="1"), None),
    ],
)
def test_where_a_trail_fires(_case, made, level):
    assert trail_level(made) == (None if level is None else D(level))


ONE_PERCENT = trail(offset_pct="1")  # best 110, so it fires at 108.90
SHORT_ONE_PERCENT = trail(SHORT, best="90", offset_pct="1")  # at 90.90


@pytest.mark.parametrize(
    ("_case", "made", "price", "extremes", "armed_seq", "fires"),
    [
        ("a cent above the level", ONE_PERCENT, "108.91", (None, None), 10, None),
        ("exactly at the level", ONE_PERCENT, "108.90", (None, None), 10, ("108.90", "108.90")),
        ("a cent beyond", ONE_PERCENT, "108.89", (None, None), 10, ("108.90", "108.89")),
        ("a gap", ONE_PERCENT, "90", (None, None), 10, ("108.90", "90")),
        ("a new best price", ONE_PERCENT, "120", (None, None), 10, None),
        ("a spike down that came and went", ONE_PERCENT, "109.5", ("108.9", None), 10, ("108.90", "108.9")),
        ("a spike down older than the trail", ONE_PERCENT, "109.5", ("100", "120"), 11, None),
        ("the price now, whatever the age", ONE_PERCENT, "108.9", ("100", "120"), 11, ("108.90", "108.9")),
        ("a new best, then not enough given back", ONE_PERCENT, "118.81", (None, "120"), 10, None),
        ("a new best, then one percent given back", ONE_PERCENT, "118.8", (None, "120"), 10, ("118.8", "118.8")),
        ("a new best and a low above the old level: which was first?", ONE_PERCENT, "119.5", ("109", "120"), 10, None),
        ("a new best and a low at the old level", ONE_PERCENT, "119.5", ("108.9", "120"), 10, ("108.90", "108.9")),
        ("low, new best, given back: the old level counts", ONE_PERCENT, "115", ("108", "120"), 10, ("108.90", "108")),
        ("short: a cent below the level", SHORT_ONE_PERCENT, "90.89", (None, None), 10, None),
        ("short: exactly at the level", SHORT_ONE_PERCENT, "90.90", (None, None), 10, ("90.90", "90.90")),
        ("short: a gap", SHORT_ONE_PERCENT, "100", (None, None), 10, ("90.90", "100")),
        ("short: a spike up that came and went", SHORT_ONE_PERCENT, "90.5", (None, "91"), 10, ("90.90", "91")),
        ("short: a new best, given back", SHORT_ONE_PERCENT, "80.80", ("80", None), 10, ("80.80", "80.80")),
        ("short: a new best, not enough given back", SHORT_ONE_PERCENT, "80.79", ("80", None), 10, None),
        ("not started", trail(best=None, offset_pct="1"), "1", ("1", "120"), 10, None),
    ],
)
def test_when_a_trail_fires(_case, made, price, extremes, armed_seq, fires):
    low, high = extremes
    decision = fire_trail(made, seen(price, low=low, high=high), armed_seq=armed_seq)
    assert (decision and (decision.trigger_price, decision.seen_price)) == (fires and tuple(map(D, fires)))
    assert decision is None or (decision.reason, decision.fraction_pct) == ("trailing_stop", D(100))


@pytest.mark.parametrize(
    ("_case", "made", "price", "extremes", "armed_seq", "best"),
    [
        ("below the best", ONE_PERCENT, "109", (None, None), 10, "110"),
        ("a new best", ONE_PERCENT, "111", (None, None), 10, "111"),
        ("a new best that came and went", ONE_PERCENT, "110.5", (None, "112"), 10, "112"),
        ("a high older than the trail", ONE_PERCENT, "110.5", (None, "112"), 11, "110.5"),
        ("the first price", trail(best=None, offset="1"), "105", ("100", "106"), 11, "105"),
        ("short: a new best that came and went", SHORT_ONE_PERCENT, "89.5", ("88", None), 10, "88"),
        ("short: a low older than the trail", SHORT_ONE_PERCENT, "89.5", ("88", None), 11, "89.5"),
        ("short: above the best", SHORT_ONE_PERCENT, "95", (None, None), 10, "90"),
    ],
)
def test_the_best_price_follows_what_was_seen_since_the_trail_was_armed(_case, made, price, extremes, armed_seq, best):
    low, high = extremes
    assert best_price(made, seen(price, low=low, high=high), armed_seq=armed_seq) == D(best)


TIMER = TimerTrigger(slot="time_limit", reason="time_limit", basis=Basis.BID, direction=FALL, due_at=after(60))


@pytest.mark.parametrize(
    ("_case", "seconds", "fires"), [("a second before", 59, False), ("just then", 60, True), ("later", 9999, True)]
)
def test_a_timer_fires_when_its_time_has_come(_case, seconds, fires):
    decision = fire_timer(TIMER, seen("97"), now=after(seconds))
    assert (decision is not None) is fires
    assert decision in {
        None,
        Decision(reason="time_limit", fraction_pct=D(100), trigger_price=None, seen_price=D(97)),
    }


def test_a_timer_needs_no_price():
    decision = fire_timer(TIMER, None, now=after(60))
    assert (decision.reason, decision.seen_price, decision.trigger_price) == ("time_limit", None, None)


@pytest.mark.parametrize(
    ("_case", "slot", "price", "fires"),
    [
        ("a cent short of the rise", "stagnation:rise", "100.49", False),
        ("exactly moved", "stagnation:rise", "100.50", True),
        ("a cent short of the fall", "stagnation:fall", "99.51", False),
        ("exactly moved down", "stagnation:fall", "99.50", True),
    ],
)
@pytest.mark.parametrize("side", [LONG, SHORT])
def test_a_move_of_just_so_many_percent_is_a_move(_case, slot, price, fires, side):
    gate = by_slot({"stagnation": {"seconds": 60, "move_pct": "0.5"}}, side)[slot]
    assert gate.act is Act.RESTART
    assert (fire_level(gate, seen(price), armed_seq=1) is not None) is fires


prices = st.decimals("90", "110", places=2)


@given(prices, prices, prices, st.sampled_from([1, 10, 11, 20]))
def test_a_short_fires_where_a_long_fires_in_the_mirror(price, one, other, armed_seq):
    low, high = min(price, one, other), max(price, one, other)
    mirrored = seen(2 * ENTRY - price, low=2 * ENTRY - high, high=2 * ENTRY - low)
    long = fired(LONG, seen(price, low=low, high=high), armed_seq=armed_seq)
    short = fired(SHORT, mirrored, armed_seq=armed_seq)
    assert [(reason, 2 * ENTRY - at) for reason, at in short] == long


@given(prices, prices, prices, prices, st.sampled_from([1, 10, 11, 20]))
def test_a_shorts_trail_fires_where_a_longs_fires_in_the_mirror(best, price, one, other, armed_seq):
    low, high = min(price, one, other), max(price, one, other)
    mirrored = seen(2 * ENTRY - price, low=2 * ENTRY - high, high=2 * ENTRY - low)
    long = trail(best=best, offset="2")
    short = trail(SHORT, best=2 * ENTRY - best, offset="2")
    one_way = fire_trail(long, seen(price, low=low, high=high), armed_seq=armed_seq)
    the_other = fire_trail(short, mirrored, armed_seq=armed_seq)
    assert (one_way and one_way.trigger_price) == (the_other and 2 * ENTRY - the_other.trigger_price)
    assert best_price(long, seen(price, low=low, high=high), armed_seq=armed_seq) == 2 * ENTRY - best_price(
        short, mirrored, armed_seq=armed_seq
    )


@given(prices, prices, prices, st.sampled_from(Side))
def test_a_level_that_fires_still_fires_when_the_interval_is_wider(price, one, other, side):
    low, high = min(price, one), max(price, one)
    narrow = {reason for reason, _ in fired(side, seen(price, low=low, high=high))}
    wide = {reason for reason, _ in fired(side, seen(price, low=min(low, other), high=max(high, other)))}
    assert narrow <= wide


@given(prices, st.lists(prices, min_size=1, max_size=6))
def test_what_fires_in_an_interval_fires_whatever_way_the_price_took_through_it(best, path):
    """Only what is certain fires: shown one price at a time, in this order, the trail fires as well."""
    whole = fire_trail(trail(best=best, offset_pct="1"), seen(path[-1], low=min(path), high=max(path)), armed_seq=1)
    stepwise, made = [], trail(best=best, offset_pct="1")
    for price in path:
        stepwise.append(fire_trail(made, seen(price), armed_seq=1))
        made = trail(best=best_price(made, seen(price), armed_seq=1), offset_pct="1")
    assert whole is None or any(stepwise)


def decided(reason, level=None, *, at=None, direction=None):
    return Decision(
        reason=reason,
        fraction_pct=D(100),
        trigger_price=None if level is None else D(level),
        seen_price=None if level is None else D(at or level),
        direction=direction,
    )


@pytest.mark.parametrize(
    ("_case", "decisions", "reasons"),
    [
        ("nothing", [], []),
        (
            "the most urgent first",
            [
                decided("take_profit_1", 102, direction=RISE),
                decided("time_limit"),
                decided("manual"),
                decided("stop_loss", 99, direction=FALL),
                decided("emergency"),
            ],
            ["emergency", "stop_loss", "manual", "time_limit", "take_profit_1"],
        ),
        (
            "long: the trail is tighter",
            [
                decided("stop_loss", 95, at=90, direction=FALL),
                decided("trailing_stop", 97, at=90, direction=FALL),
            ],
            ["trailing_stop", "stop_loss"],
        ),
        (
            "long: the stop is tighter",
            [
                decided("trailing_stop", 94, at=90, direction=FALL),
                decided("stop_loss", 95, at=90, direction=FALL),
            ],
            ["stop_loss", "trailing_stop"],
        ),
        (
            "long: a fresh trail saw only the current price",
            [
                decided("stop_loss", 95, at=90, direction=FALL),
                decided("trailing_stop", 97, at=96, direction=FALL),
            ],
            ["trailing_stop", "stop_loss"],
        ),
        (
            "short: the lower level is tighter",
            [
                decided("stop_loss", 105, at=110, direction=RISE),
                decided("trailing_stop", 103, at=110, direction=RISE),
            ],
            ["trailing_stop", "stop_loss"],
        ),
        (
            "short: exactly at a fresh trail",
            [
                decided("stop_loss", 105, at=110, direction=RISE),
                decided("trailing_stop", 103, direction=RISE),
            ],
            ["trailing_stop", "stop_loss"],
        ),
        (
            "long: rungs as a rising price meets them",
            [
                decided("take_profit_2", 104, at=105, direction=RISE),
                decided("take_profit_1", 102, at=105, direction=RISE),
            ],
            ["take_profit_1", "take_profit_2"],
        ),
        (
            "short: rungs as a falling price meets them",
            [
                decided("take_profit_2", 96, at=95, direction=FALL),
                decided("take_profit_1", 98, at=95, direction=FALL),
            ],
            ["take_profit_1", "take_profit_2"],
        ),
        (
            "the same level: the given order",
            [decided("break_even", 100, direction=FALL), decided("stop_loss", 100, direction=FALL)],
            ["break_even", "stop_loss"],
        ),
        (
            "timers: the given order",
            [decided("stagnation"), decided("session_close")],
            ["stagnation", "session_close"],
        ),
    ],
)
def test_precedence(_case, decisions, reasons):
    assert [decision.reason for decision in by_precedence(decisions)] == reasons


def test_the_order_of_distinct_decisions_does_not_depend_on_how_they_were_found():
    found = [
        decided("stop_loss", 95, at=90, direction=FALL),
        decided("trailing_stop", 97, at=96, direction=FALL),
        decided("break_even", 100, at=90, direction=FALL),
        decided(ExitReason.TAKE_PROFIT_1, 102, at=103, direction=RISE),
    ]
    orders = {tuple(decision.reason for decision in by_precedence(order)) for order in permutations(found)}
    assert orders == {("break_even", "trailing_stop", "stop_loss", "take_profit_1")}
