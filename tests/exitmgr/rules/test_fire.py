"""When a level counts as crossed, and which of several crossed levels gives the reason."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.compile import compile_plan
from exitmgr.rules.fire import by_precedence, fire_level
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.types import Decision, Direction, ExitReason, LevelTrigger
from positions.values import Basis, Range, Side, Snapshot

LONG, SHORT = Side.LONG, Side.SHORT
FALL, RISE = Direction.FALL, Direction.RISE
D = Decimal
AT = datetime(2025, 1, 2, 15, 0, tzinfo=UTC)
ENTRY = D(100)
PLAN = parse_plan({"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}]})


def seen(price, *, low=None, high=None, from_seq=10):
    """Return a snapshot whose every price is the same, with the extremes since `from_seq`."""
    of = Range(D(price), D(low or price), D(high or price))
    sides = {name: of for name in ("bid", "ask", "last", "mid")}
    return Snapshot(symbol="AAPL", **sides, seq=20, from_seq=from_seq, source_at=AT, received_at=AT)


def fired(side, snapshot, *, armed_seq=10):
    stop, target = compile_plan(PLAN, side=side, entry_price=ENTRY)
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


@pytest.mark.parametrize(
    ("basis", "fires"), [(Basis.BID, True), (Basis.ASK, False), (Basis.LAST, False), (Basis.MID, False)]
)
def test_only_the_price_it_is_based_on_counts(basis, fires):
    snapshot = Snapshot(
        symbol="AAPL",
        bid=Range(D(99), D(99), D(99)),
        ask=Range(D(101), D(101), D(101)),
        last=Range(D(100), D(100), D(100)),
        mid=Range(D(100), D(100), D(100)),
        seq=1,
        from_seq=1,
        source_at=AT,
        received_at=AT,
    )
    trigger = LevelTrigger(reason="stop_loss", basis=basis, direction=FALL, level=D("99.5"))
    assert (fire_level(trigger, snapshot, armed_seq=1) is not None) is fires


def test_a_decision_carries_what_was_crossed_and_how_much_to_close():
    _stop, target = compile_plan(PLAN, side=LONG, entry_price=ENTRY)
    assert fire_level(target, seen("103"), armed_seq=1) == Decision(
        reason="take_profit_1",
        fraction_pct=D(50),
        trigger_price=D(102),
        seen_price=D(103),
        direction=RISE,
    )


prices = st.decimals("90", "110", places=2)


@given(prices, prices, prices, st.sampled_from([1, 10, 11, 20]))
def test_a_short_fires_where_a_long_fires_in_the_mirror(price, one, other, armed_seq):
    low, high = min(price, one, other), max(price, one, other)
    mirrored = seen(2 * ENTRY - price, low=2 * ENTRY - high, high=2 * ENTRY - low)
    long = fired(LONG, seen(price, low=low, high=high), armed_seq=armed_seq)
    short = fired(SHORT, mirrored, armed_seq=armed_seq)
    assert [(reason, 2 * ENTRY - at) for reason, at in short] == long


@given(prices, prices, prices, st.sampled_from(Side))
def test_a_level_that_fires_still_fires_when_the_interval_is_wider(price, one, other, side):
    low, high = min(price, one), max(price, one)
    narrow = {reason for reason, _ in fired(side, seen(price, low=low, high=high))}
    wide = {reason for reason, _ in fired(side, seen(price, low=min(low, other), high=max(high, other)))}
    assert narrow <= wide


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
