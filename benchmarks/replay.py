"""How many bars a second positions are replayed over, and how much of that comes from not walking quiet bars.

Two runs: the daily bars of September and October 2008, in which most positions are out within days, and minute bars
drawn between their prices, in which they are held for weeks. A position-bar is one bar a position was still held in.
"""

from __future__ import annotations

import csv
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from exitmgr.replay.bar_files import read_bars
from exitmgr.replay.bars import Series
from exitmgr.replay.engine import Settings, prepare, replay
from exitmgr.replay.holdings import Holding
from exitmgr.replay.results import Outcome
from exitmgr.rules.plan import Plan, parse_plan
from positions.values import Side

DAILY: Final = Path(__file__).parents[1] / "orders/brokers/simulator/bars/us_daily.csv"
FIRST: Final = datetime(2008, 9, 2, tzinfo=UTC)
LAST: Final = datetime(2008, 11, 1, tzinfo=UTC)
MINUTES: Final = 390
_TIGHT: Final = (
    {"stop_loss": {"pct": "5"}, "take_profits": [{"pct": "3", "fraction_pct": "50"}, {"pct": "6"}]},
    {"stop_loss": {"pct": "8"}, "trailing": {"pct": "4"}, "break_even": {"at_profit_pct": "2"}},
    {"stop_loss": {"pct": "6"}, "take_profits": [{"pct": "10"}], "time_limit_seconds": 864_000},
)
_WIDE: Final = (
    {"stop_loss": {"pct": "30"}, "take_profits": [{"pct": "15", "fraction_pct": "50"}, {"pct": "30"}]},
    {"stop_loss": {"pct": "40"}, "trailing": {"pct": "20", "activation_pct": "5"}},
    {"stop_loss": {"pct": "35"}, "take_profits": [{"pct": "40"}], "time_limit_seconds": 2_592_000},
)


def run(_ground: object = None, /, *, positions: int = 1_000, sample: int = 20) -> dict[str, Any]:
    """Measure and return the figures; it needs no service."""
    daily = read_bars(DAILY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minutes.csv"
        bars = _write_minutes(daily, path)
        began = time.perf_counter()
        minutes = read_bars(path)
        reading = time.perf_counter() - began
    return {
        "positions_each": positions * len(_TIGHT),
        "minute_bars": bars,
        "bars_read_per_second": round(bars / reading),
        **_measured("daily", daily, _TIGHT, positions=positions, sample=positions),
        **_measured("minute", minutes, _WIDE, positions=positions, sample=sample),
    }


def _measured(
    name: str, series: dict[str, Series], plans: Sequence[dict[str, Any]], *, positions: int, sample: int
) -> dict[str, Any]:
    """Replay every position with leaps and the first few bar by bar, which has to say the same."""
    held = list(_holdings(series, [parse_plan(plan) for plan in plans], positions))
    outcomes, seconds = _timed(held, series, leap=True)
    few = held[: sample * len(plans)]
    walked, walking = _timed(few, series, leap=False)
    assert walked == outcomes[: len(few)], "leaping over quiet bars changed what happens"
    rate, slow = _bars(outcomes) / seconds, _bars(walked) / walking
    return {
        f"{name}_position_bars": _bars(outcomes),
        f"{name}_exits": sum(len(outcome.exits) for outcome in outcomes),
        f"{name}_position_bars_per_second": round(rate),
        f"{name}_positions_per_second": round(len(outcomes) / seconds),
        f"{name}_bar_by_bar_per_second": round(slow),
        f"{name}_times_faster": round(rate / slow, 1),
    }


def _timed(held: Sequence[Holding], series: dict[str, Series], *, leap: bool) -> tuple[list[Outcome], float]:
    settings = Settings(leap=leap)
    began = time.perf_counter()
    outcomes = list(replay(prepare(held, series, settings=settings, source="benchmark"), settings=settings))
    return outcomes, time.perf_counter() - began


def _bars(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.end - outcome.first for outcome in outcomes)


def _holdings(series: dict[str, Series], plans: Sequence[Plan], positions: int) -> Iterator[Holding]:
    """Yield each position under each plan, entered at the open of a random bar of September."""
    dice = random.Random(1)
    symbols = sorted(series)
    for number in range(positions):
        bars = series[dice.choice(symbols)]
        bar = bars.bar(dice.randrange(bars.first_at(FIRST), bars.first_at(FIRST + timedelta(days=28))))
        side = dice.choice(list(Side))
        for place, plan in enumerate(plans):
            yield Holding(
                id=f"{number}-{place}",
                symbol=bars.symbol,
                side=side,
                quantity=Decimal(100),
                entry_price=bar.open,
                opened_at=bar.start,
                plan=plan,
                path=f"positions.{number}",
            )


def _write_minutes(daily: dict[str, Series], path: Path) -> int:
    """Write minute bars whose days open, peak, bottom out and close where the daily bars do; return how many."""
    dice, count = random.Random(2), 0
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ts", "symbol", "open", "high", "low", "close", "volume"))
        for symbol, series in sorted(daily.items()):
            for index in range(series.first_at(FIRST), series.first_at(LAST)):
                bar = series.bar(index)
                cents = [int(price * 100) for price in (bar.open, bar.low, bar.high, bar.close)]
                points = _path(cents, dice)
                for minute in range(MINUTES):
                    part = points[3 * minute : 3 * minute + 4]
                    start = (bar.start + timedelta(minutes=minute)).isoformat()
                    rows.writerow((start, symbol, *_dollars(part[0], max(part), min(part), part[-1]), 0))
                    count += 1
    return count


def _path(corners: Sequence[int], dice: random.Random) -> list[int]:
    """Return three steps a minute from corner to corner, a little off the straight line but within the corners."""
    least, most = min(corners), max(corners)
    steps = MINUTES  # a third of the day for each of the three stretches, three points a minute
    noise = max(1, (most - least) // 20)
    points = [corners[0]]
    for begin, end in pairwise(corners):
        for step in range(1, steps + 1):
            straight = begin + (end - begin) * step // steps
            away = dice.randint(-noise, noise) if step < steps else 0
            points.append(min(most, max(least, straight + away)))
    return points


def _dollars(*cents: int) -> list[str]:
    return [f"{each // 100}.{each % 100:02d}" for each in cents]
