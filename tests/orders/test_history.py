"""Bars of a broker's history in our table: from a real simulator, and from one that says odd things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orders.brokers.protocol import Broker, PriceBar
from orders.brokers.registry import connect
from orders.errors import NotSent, Refused
from orders.history import fetch_bars
from positions.models import Bar, Instrument
from tests.factories import make_account, make_instrument
from tests.simulator.box import Box, start_box

D = Decimal
DAY = timedelta(days=1)
#: The bundled bars of this autumn end on 2008-10-31.
THEN = datetime(2008, 10, 25, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    path: Path = tmp_path_factory.mktemp("box")
    box = start_box(path)
    yield box
    box.stop()


@pytest.fixture
def aapl() -> Instrument:
    """Return an instrument."""
    return make_instrument("AAPL")


def told(day: int, close: Any = 100, **changed: Any) -> PriceBar:
    """Return a bar of a day in 2008, so many days after the first of September."""
    price = D(close)
    prices: dict[str, Any] = {"open": price, "high": price + 1, "low": price - 1, "close": price, "volume": D(5)}
    return PriceBar(symbol="AAPL", start=datetime(2008, 9, 1, 4, tzinfo=UTC) + day * DAY, **prices | changed)


@dataclass
class Historian:
    """A broker that only tells bars, and notes from when on it was asked."""

    bars_told: list[PriceBar] = field(default_factory=list)
    asked_from: list[datetime] = field(default_factory=list)

    def bars(self, _symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return the bars between two moments."""
        assert seconds == 86_400
        self.asked_from.append(start)
        return [bar for bar in self.bars_told if start <= bar.start <= end]


def fetch(broker: Any, instrument: Instrument, *, now: datetime, count: int = 10) -> int:
    """Fetch daily bars."""
    return fetch_bars(broker=broker, instrument=instrument, seconds=86_400, count=count, now=now)


def closes() -> list[Decimal]:
    """Return the stored closes, oldest first."""
    return list(Bar.objects.order_by("start").values_list("close", flat=True))


def test_the_simulators_history_is_stored_as_it_tells_it(box: Box, aapl: Instrument) -> None:
    account = make_account(url=box.url, key=box.key, secret=box.secret)
    broker: Broker = connect([account.pk])(account.pk)

    stored = fetch_bars(broker=broker, instrument=aapl, seconds=86_400, count=1_001, now=THEN)

    assert stored == Bar.objects.filter(instrument=aapl, seconds=86_400).count() == 38
    last = Bar.objects.latest("start")
    assert (last.start, last.open, last.high, last.low, last.close) == (
        datetime(2008, 10, 23, 13, 30, tzinfo=UTC),
        D("96.51"),
        D("99.25"),
        D("91.9"),
        D("98.23"),
    )


def test_what_the_broker_has_not_is_refused(box: Box, aapl: Instrument) -> None:
    account = make_account(url=box.url, key=box.key, secret=box.secret)
    broker = connect([account.pk])(account.pk)
    with pytest.raises(Refused, match="no bars of 7 seconds"):
        fetch_bars(broker=broker, instrument=aapl, seconds=7, count=10, now=THEN)
    assert not Bar.objects.exists()


def test_a_broker_that_cannot_be_reached_stores_nothing(aapl: Instrument) -> None:
    account = make_account()
    with pytest.raises(NotSent):
        fetch(connect([account.pk])(account.pk), aapl, now=THEN)
    assert not Bar.objects.exists()


def test_only_finished_bars_are_stored(aapl: Instrument) -> None:
    broker = Historian([told(day, 100 + day) for day in range(4)])
    assert fetch(broker, aapl, now=told(3).start + DAY - timedelta(microseconds=1)) == 3
    assert closes() == [100, 101, 102]


def test_later_only_what_is_missing_is_asked_for(aapl: Instrument) -> None:
    broker = Historian([told(day, 100 + day) for day in range(6)])
    fetch(broker, aapl, now=told(3).start)

    assert fetch(broker, aapl, now=told(6).start) == 3

    assert broker.asked_from[1] == told(2).start
    assert closes() == [100, 101, 102, 103, 104, 105]


def test_after_a_split_the_whole_history_is_told_anew(aapl: Instrument) -> None:
    broker = Historian([told(day, 100) for day in range(4)])
    fetch(broker, aapl, now=told(4).start)
    broker.bars_told = [told(day, 50) for day in range(5)]

    assert fetch(broker, aapl, now=told(5).start) == 5

    assert closes() == [50] * 5
    assert broker.asked_from == [broker.asked_from[0], told(3).start, broker.asked_from[0] + DAY]


def test_a_history_that_has_vanished_at_the_broker_stays_here(aapl: Instrument) -> None:
    broker = Historian([told(day, 100) for day in range(4)])
    fetch(broker, aapl, now=told(4).start)
    broker.bars_told = []
    assert fetch(broker, aapl, now=told(5).start) == 0
    assert closes() == [100] * 4


@pytest.mark.parametrize(
    ("_case", "odd"),
    [
        ("not a number", {"high": D("nan")}),
        ("no price", {"low": D(0)}),
        ("high below low", {"high": D(1)}),
        ("less than no volume", {"volume": D(-1)}),
    ],
)
def test_what_no_bar_can_be_is_left_out(
    aapl: Instrument, caplog: pytest.LogCaptureFixture, _case: str, odd: dict[str, Any]
) -> None:
    broker = Historian([told(0), told(1, **odd), told(2)])
    assert fetch(broker, aapl, now=told(9).start) == 2
    assert [bar.start for bar in Bar.objects.order_by("start")] == [told(0).start, told(2).start]
    assert "bars_left_out symbol=AAPL count=1 first=2008-09-02 04:00" in caplog.text


@pytest.mark.parametrize(
    ("_case", "seconds", "count", "days"),
    [("daily bars over weekends and holidays", 86_400, 10, 23), ("minutes of six hours a day", 60, 1_440, 13)],
)
def test_how_far_back_is_asked(aapl: Instrument, _case: str, seconds: int, count: int, days: int) -> None:
    asked: list[datetime] = []

    class Silent:
        """Has no bars."""

        def bars(self, _symbol: str, *, start: datetime, **_more: object) -> list[PriceBar]:
            """Return nothing."""
            asked.append(start)
            return []

    broker: Any = Silent()
    assert fetch_bars(broker=broker, instrument=aapl, seconds=seconds, count=count, now=THEN) == 0
    assert asked == [THEN - days * DAY]
