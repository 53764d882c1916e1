"""Plans as JSON: such as parse, for property tests, and what is said of those that do not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from exitmgr.rules.plan import InvalidPlan, parse_plan

amounts = st.decimals("0.000000001", "1000000000", places=9)
percentages = st.decimals("0.0001", "100", places=4)
seconds = st.integers(1, 315_360_000)
orders = {
    "order_type": st.sampled_from(["market", "limit"]),
    "time_in_force": st.sampled_from(["day", "gtc", "ioc", "fok", "opg", "cls"]),
}
atrs = st.fixed_dictionaries({}, optional={"period": st.integers(1, 1000), "multiple": amounts})
schedules = st.lists(st.tuples(st.integers(0, 315_360_000), amounts), min_size=1, max_size=3).map(
    lambda steps: [{"after_seconds": at, "pct": pct} for at, pct in sorted(dict(steps).items())]
)


def one_of(optional: dict[str, st.SearchStrategy], **parts: st.SearchStrategy) -> st.SearchStrategy:
    """Return objects with exactly one of these parts, and any of the optional ones."""
    return st.one_of(*(st.fixed_dictionaries({key: part}, optional=optional) for key, part in parts.items()))


stops = one_of(orders, pct=percentages, price=amounts, distance=amounts, atr=atrs)
rungs = one_of({"fraction_pct": percentages, **orders}, pct=amounts, price=amounts, rr=amounts, schedule=schedules)
trails = one_of({"activation_pct": amounts}, pct=percentages, distance=amounts, atr=atrs)
fees = {"include_fees": st.booleans()}
plans = st.fixed_dictionaries(
    {"stop_loss": stops, "take_profits": st.lists(rungs, min_size=1, max_size=4)},
    optional={
        "trailing": trails | st.lists(trails, max_size=3),
        "break_even": st.fixed_dictionaries(
            {"at_profit_pct": st.decimals("2", "1000", places=4)},
            optional={"offset_pct": st.decimals("0", "1.9999", places=4), **fees},
        )
        | st.fixed_dictionaries({"after_rung": st.just(1)}, optional={"offset_pct": percentages, **fees}),
        "time_limit_seconds": seconds,
        "stagnation": st.fixed_dictionaries({"seconds": seconds, "move_pct": percentages}),
        "session_close": st.fixed_dictionaries({}, optional={"minutes_before": st.integers(0, 1440)}),
        "price_source": st.sampled_from(["tradable", "last", "mid"]),
    },
)


def problems_of(written: Any) -> dict[str, str] | None:
    """Return what is wrong with a plan, None if nothing is."""
    try:
        parse_plan(written)
    except InvalidPlan as refused:
        return refused.problems
    return None
