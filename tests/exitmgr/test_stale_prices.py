"""Held instruments whose price has stopped coming: who is told of what, when, and when it is settled."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from alerts.models import Alert
from exitmgr.stale_prices import MOST_ALONE, tell_of_stale_prices
from positions.ledger import open_position
from positions.models import Instrument, Position, Quote, Session
from positions.values import Side
from tests import factories as f

D = Decimal
SECOND = timedelta(seconds=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def heard_at() -> datetime:
    """Return when the price of the one holding was heard; it has been held for an hour."""
    f.set_quote("100")
    _hold_for_an_hour("AAPL")
    return Quote.objects.get().received_at


def _hold_for_an_hour(symbol: str, **instrument: Any) -> Position:
    with transaction.atomic():
        return open_position(
            account=f.make_account(name=f"account-of-{symbol}".lower().replace(".", "-")),
            instrument=f.make_instrument(symbol, **instrument),
            side=Side.LONG,
            quantity=D(1),
            price=D(100),
            opened_at=f.utc_now() - timedelta(hours=1),
            strategy="",
        )


def unsettled() -> list[str]:
    """Return the keys of the alerts that stand."""
    return list(
        Alert.objects.filter(resolved_at__isnull=True).order_by("dedupe_key").values_list("dedupe_key", flat=True)
    )


def test_a_stale_price_of_a_holding_is_told_once_and_settled_by_a_fresh_one(heard_at: datetime) -> None:
    assert tell_of_stale_prices(now=heard_at + 60 * SECOND) == 0
    assert unsettled() == []

    for seconds in (61, 62, 63):
        assert tell_of_stale_prices(now=heard_at + seconds * SECOND) == 1
    alert = Alert.objects.get()
    assert (alert.dedupe_key, alert.severity, alert.count) == ("stale_price:AAPL", "warning", 1)
    assert (alert.title, alert.raised_at) == ("AAPL has no fresh price", heard_at + 61 * SECOND)
    assert "61 s ago" in alert.message

    later = heard_at + 100 * SECOND
    f.push_price("100", at=later, received=later)
    assert tell_of_stale_prices(now=later) == 0
    assert unsettled() == []
    assert Alert.objects.get().resolved_at == later

    assert tell_of_stale_prices(now=later + 61 * SECOND) == 1
    assert Alert.objects.count() == 2


@pytest.mark.parametrize(("_case", "max_age", "seconds", "stale"), [("shorter", 5, 6, 1), ("longer", 300, 299, 0)])
def test_each_instrument_has_its_own_age(
    heard_at: datetime, _case: str, max_age: int, seconds: int, stale: int
) -> None:
    Instrument.objects.update(max_age_seconds=max_age)
    assert tell_of_stale_prices(now=heard_at + seconds * SECOND) == stale


def test_nobody_is_told_of_what_nobody_holds(heard_at: datetime) -> None:
    f.set_quote("10", symbol="IBM")
    now = heard_at + 90 * SECOND
    assert tell_of_stale_prices(now=now) == 1
    Position.objects.update(status="closed", closed_at=now)
    assert tell_of_stale_prices(now=now) == 0
    assert unsettled() == []


def test_a_holding_whose_price_was_never_heard_is_told() -> None:
    _hold_for_an_hour("AAPL")
    assert tell_of_stale_prices(now=f.utc_now()) == 1
    assert "ever heard" in Alert.objects.get().message


def test_a_holding_that_is_new_is_given_time_for_its_first_price() -> None:
    f.make_instrument()
    position = _hold_for_an_hour("AAPL")
    now = f.utc_now()
    Position.objects.filter(pk=position.pk).update(opened_at=now - 59 * SECOND)
    assert tell_of_stale_prices(now=now) == 0
    assert tell_of_stale_prices(now=now + SECOND) == 1


@pytest.mark.parametrize(
    ("_case", "opened_ago", "closes_in", "stale"),
    [
        ("in the session", 3600, 3600, 1),
        ("the session opened less than an age ago", 59, 3600, 0),
        ("an age after it opened", 60, 3600, 1),
        ("before it opens", -600, 3600, 0),
        ("after the last session that is known", 3600, -1, 1),
    ],
)
def test_outside_the_session_a_price_may_be_old(
    heard_at: datetime, _case: str, opened_ago: int, closes_in: int, stale: int
) -> None:
    now = heard_at + 600 * SECOND
    Session.objects.create(calendar="XNYS", opens_at=now - opened_ago * SECOND, closes_at=now + closes_in * SECOND)
    Session.objects.create(calendar="XLON", opens_at=now + SECOND, closes_at=now + 9 * SECOND)
    assert tell_of_stale_prices(now=now) == stale


def test_an_alert_is_settled_when_the_session_ends(heard_at: datetime) -> None:
    now = heard_at + 600 * SECOND
    Session.objects.create(calendar="XNYS", opens_at=now - 3600 * SECOND, closes_at=now + SECOND)
    Session.objects.create(calendar="XNYS", opens_at=now + 3600 * SECOND, closes_at=now + 7200 * SECOND)
    assert tell_of_stale_prices(now=now) == 1
    assert tell_of_stale_prices(now=now + SECOND) == 0
    assert unsettled() == []


def test_a_feed_that_is_away_is_one_alert(heard_at: datetime) -> None:
    now = heard_at + 90 * SECOND
    assert tell_of_stale_prices(now=now) == 1
    for number in range(MOST_ALONE):
        _hold_for_an_hour(f"S{number:02}")

    assert tell_of_stale_prices(now=now) == MOST_ALONE + 1
    assert unsettled() == ["stale_price"]
    assert Alert.objects.get(dedupe_key="stale_price").title == f"{MOST_ALONE + 1} held instruments have no fresh price"
    assert tell_of_stale_prices(now=now + SECOND) == MOST_ALONE + 1
    assert Alert.objects.get(dedupe_key="stale_price").count == 1

    f.push_price("100", at=now, received=now)
    assert tell_of_stale_prices(now=now) == MOST_ALONE
    assert unsettled() == [f"stale_price:S{number:02}" for number in range(MOST_ALONE)]
