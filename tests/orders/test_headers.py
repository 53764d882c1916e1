"""What the headers of Alpaca's answers say of limits and clocks, and that whoever asked hears it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from urllib3 import HTTPHeaderDict

from orders.brokers.alpaca import connect
from orders.brokers.alpaca_transport import heard_in
from orders.brokers.headers import Heard, take_heard
from orders.errors import NotSent
from tests.simulator.box import Box, start_box

#: 2026-03-02 15:00:00 UTC, and the same as a Date.
AT = 1772463600.0
DATE = "Mon, 02 Mar 2026 15:00:00 GMT"
RESET = str(int(AT) + 40)


@pytest.mark.parametrize(
    ("_case", "status", "headers", "heard"),
    [
        (
            "an answer of Alpaca's",
            200,
            {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "180", "X-RateLimit-Reset": RESET, "Date": DATE},
            Heard(limit=200, remaining=180, reset_seconds=40.0, clock_ahead_seconds=0.5),
        ),
        (
            "turned away, whatever it says is left",
            429,
            {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": RESET, "Date": DATE},
            Heard(limit=200, remaining=0, reset_seconds=40.0, turned_away=True, clock_ahead_seconds=0.5),
        ),
        (
            "turned away with a wait alone",
            429,
            {"Retry-After": "7"},
            Heard(remaining=0, reset_seconds=7.0, turned_away=True),
        ),
        ("turned away without a word", 429, {}, Heard(remaining=0, turned_away=True)),
        ("no Date: the reset by our clock", 200, {"X-RateLimit-Reset": RESET}, Heard(reset_seconds=40.0)),
        (
            "a reset that is over",
            200,
            {"X-RateLimit-Reset": "1", "Date": DATE},
            Heard(reset_seconds=0.0, clock_ahead_seconds=0.5),
        ),
        ("a reset that is nonsense", 200, {"X-RateLimit-Reset": "9e99"}, Heard(reset_seconds=120.0)),
        ("nothing", 200, {}, Heard()),
        ("nonsense", 200, {"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "nan", "Date": "today"}, Heard()),
    ],
)
def test_what_headers_say(_case, status, headers, heard):
    assert heard_in(HTTPHeaderDict(headers), status=status, at=AT) == heard


def test_the_reset_is_counted_by_the_brokers_own_clock():
    headers = HTTPHeaderDict({"X-RateLimit-Reset": RESET, "Date": DATE})
    heard = heard_in(headers, status=200, at=AT - 3600)
    assert (heard.reset_seconds, heard.clock_ahead_seconds) == (40.0, 3600.5)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Return a simulator that takes one request a minute."""
    made = start_box(tmp_path)
    made.control("POST", "/rate_limit", {"per_minute": 1})
    yield made
    made.stop()


def test_whoever_asked_hears_the_broker_also_where_it_refused(box: Box):
    broker = connect(base_url=box.url, key=box.key, secret=box.secret)
    take_heard()
    said = []
    for _ in range(4):  # at least two are turned away, also where the minute ends meanwhile
        with suppress(NotSent):
            broker.account()
        said.append(take_heard())
    broker.close()
    assert take_heard() is None
    assert box.control("GET", "/rate_limit")["turned_away"] == sum(heard.turned_away for heard in said)
    assert {heard.limit for heard in said} == {1}
    turned_away = [heard for heard in said if heard.turned_away]
    assert len(turned_away) >= 2
    assert 0 <= turned_away[0].reset_seconds <= 60
    assert abs(turned_away[0].clock_ahead_seconds) < 2
