"""The engine against a second evaluation of the same description, on ten thousand random paths; exact equality."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitmgr.replay.engine import Ready, Settings, replay
from exitmgr.rules.compile import Entry, compile_plan
from tests.exitmgr.replay.cases import START, holding_of, random_bars, random_position, refined, series_of
from tests.exitmgr.replay.oracle import Leaving, Oracle

CLOSES_AT = START + timedelta(minutes=30)
BLOCKS = 20


def exits_of(position, bars, *, adverse_first, leap=True):
    """Replay one position and return its exits as the oracle has them."""
    holding = holding_of(position)
    entry = Entry(side=holding.side, price=holding.entry_price, opened_at=holding.opened_at, closes_at=CLOSES_AT)
    one = Ready(holding, compile_plan(holding.plan, entry=entry), series_of(bars))
    (outcome,) = replay([one], settings=Settings(adverse_first=adverse_first, leap=leap))
    found = [Leaving(e.reason, e.at, e.trigger_price, e.exit_price, e.quantity) for e in outcome.exits]
    return found, outcome.remaining


def compare(rng):
    """Replay one random position both ways and return how many exits it had."""
    position, bars = random_position(rng), random_bars(rng, rng.choice((5, 20, 40)))
    adverse_first = rng.random() < 0.5
    oracle = Oracle(position, bars, adverse_first=adverse_first, session_close_at=CLOSES_AT)
    expected = oracle.run()
    found, remaining = exits_of(position, bars, adverse_first=adverse_first)
    assert found == expected, (position, bars, adverse_first)
    assert remaining == oracle.remaining
    return [leaving.reason for leaving in found]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_ten_thousand_random_paths_end_as_the_second_evaluation_says(block):
    rng = random.Random(block)
    reasons = [reason for _ in range(10_000 // BLOCKS) for reason in compare(rng)]
    assert set(reasons) >= {
        "stop_loss", "trailing_stop", "break_even", "time_limit", "stagnation", "session_close",
        "take_profit_1", "take_profit_2", "take_profit_3",
    }  # fmt: skip


@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_walking_every_bar_and_leaping_over_most_end_the_same(rng, adverse_first, fine):
    position, bars = random_position(rng), random_bars(rng, 60, step=rng.choice((5, 30)))
    bars = refined(rng, bars) if fine else bars
    leaping = exits_of(position, bars, adverse_first=adverse_first)
    assert leaping == exits_of(position, bars, adverse_first=adverse_first, leap=False)
    assert sum((leaving.quantity for leaving in leaping[0]), Decimal(0)) + leaping[1] == Decimal(position["qty"])


@pytest.mark.parametrize("seed", range(30))
def test_leaping_over_thousands_of_quiet_bars_passes_nothing_over(seed):
    rng = random.Random(seed)
    position, bars = random_position(rng, timers=False), random_bars(rng, 3_000, step=1, base=100_000)
    position["plan"].pop("time_limit_seconds", None)
    scaled = [(start, *(price / 10 for price in prices)) for start, *prices in bars]
    leaping = exits_of(position, scaled, adverse_first=seed % 2 == 0)
    assert leaping == exits_of(position, scaled, adverse_first=seed % 2 == 0, leap=False)
