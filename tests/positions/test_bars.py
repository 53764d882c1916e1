"""One-minute bars, and that a position's extremes never contain a price from before its entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from positions import tasks
from positions.bars import (
    bar_start,
    bars_of_minutes,
    note_extremes,
    peak_and_trough,
    recent_bars,
    roll_bars,
    save_bars,
)
from positions.feeds.protocol import Tick
from positions.models import Account, Bar, Instrument, Position, Quote
from positions.quotes import write_quotes
from positions.values import Candle

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class HistoricalBar:
    """A bar as a broker's history has it."""

    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def bar(minute: int, *prices: Any) -> HistoricalBar:
    """Return the bar of a minute after noon: open, high, low, close."""
    return HistoricalBar(NOON + minute * MINUTE, *(Decimal(price) for price in prices), Decimal(500))


def trade(price: Any, *, seconds: float, symbol: str = "AAPL") -> None:
    """Write one last price, so many seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    write_quotes(ticks=[Tick(symbol, None, None, Decimal(price), at)], source="test", now=at, ring=lambda: None)


@pytest.fixture
def aapl(db: None) -> Instrument:
    """Return an instrument whose prices may jump."""
    return Instrument.objects.create(symbol="AAPL", collar_pct=1_000)


def position(instrument: Instrument, *, seconds: float, price: Any = 100, **fields: Any) -> Position:
    """Return a position opened so many seconds after noon."""
    account, _ = Account.objects.get_or_create(
        name="a", defaults={"broker": "paper", "created_at": NOON, "updated_at": NOON}
    )
    return Position.objects.create(
        account=account, instrument=instrument, side=1, quantity=2, entry_cost=2 * Decimal(price),
        opened_at=NOON + timedelta(seconds=seconds), **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "at", "start"),
    [
        ("its first moment", NOON, NOON),
        ("its last", NOON + MINUTE - timedelta(microseconds=1), NOON),
        ("the next", NOON + MINUTE, NOON + MINUTE),
    ],
)
def test_a_minute_begins_at_second_zero(_case: str, at: datetime, start: datetime) -> None:
    assert bar_start(at) == start


def test_a_finished_minute_is_rolled_once(aapl: Instrument) -> None:
    for seconds, price in ((1, 100), (20, 104), (40, 97), (59.9, 101)):
        trade(price, seconds=seconds)

    assert roll_bars(now=NOON + MINUTE - timedelta(microseconds=1)) == 0
    assert not Bar.objects.exists()
    assert roll_bars(now=NOON + MINUTE) == 1
    assert roll_bars(now=NOON + 2 * MINUTE) == 0

    rolled = Bar.objects.get()
    assert (rolled.instrument_id, rolled.start, rolled.seconds) == (aapl.pk, NOON, 60)
    assert (rolled.open, rolled.high, rolled.low, rolled.close, rolled.volume) == (100, 104, 97, 101, 0)
    quote = Quote.objects.get()
    assert (quote.bar_open, quote.bar_low, quote.bar_high) == (None, None, None)
    assert (quote.last, quote.last_low, quote.last_high, quote.seq) == (101, 97, 104, 4)


def test_a_late_price_widens_the_bar_of_its_minute(aapl: Instrument) -> None:
    trade(100, seconds=10)
    roll_bars(now=NOON + MINUTE)
    at = NOON + timedelta(seconds=50)  # told after the minute was rolled
    write_quotes(
        ticks=[Tick("AAPL", None, None, Decimal(price), at) for price in (90, 110, 95)],
        source="test", now=NOON + MINUTE, ring=lambda: None,
    )  # fmt: skip
    roll_bars(now=NOON + MINUTE)

    assert Bar.objects.values_list("open", "high", "low", "close").get() == (100, 110, 90, 95)


def test_more_rows_than_one_portion_are_all_rolled(db: None) -> None:
    instruments = Instrument.objects.bulk_create(Instrument(symbol=f"S{n}") for n in range(1_001))
    ticks = [Tick(one.symbol, None, None, Decimal(100), NOON) for one in instruments]
    write_quotes(ticks=ticks, source="test", now=NOON, ring=lambda: None)

    assert roll_bars(now=NOON + MINUTE) == 1_001
    assert Bar.objects.filter(start=NOON, close=100).count() == 1_001


def test_the_task_rolls_by_the_clock(aapl: Instrument) -> None:
    trade(100, seconds=0)

    tasks.roll_bars(later_argument=1)

    assert tasks.roll_bars.name == "positions.roll_bars"
    assert Bar.objects.get().close == 100


def test_a_brokers_history_replaces_our_own_bars(aapl: Instrument) -> None:
    trade(100, seconds=10)
    roll_bars(now=NOON + MINUTE)

    assert (
        save_bars(instrument_id=aapl.pk, seconds=60, bars=[bar(0, 99, 103, 98, 102), bar(1, 102, 102, 101, 101)]) == 2
    )
    assert save_bars(instrument_id=aapl.pk, seconds=86_400, bars=[bar(0, 90, 110, 89, 101)]) == 1
    assert save_bars(instrument_id=aapl.pk, seconds=60, bars=[]) == 0

    found = Bar.objects.order_by("seconds", "start").values_list(
        "seconds", "start", "open", "high", "low", "close", "volume"
    )
    assert list(found) == [
        (60, NOON, 99, 103, 98, 102, 500),
        (60, NOON + MINUTE, 102, 102, 101, 101, 500),
        (86_400, NOON, 90, 110, 89, 101, 500),
    ]


@pytest.mark.parametrize(
    ("_case", "opened", "until", "extremes"),
    [
        ("opened on the minute: its bar counts", 0, 180, (140, 60)),
        ("opened within the minute: the next bar is the first", 1, 180, (130, 70)),
        ("until the end of a bar", 1, 120, (130, 100)),
        ("a moment before its end it does not count", 1, 119.9, (100, 100)),
        ("nothing but the entry", 170, 180, (100, 100)),
    ],
)
def test_extremes_count_whole_minutes_after_the_entry(
    aapl: Instrument, _case: str, opened: float, until: float, extremes: tuple[int, int]
) -> None:
    save_bars(
        instrument_id=aapl.pk,
        seconds=60,
        bars=[
            bar(-1, 100, 200, 10, 100),
            bar(0, 100, 140, 60, 100),
            bar(1, 100, 130, 100, 110),
            bar(2, 110, 120, 70, 90),
        ],
    )
    save_bars(instrument_id=aapl.pk, seconds=3_600, bars=[bar(0, 100, 900, 1, 100)])

    found = peak_and_trough(position(aapl, seconds=opened), until=NOON + timedelta(seconds=until))

    assert found == extremes


@pytest.mark.parametrize(
    ("_case", "opened", "until", "extremes"),
    [
        ("opened before the minute in the making", 50, 100, (130, 80)),
        ("opened as it began", 60, 100, (130, 80)),
        ("opened within it: only the newest price counts", 61, 100, (105, 100)),
        ("opened after the newest price", 91, 100, (100, 100)),
        ("left before the newest price", 50, 89, (100, 100)),
    ],
)
def test_extremes_count_the_minute_in_the_making(
    aapl: Instrument, _case: str, opened: float, until: float, extremes: tuple[int, int]
) -> None:
    for seconds, price in ((55, 500), (62, 130), (70, 80), (90, 105)):
        trade(price, seconds=seconds)

    found = peak_and_trough(position(aapl, seconds=opened), until=NOON + timedelta(seconds=until))

    assert found == extremes


def test_extremes_hold_the_entry_and_the_exit(aapl: Instrument) -> None:
    left = position(aapl, seconds=0, price=100, last_exit_price=Decimal("107.5"))

    assert peak_and_trough(left, until=NOON + MINUTE) == (Decimal("107.5"), 100)


def test_the_extremes_of_a_closed_position_are_noted_once(aapl: Instrument) -> None:
    left = position(
        aapl, seconds=0, exited=2, status="closed", closed_at=NOON + 5 * MINUTE, last_exit_price=Decimal(98)
    )
    bars = [bar(-1, 100, 130, 70, 100), bar(0, 100, 104, 97, 100), bar(1, 100, 103, 96, 100)]
    save_bars(instrument_id=aapl.pk, seconds=60, bars=bars)

    assert note_extremes() == 1
    left.refresh_from_db()
    assert (left.peak, left.trough) == (104, 96)  # the minute before the entry does not count
    assert note_extremes() == 0


def stored(symbol: Instrument, minutes: int, *prices: Any, seconds: int = 60, volume: int = 1) -> None:
    """Store the bar of so many minutes after noon: open, high, low, close."""
    save_bars(
        instrument_id=symbol.pk,
        seconds=seconds,
        bars=[HistoricalBar(NOON + minutes * MINUTE, *(Decimal(price) for price in prices), Decimal(volume))],
    )


def test_recent_bars_are_the_newest_finished_ones_of_a_length(aapl: Instrument) -> None:
    other = Instrument.objects.create(symbol="MSFT")
    for minute in range(4):
        stored(aapl, minute, 10, 20, 9, 10 + minute)
    stored(aapl, 0, 20, 20, 20, 20, seconds=300)
    stored(other, 2, 30, 30, 30, 30)

    def closes(until: datetime, limit: int) -> list[Decimal]:
        return [bar.close for bar in recent_bars(instrument_id=aapl.pk, seconds=60, until=until, limit=limit)]

    assert closes(NOON + 4 * MINUTE, 10) == [10, 11, 12, 13]
    assert closes(NOON + 4 * MINUTE, 2) == [12, 13]
    assert closes(NOON + 4 * MINUTE - timedelta(microseconds=1), 2) == [11, 12]
    assert closes(NOON, 10) == []


def test_minutes_make_up_longer_bars(aapl: Instrument) -> None:
    stored(aapl, 2, 50, 50, 50, 50)  # in the oldest bar, which may have begun before
    stored(aapl, 5, 10, 12, 10, 11, volume=3)
    stored(aapl, 7, 11, 15, 8, "9.50", volume=4)  # a minute between them without a trade
    stored(aapl, 10, 20, 21, 19, 20)
    stored(aapl, 14, 20, 25, 20, 24)
    stored(aapl, 15, 30, 30, 30, 30)  # in a bar that is not finished

    bars = bars_of_minutes(instrument_id=aapl.pk, seconds=300, until=NOON + 16 * MINUTE, limit=10)

    assert bars == [
        Candle(NOON + 5 * MINUTE, *(Decimal(price) for price in ("10", "15", "8", "9.5", "7"))),
        Candle(NOON + 10 * MINUTE, *(Decimal(price) for price in ("20", "25", "19", "24", "2"))),
    ]
    assert bars_of_minutes(instrument_id=aapl.pk, seconds=300, until=NOON + 16 * MINUTE, limit=1) == bars[1:]


@pytest.mark.parametrize(
    ("_case", "until", "count"),
    [
        ("the bar ends now", NOON + 15 * MINUTE, 2),
        ("a moment before its end", NOON + 15 * MINUTE - timedelta(microseconds=1), 1),
        ("nothing is finished", NOON, 0),
    ],
)
def test_only_finished_bars_are_made_up(aapl: Instrument, _case: str, until: datetime, count: int) -> None:
    for minute in (2, 5, 10, 14):
        stored(aapl, minute, 10, 10, 10, 10)
    assert len(bars_of_minutes(instrument_id=aapl.pk, seconds=300, until=until, limit=10)) == count


def test_days_of_minutes_begin_at_midnight_in_utc(aapl: Instrument) -> None:
    day = 1440
    for minutes in (0, day, day + 719, day + 720, 2 * day + 720):  # 23:59 and midnight among them
        stored(aapl, minutes, 10, 10, 10, 10)
    bars = bars_of_minutes(instrument_id=aapl.pk, seconds=86_400, until=NOON + 4 * day * MINUTE, limit=10)
    assert [bar.start for bar in bars] == [datetime(2026, 3, day, tzinfo=UTC) for day in (3, 4, 5)]
