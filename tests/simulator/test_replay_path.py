"""The path inside a daily bar, and the bars of the repository."""

import csv
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.brokers.simulator import replay_path
from orders.brokers.simulator.replay_path import Bar, interpolate, quote_around, read_bars
from tests.simulator.box import ROOT

CSV = ROOT / "orders/brokers/simulator/bars/us_daily.csv"
HEADER = "ts,symbol,open,high,low,close,volume\n"
CENTS = st.integers(min_value=1, max_value=1_000_000).map(lambda cents: Decimal(cents) / 100)


def bar_of(open_: str, high: str, low: str, close: str) -> Bar:
    prices = [Decimal(price) for price in (open_, high, low, close)]
    return Bar("2008-09-29T13:30:00Z", "AAPL", *prices, 1000)


@st.composite
def any_bar(draw: st.DrawFn) -> Bar:
    low, *inner, high = sorted(draw(st.lists(CENTS, min_size=4, max_size=4)))
    if draw(st.booleans()):
        inner.reverse()
    return Bar("2008-09-29T13:30:00Z", "AAPL", inner[0], high, low, inner[1], 1000)


@given(bar=any_bar(), steps=st.integers(min_value=4, max_value=400))
def test_a_path_touches_all_four_prices_in_order_and_nothing_outside(bar: Bar, steps: int) -> None:
    path = interpolate(bar, steps=steps)
    assert len(path) == steps
    assert (path[0], path[-1]) == (bar.open, bar.close)
    assert (min(path), max(path)) == (bar.low, bar.high)
    first, second = (bar.low, bar.high) if bar.close >= bar.open else (bar.high, bar.low)
    assert second in path[path.index(first) :]
    assert all(price == price.quantize(Decimal("0.01")) for price in path)
    assert interpolate(bar, steps=steps) == path


@given(bar=any_bar(), steps=st.integers(min_value=4, max_value=200))
def test_a_path_turns_at_most_twice(bar: Bar, steps: int) -> None:
    moves = [after - before for before, after in pairwise(interpolate(bar, steps=steps)) if after != before]
    turns = sum(1 for before, after in pairwise(moves) if (before > 0) != (after > 0))
    assert turns <= 2


def test_a_falling_bar_goes_up_first() -> None:
    assert interpolate(bar_of("10", "12", "7", "8"), steps=4) == [Decimal(n) for n in ("10", "12", "7", "8")]


def test_a_rising_bar_goes_down_first() -> None:
    assert interpolate(bar_of("8", "12", "7", "10"), steps=4) == [Decimal(n) for n in ("8", "7", "12", "10")]


def test_three_steps_cannot_touch_four_prices() -> None:
    with pytest.raises(ValueError, match="steps must be at least 4, not 3"):
        interpolate(bar_of("8", "12", "7", "10"), steps=3)


@pytest.mark.parametrize(
    ("_case", "last", "spread_bps", "bid", "ask"),
    [
        ("no spread", "28.19", "0", "28.19", "28.19"),
        ("five basis points", "100", "5", "99.97", "100.03"),
        ("never less than a cent a side", "1.50", "5", "1.49", "1.51"),
    ],
)
def test_a_quote_surrounds_its_last_price(_case: str, last: str, spread_bps: str, bid: str, ask: str) -> None:
    quote = quote_around(symbol="AAPL", last=Decimal(last), spread_bps=Decimal(spread_bps), at="")
    assert (quote.bid, quote.ask, quote.last) == (Decimal(bid), Decimal(ask), Decimal(last))


@pytest.mark.parametrize(
    ("_case", "text", "problem"),
    [
        ("another header", "date,open\n", "the first line must be"),
        ("an empty file", "", "the first line must be"),
        ("a row that is too short", HEADER + "2008-09-29T13:30:00Z,AAPL,1\n", "line 2: not a bar"),
        ("a price in words", HEADER + "2008-09-29T13:30:00Z,AAPL,x,2,1,1,5\n", "line 2: not a bar"),
        ("a close above the high", HEADER + "2008-09-29T13:30:00Z,AAPL,1,2,1,3,5\n", "between low and high"),
    ],
)
def test_a_file_that_is_not_bars_says_where(_case: str, text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_bars(path)


@pytest.mark.parametrize(
    ("_case", "ts", "field", "value"),
    [
        ("Apple closes at 53.50", "2000-09-28T13:30:00Z", "close", "53.5"),
        ("and opens at 28.19 after its warning", "2000-09-29T13:30:00Z", "open", "28.19"),
        ("the flash crash low", "2010-05-06T13:30:00Z", "low", "199.25"),
    ],
)
def test_the_famous_days_are_right(_case: str, ts: str, field: str, value: str) -> None:
    bar = next(bar for bar in read_bars(CSV) if (bar.ts, bar.symbol) == (ts, "AAPL"))
    assert getattr(bar, field) == Decimal(value)


def test_the_committed_bars_are_those_of_the_package(tmp_path: Path) -> None:
    output = tmp_path / "bars.csv"
    subprocess.run([sys.executable, ROOT / "script/market_data", output], check=True, capture_output=True)
    assert output.read_bytes() == CSV.read_bytes()


def test_the_committed_bars_equal_the_published_series() -> None:
    from bokeh_sampledata import stocks

    with CSV.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 355
    for row in rows:
        series = getattr(stocks, row["symbol"])
        at = series["date"].index(row["ts"][:10])
        for name in replay_path.COLUMNS[2:]:
            assert float(row[name]) == series[name][at], row
