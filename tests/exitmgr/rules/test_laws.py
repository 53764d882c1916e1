"""What holds for every plan: it compiles or says why not, mirrors, scales, never loosens, never sells too much."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from exitmgr.rules.compile import Compiled, Entry, Range, compile_plan
from exitmgr.rules.consequences import start
from exitmgr.rules.fire import best_price, fire_level, fire_trail, trail_level
from exitmgr.rules.plan import InvalidPlan, parse_plan
from exitmgr.rules.types import Act, Direction, LevelTrigger, TimerTrigger, TrailTrigger, Urgency, urgency_of
from orders.rounding import exit_quantity
from positions.values import Side
from tests.exitmgr.rules.values import AT, LONG, SHORT, D, compiled, seen
from tests.exitmgr.rules.written import amounts, plans

ranges = st.none() | amounts
entries = st.builds(
    Entry,
    side=st.sampled_from(Side),
    price=amounts,
    opened_at=st.datetimes(
        min_value=AT.replace(year=1990, tzinfo=None), max_value=AT.replace(year=2100, tzinfo=None)
    ).map(lambda at: at.replace(tzinfo=AT.tzinfo)),
    ranges=st.dictionaries(st.integers(1, 20), st.builds(Range, ranges, st.just("no bars"))),
    closes_at=st.none() | st.just(AT + timedelta(days=400)),
    fee_per_unit=st.just(D(0)) | amounts,
    now=st.none() | st.just(AT),
)


# Numbers of few digits, so that every level is exact: what is proved is the formula, not the arithmetic's rounding.
prices = st.decimals("0.01", "10000", places=2)
percents = st.decimals("0.01", "49.99", places=2)


@st.composite
def gentle_plans(draw):
    """Draw plans in percent that any entry can carry, with every kind of rule."""
    profit = draw(st.decimals("1", "40", places=2))
    return {
        "stop_loss": draw(st.fixed_dictionaries({"pct": percents}) | st.just({"atr": {"multiple": "0.5"}})),
        "take_profits": [
            {"pct": profit, "fraction_pct": draw(percents)},
            {"rr": "0.5"},
            {"schedule": [{"after_seconds": 0, "pct": draw(percents)}, {"after_seconds": 60, "pct": draw(percents)}]},
        ],
        "trailing": [
            {"pct": draw(percents)},
            {"pct": draw(percents), "activation_pct": draw(percents)},
            {"atr": {"multiple": "0.25"}},
        ],
        "break_even": draw(
            st.just({"at_profit_pct": profit, "offset_pct": "0.5", "include_fees": True})
            | st.just({"after_rung": 1, "offset_pct": "0.25"})
        ),
        "time_limit_seconds": 60,
        "stagnation": {"seconds": 60, "move_pct": draw(percents)},
    }


def outcome(written, on):
    """Return what a plan compiles to and no problems, or None and its problems."""
    try:
        return compile_plan(parse_plan(written), entry=on), {}
    except InvalidPlan as refused:
        return None, refused.problems


@given(plans | gentle_plans(), entries)
def test_every_plan_compiles_on_every_entry_or_says_what_is_wrong(written, on):
    made, problems = outcome(written, on)

    if made is None:
        assert problems
        assert all(path and text and "\n" not in path + text for path, text in problems.items())
        return
    slots = {trigger.slot: trigger for trigger in made.triggers}
    assert len(slots) == len(made.triggers)
    assert {trigger.after for trigger in made.triggers} - {""} <= slots.keys()
    for trigger in made.triggers:
        assert urgency_of(trigger.reason) in {Urgency.STOP, Urgency.TIMED, Urgency.TARGET}
        if isinstance(trigger, LevelTrigger):
            levels = [trigger.level] if trigger.level is not None else [step.level for step in trigger.steps]
            assert levels
            assert min(levels) > 0
        elif isinstance(trigger, TrailTrigger):
            assert (trigger.offset_pct is None) is not (trigger.offset is None)
            assert (trigger.best is None) is bool(trigger.after)


def levels_of(made: Compiled) -> list:
    """Return everything in the triggers that is a price or a distance, in their order."""
    return [
        value
        for trigger in made.triggers
        for value in (
            (trigger.level, *(step.level for step in trigger.steps))
            if isinstance(trigger, LevelTrigger)
            else (trigger.best, trail_level(trigger))
            if isinstance(trigger, TrailTrigger)
            else ()
        )
    ]


@given(gentle_plans(), prices)
def test_a_short_mirrors_a_long_about_the_entry_price(plan, price):
    fields = {"ranges": {14: Range(price / 10)}, "fee_per_unit": price / 10_000}
    plan["stagnation"]["move_pct"] = D(1)
    longs, shorts = compiled(plan, LONG, price, **fields), compiled(plan, SHORT, price, **fields)
    others = [trigger for trigger in longs.triggers if not trigger.slot.startswith("stagnation:")]
    mirrored = [trigger for trigger in shorts.triggers if not trigger.slot.startswith("stagnation:")]
    for long, short in zip(others, mirrored, strict=True):
        assert (long.slot, long.reason, long.fraction_pct, long.after) == (
            short.slot,
            short.reason,
            short.fraction_pct,
            short.after,
        )
        if not isinstance(long, TimerTrigger):
            assert long.direction is not short.direction
        if isinstance(long, TrailTrigger):
            assert (long.offset_pct, long.offset, long.best) == (short.offset_pct, short.offset, short.best)
    flipped = [
        None if level is None else 2 * price - level for level in levels_of(replace(shorts, triggers=tuple(mirrored)))
    ]
    assert levels_of(replace(longs, triggers=tuple(others))) == flipped
    # the gates of a stagnation are the same for both: a move is a move
    assert [(t.direction, t.level) for t in longs.triggers if t.slot.startswith("stagnation:")] == [
        (t.direction, t.level) for t in shorts.triggers if t.slot.startswith("stagnation:")
    ]


@given(gentle_plans(), prices, st.sampled_from(["0.001", "0.5", "2", "3", "1000"]), st.sampled_from(Side))
def test_prices_in_another_unit_give_levels_in_that_unit(plan, price, factor, side):
    factor = D(factor)
    one = compiled(plan, side, price, ranges={14: Range(price / 10)}, fee_per_unit=price / 10_000)
    other = compiled(
        plan, side, price * factor, ranges={14: Range(price / 10 * factor)}, fee_per_unit=price / 10_000 * factor
    )
    assert levels_of(other) == [None if level is None else level * factor for level in levels_of(one)]
    assert (other.ratio, len(other.notes)) == (one.ratio, len(one.notes))
    distances = [(t.offset_pct, t.offset) for t in one.triggers if isinstance(t, TrailTrigger)]
    assert [(t.offset_pct, t.offset) for t in other.triggers if isinstance(t, TrailTrigger)] == [
        (pct, None if offset is None else offset * factor) for pct, offset in distances
    ]


@given(gentle_plans(), prices, st.sampled_from(Side))
def test_every_level_lies_on_its_side_of_the_entry_price(plan, price, side):
    made = compiled(plan, side, price, ranges={14: Range(price / 10)})
    assert side * made.stop_price < side * price
    assert all(side * target > side * price for target in made.target_prices)


class Walking:
    """The stops of one plan on their way through prices: gates that are passed start what waits for them."""

    def __init__(self, made: Compiled, side: Side) -> None:
        self.against = Direction.FALL if side is LONG else Direction.RISE
        moving = [trigger for trigger in made.triggers if not isinstance(trigger, TimerTrigger)]
        self.armed = {trigger.slot: trigger for trigger in moving if not trigger.after}
        self.waiting = [trigger for trigger in moving if trigger.after]
        self.side = side

    def see(self, snapshot) -> bool:
        """Take one interval in; return whether a stop fires in it."""
        stops = [t for t in self.armed.values() if t.direction is self.against and not self._is_gate(t)]
        if any(
            fire_level(t, snapshot, armed_seq=1)
            if isinstance(t, LevelTrigger)
            else fire_trail(t, snapshot, armed_seq=1)
            for t in stops
        ):
            return True
        for slot, trigger in list(self.armed.items()):
            if isinstance(trigger, TrailTrigger):
                self.armed[slot] = replace(trigger, best=best_price(trigger, snapshot, armed_seq=1))
            elif self._is_gate(trigger) and trigger.act is not Act.RESTART:
                decision = fire_level(trigger, snapshot, armed_seq=1)
                if decision is not None:
                    del self.armed[slot]
                    for waiting in [t for t in self.waiting if t.after == slot]:
                        self.waiting.remove(waiting)
                        self.armed[waiting.slot] = start(waiting, price=snapshot.bid.price)
        return False

    def tightest(self):
        """Return the stop the price would meet first."""
        levels = [
            t.level if isinstance(t, LevelTrigger) else trail_level(t)
            for t in self.armed.values()
            if t.direction is self.against and not self._is_gate(t)
        ]
        return max(levels, key=lambda level: self.side * level)

    def _is_gate(self, trigger) -> bool:
        return isinstance(trigger, LevelTrigger) and (trigger.act is not Act.EXIT or trigger.rung > 0)


intervals = st.lists(st.tuples(*[st.decimals("90", "110", places=1)] * 3), max_size=12)
stop_plans = st.fixed_dictionaries(
    {
        "stop_loss": st.fixed_dictionaries({"pct": st.decimals("1", "9", places=1)}),
        "take_profits": st.just([{"pct": 3, "fraction_pct": 50}, {"pct": 20}]),
        "break_even": st.just({"at_profit_pct": 1}) | st.just({"after_rung": 1, "offset_pct": 1}),
    },
    optional={
        "trailing": st.lists(
            st.fixed_dictionaries(
                {"pct": st.decimals("1", "9", places=1)},
                optional={"activation_pct": st.decimals("0.5", "9", places=1)},
            )
            | st.fixed_dictionaries({"distance": st.decimals("1", "9", places=1)}),
            max_size=3,
        )
    },
)


@given(stop_plans, intervals, st.sampled_from(Side))
def test_a_stop_never_loosens_by_itself(plan, path, side):
    walking = Walking(compiled(plan, side), side)
    before = walking.tightest()
    for price, one, other in path:
        if walking.see(seen(price, low=min(price, one, other), high=max(price, one, other))):
            return
        now = walking.tightest()
        assert side * now >= side * before
        before = now


@given(
    st.lists(st.decimals("0.0001", "100", places=4), min_size=1, max_size=6),
    st.decimals("0.0001", "1000000", places=4),
    st.sampled_from(["0", "0.0001", "0.5", "1", "100"]),
)
def test_rungs_never_sell_more_than_there_is_and_the_last_whole_one_sells_the_rest(fractions, quantity, lot):
    plan = {"take_profits": [{"pct": rung, "fraction_pct": each} for rung, each in enumerate(fractions, start=1)]}
    rungs, remaining = compiled(plan).triggers, quantity
    for rung in rungs:
        sold = exit_quantity(fraction_pct=rung.fraction_pct, remaining=remaining, available=remaining, lot=D(lot))
        assert 0 <= sold <= remaining
        assert sold > 0 or remaining == 0
        remaining -= sold
        assert rung.fraction_pct < 100 or remaining == 0
    assert remaining >= 0
