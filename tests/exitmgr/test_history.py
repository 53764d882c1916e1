"""Keeping bars fresh: when a broker is asked, when it is left alone, and what its failure costs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from exitmgr.history import refresh_bars, refresh_held_bars
from orders.brokers.protocol import PriceBar
from orders.errors import NotSent
from positions.models import Account, Bar
from positions.states import PositionStatus
from tests.factories import hold, make_account, make_instrument

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@dataclass
class Historian:
    """A broker with a bar for each midnight of New York, or one that fails."""

    error: Exception | None = None
    days: int = 30
    asked: list[str] = field(default_factory=list)

    def bars(self, symbol: str, *, start: datetime, end: datetime, seconds: int) -> list[PriceBar]:
        """Return flat bars, the newest of yesterday and today."""
        self.asked.append(symbol)
        if self.error:
            raise self.error
        assert seconds == 86_400
        price = Decimal(100)
        starts = [datetime(2026, 11, 20, 5, tzinfo=UTC) - day * DAY for day in range(self.days)]
        return [
            PriceBar(symbol=symbol, start=at, open=price, high=price, low=price, close=price)
            for at in reversed(starts)
            if start <= at <= end
        ]


def to(brokers: dict[int, Any] | Any) -> Callable[[Collection[int]], Callable[[int], Any]]:
    """Return a connect function: one broker for all accounts, or one for each."""
    return lambda _ids: lambda account_id: brokers[account_id] if isinstance(brokers, dict) else brokers


@pytest.fixture
def account() -> Account:
    """Return an account."""
    return make_account()


def test_missing_bars_are_fetched(account: Account) -> None:
    instrument, broker = make_instrument("AAPL"), Historian()
    assert refresh_bars(account=account, instrument=instrument, now=NOW, connect=to(broker)) == ""
    assert Bar.objects.filter(instrument=instrument, seconds=86_400).count() == 29
    assert Bar.objects.latest("start").start == datetime(2026, 11, 19, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("_case", "later", "asked"),
    [
        ("at once", timedelta(0), 1),
        ("a moment before the next bar is finished", 14 * timedelta(hours=1) - timedelta(microseconds=1), 1),
        ("when it is finished", 14 * timedelta(hours=1), 2),
        ("over the weekend", 3 * DAY, 2),
    ],
)
def test_a_broker_is_asked_when_a_new_bar_may_be_finished(
    account: Account, _case: str, later: timedelta, asked: int
) -> None:
    instrument, broker = make_instrument("AAPL"), Historian()
    for now in (NOW, NOW + later):
        refresh_bars(account=account, instrument=instrument, now=now, connect=to(broker))
    assert len(broker.asked) == asked


@pytest.mark.parametrize(
    ("_case", "later", "asked"),
    [("within the hour", timedelta(hours=1), 1), ("after it", timedelta(hours=1, microseconds=1), 2)],
)
def test_a_broker_with_nothing_new_is_left_alone_for_a_while(
    account: Account, _case: str, later: timedelta, asked: int
) -> None:
    instrument, broker = make_instrument("AAPL"), Historian(days=0)
    for now in (NOW, NOW + later):
        refresh_bars(account=account, instrument=instrument, now=now, connect=to(broker))
    assert len(broker.asked) == asked


def test_a_broker_that_fails_is_an_answer(account: Account) -> None:
    instrument, broker = make_instrument("AAPL"), Historian(error=NotSent("it is away"))
    assert refresh_bars(account=account, instrument=instrument, now=NOW, connect=to(broker)) == "it is away"
    assert not Bar.objects.exists()


def test_an_account_without_an_adapter_is_an_answer() -> None:
    from orders.brokers.registry import connect

    account = make_account(broker="nobody")
    said = refresh_bars(account=account, instrument=make_instrument("AAPL"), now=NOW, connect=connect)
    assert "names broker 'nobody'" in said


def test_what_is_held_is_refreshed_a_few_at_a_time(account: Account) -> None:
    for symbol in ("AAPL", "AAPL", "IBM", "GOOG", "MSFT"):
        hold(account=account, symbol=symbol)
    hold(symbol="TSLA").__class__.objects.filter(instrument__symbol="TSLA").update(
        status=PositionStatus.CLOSED, closed_at=NOW
    )
    make_instrument("NFLX")
    broker = Historian()

    tried = [refresh_held_bars(now=NOW, connect=to(broker)) for _ in range(3)]

    assert tried == [3, 1, 0]
    assert sorted(broker.asked) == ["AAPL", "GOOG", "IBM", "MSFT"]


def test_a_failing_broker_does_not_hold_up_the_others(account: Account) -> None:
    other = make_account()
    for symbol, holder in (("AAPL", account), ("IBM", account), ("MSFT", other)):
        hold(account=holder, symbol=symbol)
    failing, working = Historian(error=NotSent("it is away")), Historian()

    tried = refresh_held_bars(now=NOW, connect=to({account.pk: failing, other.pk: working}))

    assert (tried, failing.asked, working.asked) == (2, ["AAPL"], ["MSFT"])
