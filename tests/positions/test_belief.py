"""Which prints are believed, at each boundary, and that judging many at once says the same as one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions import intervals
from positions.belief import Limits, Refusal, Suspect, View, complete, judge
from positions.feeds.protocol import Tick
from positions.intervals import sum_up

NOW = datetime(2026, 3, 2, 15, 30, 30, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SEEN = View(Decimal("99.9"), Decimal("100.1"), Decimal(100), NOW - timedelta(seconds=1))
LIMITS = Limits.at(NOW, collar_pct=Decimal(20))


def tick(bid: Any = None, ask: Any = None, last: Any = None, *, at: datetime = NOW) -> Tick:
    """Return a tick with prices given as text."""
    return Tick("AAPL", *(None if price is None else Decimal(price) for price in (bid, ask, last)), at)


def doubted(price: Any, *, at: datetime = NOW) -> Suspect:
    """Return a suspect trade."""
    return Suspect(Decimal(price), View(Decimal(price), Decimal(price), Decimal(price), at))


@pytest.mark.parametrize(
    ("_case", "print_", "expected"),
    [
        ("all three", tick("100", "100.2", "100.1"), ("100", "100.2", "100.1")),
        ("the last price alone stands for both sides", tick(last="101"), ("101", "101", "101")),
        ("without a last price the one before stays", tick("101", "102"), ("101", "102", "100")),
        ("a missing ask is the last price", tick("99", last="99.5"), ("99", "99.5", "99.5")),
        ("a missing ask never crosses the bid", tick("99", last="98.5"), ("99", "99", "98.5")),
        ("a missing bid is the last price", tick(ask="101", last="100.5"), ("100.5", "101", "100.5")),
        ("a missing bid never crosses the ask", tick(ask="101", last="101.5"), ("101", "101", "101.5")),
        ("a bid alone takes the last price of before as ask", tick("99"), ("99", "100", "100")),
        ("an ask alone below the last price of before", tick(ask="99"), ("99", "99", "100")),
        ("a locked book", tick("100", "100", "100"), ("100", "100", "100")),
    ],
)
def test_a_believable_print_is_accepted_whole(_case: str, print_: Tick, expected: tuple[str, ...]) -> None:
    verdict = judge(print_, seen=SEEN, suspect=None, limits=LIMITS)

    assert verdict == (View(*(Decimal(price) for price in expected), NOW), None, None)


@pytest.mark.parametrize(
    ("_case", "print_", "expected"),
    [
        ("mid stands for a last price nobody told yet", tick("99", "101"), ("99", "101", "100")),
        ("a bid alone is all there is", tick("99"), ("99", "99", "99")),
        ("no collar before the first price", tick(last="1"), ("1", "1", "1")),
    ],
)
def test_the_first_print_stands_alone(_case: str, print_: Tick, expected: tuple[str, ...]) -> None:
    verdict = judge(print_, seen=None, suspect=None, limits=LIMITS)

    assert verdict == (View(*(Decimal(price) for price in expected), NOW), None, None)


@pytest.mark.parametrize(
    ("_case", "print_", "refusal"),
    [
        ("nothing told", tick(), Refusal.NO_PRICE),
        ("not a number", tick("NaN", "100", "100"), Refusal.NOT_A_NUMBER),
        ("a signalling one", tick(last="sNaN"), Refusal.NOT_A_NUMBER),
        ("infinite", tick("100", "Infinity"), Refusal.NOT_A_NUMBER),
        ("zero", tick("0", "100", "100"), Refusal.NOT_POSITIVE),
        ("negative", tick(last="-1"), Refusal.NOT_POSITIVE),
        ("smaller than a column holds", tick(last="1e-19"), Refusal.OUT_OF_RANGE),
        ("larger than a column holds", tick(last="1e20"), Refusal.OUT_OF_RANGE),
        ("crossed by a cent", tick("100.01", "100", "100"), Refusal.CROSSED),
        ("a moment older than the last", tick(last="100", at=SEEN.source_at - MICROSECOND), Refusal.OLDER_THAN_LAST),
        ("a moment too far ahead", tick(last="100", at=LIMITS.newest + MICROSECOND), Refusal.AHEAD_OF_CLOCK),
    ],
)
def test_an_unbelievable_print_is_refused_and_leaves_the_suspect(_case: str, print_: Tick, refusal: Refusal) -> None:
    suspect = doubted(150)

    assert judge(print_, seen=SEEN, suspect=suspect, limits=LIMITS) == (None, refusal, suspect)


@pytest.mark.parametrize(
    ("_case", "at", "refusal"),
    [
        ("as old as allowed", LIMITS.oldest, None),
        ("a moment older", LIMITS.oldest - MICROSECOND, Refusal.STALE),
        ("as far ahead as allowed", LIMITS.newest, None),
        ("a moment further", LIMITS.newest + MICROSECOND, Refusal.AHEAD_OF_CLOCK),
    ],
)
def test_age_is_judged_by_our_clock(_case: str, at: datetime, refusal: Refusal | None) -> None:
    assert judge(tick(last="100", at=at), seen=None, suspect=None, limits=LIMITS).refusal == refusal


def test_a_print_of_the_same_moment_is_not_older() -> None:
    assert judge(tick(last="100", at=SEEN.source_at), seen=SEEN, suspect=None, limits=LIMITS).refusal is None


@pytest.mark.parametrize(
    ("_case", "print_", "suspect"),
    [
        ("bid exactly at the collar", tick("79.92", "100.1"), None),
        ("bid beyond it", tick("79.91", "100.1"), "79.91"),
        ("ask exactly at the collar", tick("99.9", "120.12"), None),
        ("ask beyond it", tick("99.9", "120.13"), "120.13"),
        ("last at the collar below the bid", tick("99.9", "100.1", "79.92"), None),
        ("last beyond it", tick("99.9", "100.1", "79.91"), "79.91"),
        ("last beyond it above the ask", tick("99.9", "100.1", "120.13"), "120.13"),
        ("the most distant of two", tick("70", "75", "72"), "70"),
    ],
)
def test_a_jump_outside_the_collar_waits(_case: str, print_: Tick, suspect: str | None) -> None:
    verdict = judge(print_, seen=SEEN, suspect=None, limits=LIMITS)

    whole = complete(print_, seen=SEEN)
    assert verdict.suspect == (None if suspect is None else Suspect(Decimal(suspect), whole))
    assert verdict.refusal == (None if suspect is None else Refusal.OUTSIDE_COLLAR)
    assert (verdict.view is None) is (suspect is not None)


@pytest.mark.parametrize(
    ("_case", "price", "at", "first", "accepted"),
    [
        ("the same price again", "50", NOW, doubted(50, at=NOW - MICROSECOND), True),
        ("within the collar of the suspect", "60", NOW, doubted(50, at=NOW - MICROSECOND), True),
        ("beyond the collar of the suspect", "60.01", NOW, doubted(50, at=NOW - MICROSECOND), False),
        ("the same print told twice", "50", NOW, doubted(50), False),
        ("an older one after it", "50", NOW, doubted(50, at=NOW + MICROSECOND), False),
        ("to the other side", "150", NOW, doubted(50, at=NOW - MICROSECOND), False),
    ],
)
def test_a_second_print_confirms_a_jump(_case: str, price: str, at: datetime, first: Suspect, accepted: bool) -> None:
    verdict = judge(tick(last=price, at=at), seen=SEEN, suspect=first, limits=LIMITS)

    if accepted:
        assert verdict == (View(Decimal(price), Decimal(price), Decimal(price), at), None, None)
    else:
        assert verdict == (None, Refusal.OUTSIDE_COLLAR, doubted(price, at=at))


def test_an_ordinary_print_clears_the_suspect() -> None:
    verdict = judge(tick(last="100"), seen=SEEN, suspect=doubted(50, at=NOW - MICROSECOND), limits=LIMITS)

    assert verdict.suspect is None
    assert verdict.view is not None


@pytest.mark.parametrize(
    ("_case", "print_", "limit", "refusal"),
    [
        ("exactly as wide as allowed", tick("99", "101"), "2", None),
        ("a hair wider", tick("98.99", "101"), "2", Refusal.SPREAD_TOO_WIDE),
        ("wider, and without a limit", tick("90", "110"), None, None),
        ("a trade between sides too wide", tick("95", "105", "100"), "2", Refusal.SPREAD_TOO_WIDE),
        ("a trade alone has no spread", tick(last="100"), "0.001", None),
        ("a bid alone: the other side is ours, not quoted", tick("90", last="100"), "2", None),
        ("an ask alone", tick(ask="110", last="100"), "2", None),
        ("too old is told first", tick("90", "110", at=LIMITS.oldest - MICROSECOND), "2", Refusal.OLDER_THAN_LAST),
        ("wide and far away is no suspect", tick("40", "60"), "2", Refusal.SPREAD_TOO_WIDE),
    ],
)
def test_a_spread_wider_than_its_instrument_allows_is_refused(
    _case: str, print_: Tick, limit: str | None, refusal: Refusal | None
) -> None:
    limits = LIMITS._replace(max_spread_pct=None if limit is None else Decimal(limit))
    suspect = doubted(150)

    verdict = judge(print_, seen=SEEN, suspect=suspect, limits=limits)

    assert verdict.refusal == refusal
    assert verdict.suspect == (suspect if refusal else None)


def test_the_age_a_print_may_have_is_its_instruments() -> None:
    old = tick(last="100", at=NOW - timedelta(seconds=5))
    limits = Limits.at(NOW, collar_pct=Decimal(20), max_age=timedelta(seconds=5))

    assert judge(old, seen=None, suspect=None, limits=limits).refusal is None
    older = tick(last="100", at=old.source_at - MICROSECOND)
    assert judge(older, seen=None, suspect=None, limits=limits).refusal == Refusal.STALE


@pytest.mark.parametrize("spoiled", [False, True])
def test_the_mids_extremes_are_those_of_one_moment(spoiled: bool) -> None:
    """The lowest bid and the lowest ask belong to different prints; half their sum was never a mid."""
    prints = [tick("98", "104"), tick("101", "102"), tick("99", "100.5"), tick("100", "101")]
    if spoiled:  # the slow way round
        prints.insert(1, tick("NaN", "1"))

    summary = sum_up(prints, seen=SEEN, suspect=None, limits=LIMITS)

    assert summary.interval is not None
    assert (summary.interval.bid_low, summary.interval.ask_low) == (98, Decimal("100.5"))
    assert (summary.interval.mid_low, summary.interval.mid_high) == (Decimal("99.75"), Decimal("101.5"))


def test_the_mid_keeps_every_digit_of_its_sides() -> None:
    price = Decimal("12345678901234567890.123456789012345678")

    summary = sum_up([Tick("AAPL", price, price, None, NOW)], seen=None, suspect=None, limits=LIMITS)

    assert summary.interval is not None
    assert (summary.interval.mid_low, summary.interval.mid_high) == (price, price)


def test_a_trade_follows_a_book_that_has_moved() -> None:
    moved = View(Decimal(70), Decimal("70.2"), Decimal(100), NOW)

    assert judge(tick("70", "70.2", "70.1"), seen=moved, suspect=None, limits=LIMITS).refusal is None


def test_extremes_cover_accepted_prints_only() -> None:
    prints = [tick(last=price) for price in ("101", "50", "98", "NaN", "103", "102")]

    summary = sum_up(prints, seen=SEEN, suspect=None, limits=LIMITS)

    assert summary.interval is not None
    assert (summary.interval.last, summary.interval.last_low, summary.interval.last_high) == (102, 98, 103)
    assert summary.interval.opening == 101
    assert summary.refused == {Refusal.OUTSIDE_COLLAR: 1, Refusal.NOT_A_NUMBER: 1}
    assert summary.refused_prices == {
        Refusal.OUTSIDE_COLLAR: "None/None/50",
        Refusal.NOT_A_NUMBER: "None/None/NaN",
    }
    assert summary.suspect is None


def test_a_spike_that_is_confirmed_counts_from_its_confirmation() -> None:
    prints = [tick(last=price, at=NOW + n * MICROSECOND) for n, price in enumerate(("40", "42", "41"))]

    summary = sum_up(prints, seen=SEEN, suspect=None, limits=LIMITS)

    assert summary.interval is not None
    assert (summary.interval.last_low, summary.interval.last_high) == (41, 42)


PRICES = st.one_of(
    st.none(),
    st.decimals("75", "125", places=1),
    st.sampled_from([Decimal(text) for text in ("NaN", "sNaN", "Infinity", "0", "-1", "1e-19", "1e20", "50")]),
)
ORDINARY = st.decimals("95", "104", places=1)
TIMES = st.integers(-3, 3).map(lambda n: NOW + n * MICROSECOND)
ORDERED = st.tuples(ORDINARY, st.decimals("0", "3", places=1), st.none() | ORDINARY).map(
    lambda drawn: tick(drawn[0], drawn[0] + drawn[1], drawn[2])
)
TICKS = st.lists(
    st.one_of(
        ORDERED,
        ORDERED,
        st.builds(Tick, st.just("AAPL"), st.none(), st.none(), ORDINARY, TIMES),
        st.builds(Tick, st.just("AAPL"), PRICES, PRICES, PRICES, TIMES),
    ),
    min_size=1,
    max_size=6,
)


@given(
    TICKS,
    st.none() | st.just(SEEN),
    st.none() | st.just(doubted(60, at=NOW - MICROSECOND)),
    st.sampled_from([1, 20]),
    st.none() | st.sampled_from([Decimal("0.5"), Decimal(2)]),
)
def test_many_at_once_are_judged_as_one_by_one(
    ticks: list[Tick], seen: View | None, suspect: Suspect | None, collar: int, spread: Decimal | None
) -> None:
    limits = Limits.at(NOW, collar_pct=Decimal(collar), max_spread_pct=spread)

    together = sum_up(ticks, seen=seen, suspect=suspect, limits=limits)

    assert together == intervals._one_by_one(ticks, seen=seen, suspect=suspect, limits=limits)


def test_plain_prints_take_the_fast_path() -> None:
    quotes = [tick("99.9", "100.1"), tick("99.8", "100", "99.9"), tick("99.9", "100")]

    for ticks in (quotes, [tick(last="100"), tick(last="101")], quotes[:1]):
        assert intervals._all_plain(ticks, seen=SEEN, limits=LIMITS) is not None
        assert intervals._all_plain(ticks, seen=None, limits=LIMITS) is not None
