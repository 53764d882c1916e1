"""Which of several exits that are due at once gives the reason: every pair of kinds, whichever was found first."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import permutations

import pytest

from exitmgr.rules.fire import by_precedence, fire_level, fire_timer, fire_trail
from exitmgr.rules.types import Decision, Direction, ExitReason, LevelTrigger, TimerTrigger, TrailTrigger
from positions.values import Basis, Range, Side, Snapshot, tradable_basis

D = Decimal
AT = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
#: Each tier outranks all below it; within the second the price decides, within the others the given order stays.
TIERS = (
    ("emergency", "daily_loss", "drawdown"),
    ("stop_loss", "trailing_stop", "break_even"),
    ("manual",),
    ("session_close", "time_limit", "stagnation"),
    ("take_profit_1", "take_profit_2", "take_profit_9"),
)
PAIRS = [
    (first, second)
    for number, tier in enumerate(TIERS)
    for first in tier
    for lower in TIERS[number + 1 :]
    for second in lower
]


def decided(reason: str, *, side: Side = Side.LONG, level: str = "100") -> Decision:
    """Return a decision with this reason, as a price that crossed its level, or without one where it has none."""
    crosses = reason in TIERS[1] or reason in TIERS[4]
    against = Direction.FALL if side is Side.LONG else Direction.RISE
    with_us = Direction.RISE if side is Side.LONG else Direction.FALL
    return Decision(
        reason=reason,
        fraction_pct=D(100),
        trigger_price=D(level) if crosses else None,
        seen_price=D(100),
        direction=(against if reason in TIERS[1] else with_us) if crosses else None,
    )


def reasons(*decisions: Decision) -> list[str]:
    """Return the reasons in their order of precedence."""
    return [decision.reason for decision in by_precedence(decisions)]


def test_the_tiers_hold_every_reason() -> None:
    named = {reason for tier in TIERS for reason in tier}
    assert {str(reason) for reason in ExitReason} <= named | {"take_profit_2", "take_profit_3"}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_higher_tier_goes_first_whatever_the_levels(first: str, second: str, side: Side) -> None:
    for level, other in (("90", "110"), ("100", "100"), ("110", "90")):
        one, two = decided(first, side=side, level=level), decided(second, side=side, level=other)
        assert reasons(one, two) == [first, second]
        assert reasons(two, one) == [first, second]


@pytest.mark.parametrize(("tight", "loose"), list(permutations(TIERS[1], 2)))
def test_of_two_stops_the_one_that_the_price_meets_first_gives_the_reason(tight: str, loose: str) -> None:
    for side, near, far in ((Side.LONG, "99", "95"), (Side.SHORT, "101", "105")):
        one, two = decided(tight, side=side, level=near), decided(loose, side=side, level=far)
        assert reasons(two, one) == [tight, loose]
        assert reasons(one, two) == [tight, loose]


@pytest.mark.parametrize("tier", [TIERS[0], TIERS[1], TIERS[3]])
def test_where_no_price_decides_the_given_order_stays(tier: tuple[str, ...]) -> None:
    for order in permutations(tier):
        assert reasons(*map(decided, order)) == list(order)


def test_rungs_met_by_one_jump_come_in_the_order_the_price_met_them() -> None:
    for side, levels in ((Side.LONG, ("101", "102", "109")), (Side.SHORT, ("99", "98", "91"))):
        rungs = [decided(reason, side=side, level=level) for reason, level in zip(TIERS[4], levels, strict=True)]
        for order in permutations(rungs):
            assert reasons(*order) == list(TIERS[4])


@pytest.mark.parametrize("side", Side)
def test_everything_that_one_interval_has_met_is_ranked(side: Side) -> None:
    """A long bought at 100 (a short mirrored) that saw 106 and then 94: every kind of trigger fires at once."""
    basis = tradable_basis(side)
    against, with_us = (Direction.FALL, Direction.RISE) if side is Side.LONG else (Direction.RISE, Direction.FALL)

    def at(distance: str) -> Decimal:
        return 100 + side * D(distance)

    low, high = sorted((at("-6"), at("6")))
    of = Range(at("-6"), low, high)
    seen = Snapshot(
        symbol="AAPL", bid=of, ask=of, last=of, mid=of, seq=9, from_seq=1, source_at=AT, received_at=AT
    )  # fmt: skip

    def level(slot: str, reason: str, distance: str, direction: Direction) -> Decision | None:
        trigger = LevelTrigger(slot=slot, reason=reason, basis=basis, direction=direction, level=at(distance))
        return fire_level(trigger, seen, armed_seq=0)

    def timer(reason: str) -> Decision | None:
        due = TimerTrigger(slot=reason, reason=reason, basis=basis, direction=against, due_at=AT)
        return fire_timer(due, seen, now=AT)

    trail = TrailTrigger(
        slot="trailing_1", reason="trailing_stop", basis=basis, direction=against, best=at("4"), offset=D(5)
    )
    found = [
        timer("stagnation"),
        level("take_profit_2", "take_profit_2", "5", with_us),
        level("stop_loss", "stop_loss", "-5", against),
        timer("session_close"),
        level("take_profit_1", "take_profit_1", "3", with_us),
        fire_trail(trail, seen, armed_seq=0),
        level("break_even", "break_even", "0.5", against),
        decided("manual"),
    ]
    assert None not in found
    assert reasons(*(decision for decision in found if decision)) == [
        "break_even", "trailing_stop", "stop_loss", "manual", "stagnation", "session_close", "take_profit_1",
        "take_profit_2",
    ]  # fmt: skip


def test_a_basis_that_fires_says_the_price_of_its_own() -> None:
    ranges = {
        basis: Range(D(price), D(price), D(price)) for basis, price in zip(Basis, (98, 102, 99, 100), strict=True)
    }
    seen = Snapshot(
        symbol="AAPL", bid=ranges[Basis.BID], ask=ranges[Basis.ASK], last=ranges[Basis.LAST], mid=ranges[Basis.MID],
        seq=1, from_seq=1, source_at=AT, received_at=AT,
    )  # fmt: skip
    for basis in Basis:
        trigger = LevelTrigger(
            slot="stop_loss", reason="stop_loss", basis=basis, direction=Direction.FALL, level=D(105)
        )
        decision = fire_level(trigger, seen, armed_seq=1)
        assert decision is not None
        assert decision.seen_price == ranges[basis].price
