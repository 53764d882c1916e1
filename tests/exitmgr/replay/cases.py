"""Random positions, plans and bars on a coarse grid, so that prices often meet levels exactly."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa

from exitmgr.replay.bars import Series, microseconds
from exitmgr.replay.holdings import Holding
from exitmgr.rules.plan import parse_plan
from positions.values import Side

D = Decimal
START = datetime(2008, 9, 29, 13, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CENT = D("0.01")


def series_of(bars, *, symbol="AAPL"):
    """Return bars (start, open, high, low, close) as a file would give them."""
    columns = list(zip(*bars, strict=True)) if bars else [(), (), (), (), ()]
    prices = {
        name: [str(price) for price in column]
        for name, column in zip(("open", "high", "low", "close"), columns[1:], strict=True)
    }
    floats = {name: np.array([float(price) for price in column]) for name, column in prices.items()}
    spelled = [start.isoformat().replace("+00:00", "Z") for start in columns[0]]
    return Series(
        symbol=symbol,
        starts=np.array([microseconds(start) for start in columns[0]], dtype=np.int64),
        opens=floats["open"], highs=floats["high"], lows=floats["low"], closes=floats["close"],
        rows=np.arange(len(bars)),
        columns={name: pa.array(column, pa.large_string()) for name, column in (prices | {"ts": spelled}).items()},
        told_apart=all(len(price) <= 15 for column in prices.values() for price in column),
    )  # fmt: skip


def refined(rng: random.Random, bars):
    """Return bars whose prices differ in digits a float does not hold."""
    fine = []
    for start, opened, high, low, closed in bars:
        more = [D(rng.randint(0, 9)) * D("1e-16") for _ in range(2)]
        fine.append((start, opened, high + more[0], low - more[1], closed))
    return fine


def holding_of(position):
    """Return a position given as JSON."""
    return Holding(
        id=position["id"], symbol=position["symbol"], side=Side.parse(position["side"]), quantity=D(position["qty"]),
        entry_price=D(position["entry_price"]), opened_at=datetime.fromisoformat(position["opened_at"]),
        plan=parse_plan(position.get("plan", {})), path="positions.0",
    )  # fmt: skip


def random_bars(rng: random.Random, count: int, *, step: int = 60, base: int = 10_000):
    """Return minute bars whose prices move by up to `step` cents between two corners, now and then with a jump."""
    bars, price, start = [], base, START
    for _ in range(count):
        price = max(100, price + (rng.randint(-4 * step, 4 * step) if rng.random() < 0.15 else rng.randint(-9, 9)))
        corners = [price]
        for _ in range(rng.choice((0, 1, 3, 3))):
            corners.append(max(100, corners[-1] + rng.choice((0, 10, 25, 50, step)) * rng.choice((-1, 1))))
        cents = [corners[0], max(corners), min(corners), corners[-1]]
        bars.append((start, *(D(each) * CENT for each in cents)))
        price = corners[-1]
        start += MINUTE * rng.choice((1, 1, 1, 1, 3))
    return bars


def random_plan(rng: random.Random, side: int, *, timers: bool = True):
    """Return a plan of any parts that fits an entry at 100."""
    plan = {}
    if rng.random() < 0.7:
        plan["stop_loss"] = rng.choice(
            [
                {"pct": rng.choice(("0.5", "1", "2"))},
                {"price": str(100 - side * rng.choice((1, 2)))},
                {"distance": "1.5"},
            ]
        )
    rungs = [
        {"pct": rng.choice(("0.4", "0.5", "1", "2", "3"))},
        {"price": str(100 + side * rng.choice((1, 2)))},
        {"schedule": [{"after_seconds": 60 * n, "pct": pct} for n, pct in ((0, "3"), (5, "1"), (12, "0.1"))][rng.choice((0, 0, 1)) :]},
        *([{"rr": rng.choice(("0.5", "1", "1.5"))}] if "stop_loss" in plan else []),
    ]  # fmt: skip
    count = rng.choice((0, 1, 1, 2, 3))
    if count:
        plan["take_profits"] = [
            rng.choice(rungs)
            | ({"fraction_pct": rng.choice(("25", "50", "33.3", "100"))} if rng.random() < 0.7 else {})
            for _ in range(count)
        ]
    if rng.random() < 0.5:
        trails = [
            rng.choice(({"pct": rng.choice(("0.5", "1", "2"))}, {"distance": rng.choice(("0.5", "1"))}))
            | ({"activation_pct": rng.choice(("0.5", "1", "2"))} if rng.random() < 0.6 else {})
            for _ in range(rng.choice((1, 1, 2)))
        ]
        plan["trailing"] = trails[0] if len(trails) == 1 and rng.random() < 0.5 else trails
    if rng.random() < 0.4:
        plan["break_even"] = {"at_profit_pct": rng.choice(("0.5", "1"))}
        if count and rng.random() < 0.5:
            plan["break_even"] = {"after_rung": rng.randint(1, count)}
        if rng.random() < 0.5:
            plan["break_even"]["offset_pct"] = "0.4" if "at_profit_pct" in plan["break_even"] else "0.05"
    if timers:
        if rng.random() < 0.3:
            plan["time_limit_seconds"] = rng.choice((30, 300, 600, 1200))
        if rng.random() < 0.3:
            plan["stagnation"] = {"seconds": rng.choice((120, 300, 600)), "move_pct": rng.choice(("0.5", "1"))}
        if rng.random() < 0.2:
            plan["session_close"] = {"minutes_before": rng.choice((0, 10))}
    return plan


def random_position(rng: random.Random, *, timers: bool = True):
    """Return a position as JSON, entered at 100 in one of the first bars."""
    side = rng.choice(("long", "short"))
    return {
        "id": "p", "symbol": "AAPL", "side": side, "qty": rng.choice(("1", "10", "3.7")), "entry_price": "100",
        "opened_at": (START + rng.choice((-1, 0, 0, 2)) * MINUTE / 2).isoformat(),
        "plan": random_plan(rng, 1 if side == "long" else -1, timers=timers),
    }  # fmt: skip
