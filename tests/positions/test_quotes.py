"""Writing prices: what reaches the row, what does not, and that several writers agree."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from positions.feeds.protocol import Tick
from positions.models import Bar, Instrument, Quote, RefusedPrice
from positions.pushed_quotes import read_quotes
from positions.quotes import ROWS_AT_ONCE, WriteOutcome, accept_standing_suspects, write_quotes
from tests.positions.sessions import in_thread, somebody_waits_for_us
from tests.simulator.box import eventually

NOW = datetime(2026, 3, 2, 15, 30, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def tick(bid: Any = None, ask: Any = None, last: Any = None, *, symbol: str = "AAPL", at: datetime = NOW) -> Tick:
    """Return a tick with prices given as text or int."""
    return Tick(symbol, *(None if price is None else Decimal(price) for price in (bid, ask, last)), at)


def write(*ticks: Tick, now: datetime = NOW, **options: Any) -> WriteOutcome:
    """Write ticks without ringing anybody."""
    return write_quotes(ticks=ticks, source="test", now=now, **{"ring": lambda: None, **options})


def extremes(quote: Quote) -> dict[str, tuple[Decimal, Decimal]]:
    """Return low and high of each basis."""
    return {
        "bid": (quote.bid_low, quote.bid_high),
        "ask": (quote.ask_low, quote.ask_high),
        "last": (quote.last_low, quote.last_high),
        "mid": (quote.mid_low, quote.mid_high),
    }


def suspect_columns() -> dict[str, Any]:
    """Return what is stored of the print that waits."""
    return Quote.objects.values(*(field.name for field in Quote._meta.fields if field.name.startswith("suspect"))).get()


NOTHING_SUSPECT = {
    "suspect": None, "suspect_bid": None, "suspect_ask": None, "suspect_last": None, "suspect_source": "",
    "suspect_at": None, "suspect_heard_at": None,
}  # fmt: skip


@pytest.fixture
def aapl(db: None) -> Instrument:
    """Return an instrument without a price."""
    return Instrument.objects.create(symbol="AAPL")


def test_the_first_price_makes_the_row(aapl: Instrument) -> None:
    outcome = write(tick("99.9", "100.1", "100"), now=NOW + SECOND)

    assert outcome == WriteOutcome(accepted_symbols={"AAPL"})
    quote = Quote.objects.get()
    assert (quote.instrument_id, quote.bid, quote.ask, quote.last) == (aapl.pk, *map(Decimal, ("99.9", "100.1", "100")))
    assert extremes(quote) == {
        "bid": (quote.bid,) * 2, "ask": (quote.ask,) * 2, "last": (quote.last,) * 2, "mid": (100, 100),
    }  # fmt: skip
    assert (quote.seq, quote.from_seq, quote.dirty) == (1, 0, True)
    assert (quote.source, quote.source_at, quote.received_at) == ("test", NOW, NOW + SECOND)
    assert (quote.bar_open, quote.bar_low, quote.bar_high) == (100, 100, 100)
    assert quote.suspect is None
    assert not RefusedPrice.objects.exists()


def test_extremes_widen_until_a_scan_has_seen_them(aapl: Instrument) -> None:
    write(tick("99", "101", "100"))
    write(tick("95", "97.5", "96"), tick("96", "97", "96"), tick("103", "105", "104"), tick("100", "102", "101"))

    quote = Quote.objects.get()
    assert (quote.bid, quote.ask, quote.last, quote.seq, quote.from_seq) == (100, 102, 101, 2, 0)
    assert extremes(quote) == {
        "bid": (95, 103), "ask": (97, 105), "last": (96, 104), "mid": (Decimal("96.25"), 104),
    }  # fmt: skip

    Quote.objects.update(
        dirty=False, from_seq=F("seq"), bid_low=F("bid"), bid_high=F("bid"),
        ask_low=F("ask"), ask_high=F("ask"), last_low=F("last"), last_high=F("last"), mid_low=101, mid_high=101,
    )  # fmt: skip
    write(tick("98", "99", "98.5"))

    quote.refresh_from_db()
    assert extremes(quote) == {
        "bid": (98, 100), "ask": (99, 102), "last": (Decimal("98.5"), 101), "mid": (Decimal("98.5"), 101),
    }  # fmt: skip
    assert (quote.seq, quote.from_seq, quote.dirty) == (3, 2, True)

    write(tick("104", "106", "105"))
    write(tick("100", "102", "101"))
    quote.refresh_from_db()
    assert extremes(quote) == {
        "bid": (98, 104), "ask": (99, 106), "last": (Decimal("98.5"), 105), "mid": (Decimal("98.5"), 105),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "bad", "reason"),
    [
        ("not a number", tick(last="NaN"), "not_a_number"),
        ("infinite", tick("99", "Infinity"), "not_a_number"),
        ("zero", tick("0", "100"), "not_positive"),
        ("too large for the column", tick(last="1e25"), "out_of_range"),
        ("negative", tick(last="-1"), "not_positive"),
        ("crossed", tick("101", "100"), "crossed"),
        ("a spread wider than its instrument allows", tick("98", "102"), "spread_too_wide"),
        ("older than the last", tick(last="100", at=NOW - SECOND), "older_than_last"),
        ("ahead of our clock", tick(last="100", at=NOW + 10 * SECOND), "ahead_of_clock"),
        ("outside the collar", tick(last="79"), "outside_collar"),
        ("nothing in it", tick(), "no_price"),
    ],
)
def test_a_bad_price_is_counted_and_changes_nothing(aapl: Instrument, _case: str, bad: Tick, reason: str) -> None:
    Instrument.objects.update(max_spread_pct=3)
    write(tick("99.9", "100.1", "100"))
    before = Quote.objects.values().get()
    rings: list[int] = []

    first = write(bad, ring=lambda: rings.append(1))
    write(bad, now=NOW + 2 * SECOND)

    assert first == WriteOutcome(refused=Counter({("AAPL", reason): 1}))
    doubted = {
        "suspect": 79, "suspect_bid": 79, "suspect_ask": 79, "suspect_last": 79, "suspect_source": "test",
        "suspect_at": bad.source_at, "suspect_heard_at": NOW,
    }  # fmt: skip
    assert suspect_columns() == (doubted if reason == "outside_collar" else NOTHING_SUSPECT)
    assert Quote.objects.values().get() == before | suspect_columns()
    counted = RefusedPrice.objects.get()
    assert (counted.symbol, counted.reason, counted.count) == ("AAPL", reason, 2)
    assert counted.last_seen_at == NOW + 2 * SECOND
    assert counted.last_price == f"{bad.bid}/{bad.ask}/{bad.last}"
    assert rings == []


def test_a_stale_price_is_counted_even_as_the_first(aapl: Instrument) -> None:
    assert write(tick(last="100", at=NOW - 61 * SECOND)).refused == {("AAPL", "stale"): 1}
    assert not Quote.objects.exists()


def test_one_bad_symbol_does_not_keep_the_others_out(aapl: Instrument) -> None:
    Instrument.objects.create(symbol="MSFT")

    outcome = write(tick(last="1e25"), tick(last="300", symbol="MSFT"), tick(last="5", symbol="NOBODY"))

    assert outcome == WriteOutcome(
        accepted_symbols={"MSFT"}, refused=Counter({("AAPL", "out_of_range"): 1}), unknown_symbols={"NOBODY"}
    )
    assert list(Quote.objects.values_list("instrument__symbol", "last")) == [("MSFT", 300)]
    assert list(RefusedPrice.objects.values_list("symbol", flat=True)) == ["AAPL"]


def test_a_jump_is_confirmed_across_calls(aapl: Instrument) -> None:
    write(tick(last="100"))

    first = write(tick(last="70", at=NOW + SECOND), now=NOW + SECOND)
    assert first.accepted_symbols == set()
    assert Quote.objects.values_list("last", "last_low", "suspect").get() == (100, 100, 70)

    second = write(tick(last="71", at=NOW + 2 * SECOND), now=NOW + 2 * SECOND)
    assert second.accepted_symbols == {"AAPL"}
    assert Quote.objects.values_list("last", "last_low", "suspect").get() == (71, 71, None)


def test_a_print_told_twice_does_not_confirm_itself(aapl: Instrument) -> None:
    write(tick(last="100"))
    spike = tick(last="70", at=NOW + SECOND)
    write(spike, now=NOW + SECOND)

    outcome = write(spike, now=NOW + SECOND)

    assert outcome.accepted_symbols == set()
    assert Quote.objects.values_list("last", "suspect").get() == (100, 70)


def test_an_ordinary_price_clears_the_suspect(aapl: Instrument) -> None:
    write(tick(last="100"), tick(last="70"))
    assert Quote.objects.get().suspect == 70

    write(tick(last="101"))
    write(tick(last="70"))

    assert Quote.objects.values_list("last", "suspect").get() == (101, 70)


def test_each_instrument_has_its_own_collar(db: None) -> None:
    Instrument.objects.create(symbol="WILD", collar_pct=50)
    Instrument.objects.create(symbol="TAME", collar_pct=1)
    write(tick(last="100", symbol="WILD"), tick(last="100", symbol="TAME"))

    outcome = write(tick(last="60", symbol="WILD"), tick(last="98", symbol="TAME"))

    assert outcome.accepted_symbols == {"WILD"}
    assert outcome.refused == {("TAME", "outside_collar"): 1}


def test_each_instrument_has_its_own_age(db: None) -> None:
    Instrument.objects.create(symbol="SLOW", max_age_seconds=300)
    Instrument.objects.create(symbol="FAST", max_age_seconds=5)

    outcome = write(*(tick(last="100", symbol=name, at=NOW - 30 * SECOND) for name in ("SLOW", "FAST")))

    assert outcome.accepted_symbols == {"SLOW"}
    assert outcome.refused == {("FAST", "stale"): 1}


def test_old_prints_of_a_slow_instrument_fill_the_bars_of_their_minutes(db: None) -> None:
    Instrument.objects.create(symbol="SLOW", max_age_seconds=300)
    ticks = [
        tick(last=price, symbol="SLOW", at=NOW - age * SECOND) for price, age in ((100, 200), (110, 130), (105, 5))
    ]

    write(*ticks)

    assert list(Bar.objects.order_by("start").values_list("open", "close")) == [(100, 100), (110, 110)]
    assert Quote.objects.values_list("bar_open", "last_low", "last_high").get() == (105, 100, 110)


@pytest.mark.parametrize(
    ("_case", "limits"),
    [
        ("no age at all", {"max_age_seconds": 0}),
        ("a spread of nothing", {"max_spread_pct": 0}),
        ("older when confirmed than a price may be", {"confirm_seconds": 60}),
    ],
)
def test_limits_that_would_believe_nothing_are_refused(aapl: Instrument, _case: str, limits: dict[str, int]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Instrument.objects.update(**limits)


# -- prints outside the collar that stand


def wait_for(confirm_seconds: int | None) -> None:
    """Let an instrument believe a jump that stands so long, and make it jump from 100 to 70."""
    Instrument.objects.update(confirm_seconds=confirm_seconds)
    write(tick("99.9", "100.1", "100"))
    Quote.objects.update(dirty=False, from_seq=F("seq"))
    jump = tick("69.5", "70.5", "70", at=NOW + SECOND)
    write_quotes(ticks=[jump], source="the other feed", now=NOW + 2 * SECOND, ring=lambda: None)


@pytest.mark.parametrize(
    ("_case", "confirm_seconds", "after", "believed"),
    [
        ("a moment too early", 10, timedelta(seconds=10) - timedelta(microseconds=1), 0),
        ("as long as asked, counted from when we heard it", 10, timedelta(seconds=10), 1),
        ("at the last moment it is fresh", 10, timedelta(seconds=60), 1),
        ("too old to be a price", 10, timedelta(seconds=60, microseconds=1), 0),
        ("an instrument that wants a second print", None, timedelta(seconds=30), 0),
        ("at once", 0, timedelta(0), 1),
    ],
)
def test_a_jump_that_nothing_contradicts_is_believed_in_time(
    aapl: Instrument, _case: str, confirm_seconds: int | None, after: timedelta, believed: int
) -> None:
    wait_for(confirm_seconds)
    before = Quote.objects.values().get()

    assert accept_standing_suspects(now=NOW + 2 * SECOND + after) == believed

    if not believed:
        assert Quote.objects.values().get() == before
        return
    quote = Quote.objects.get()
    assert (quote.bid, quote.ask, quote.last) == (Decimal("69.5"), Decimal("70.5"), 70)
    assert extremes(quote) == {
        "bid": (Decimal("69.5"), Decimal("99.9")), "ask": (Decimal("70.5"), Decimal("100.1")), "last": (70, 100),
        "mid": (70, 100),
    }  # fmt: skip
    assert (quote.seq, quote.from_seq, quote.dirty) == (2, 1, True)
    assert (quote.source, quote.source_at, quote.received_at) == (
        "the other feed", NOW + SECOND, NOW + 2 * SECOND,
    )  # fmt: skip
    assert suspect_columns() == NOTHING_SUSPECT
    assert accept_standing_suspects(now=NOW + 2 * SECOND + after) == 0


def test_a_jump_that_an_ordinary_print_contradicts_is_not_believed(aapl: Instrument) -> None:
    wait_for(10)
    write(tick(last="100", at=NOW + 3 * SECOND), now=NOW + 3 * SECOND)

    assert accept_standing_suspects(now=NOW + 20 * SECOND) == 0
    assert Quote.objects.get().last == 100


def test_a_jump_told_twice_waits_from_the_first_time(aapl: Instrument) -> None:
    wait_for(10)
    write(tick("69.5", "70.5", "70", at=NOW + SECOND), now=NOW + 9 * SECOND)

    assert accept_standing_suspects(now=NOW + 12 * SECOND) == 1


def test_another_jump_starts_to_wait_anew(aapl: Instrument) -> None:
    wait_for(10)
    write(tick(last="40", at=NOW + 9 * SECOND), now=NOW + 9 * SECOND)

    assert accept_standing_suspects(now=NOW + 12 * SECOND) == 0
    assert accept_standing_suspects(now=NOW + 19 * SECOND) == 1
    assert Quote.objects.get().last == 40


def test_a_jump_at_the_end_of_a_batch_waits_with_the_price_before_it(aapl: Instrument) -> None:
    Instrument.objects.update(confirm_seconds=10)
    write(tick(last="100"), tick(last="101"), tick(last="50"))
    assert Quote.objects.values_list("last", "suspect", "suspect_heard_at").get() == (101, 50, NOW)

    assert accept_standing_suspects(now=NOW + 10 * SECOND) == 1
    assert Quote.objects.values_list("last", "seq").get() == (50, 2)


def test_believing_a_jump_closes_the_bar_of_the_minute_before(aapl: Instrument) -> None:
    Instrument.objects.update(confirm_seconds=5)
    write(tick(last="100"))
    later = NOW + timedelta(seconds=35)
    write(tick(last="50", at=later), now=later)

    assert accept_standing_suspects(now=later + 5 * SECOND) == 1
    assert Bar.objects.values_list("open", "low", "close").get() == (100, 100, 100)
    assert Quote.objects.values_list("bar_open", "bar_low").get() == (50, 50)


def test_where_nothing_is_suspect_an_empty_index_is_all_that_is_read(
    aapl: Instrument, django_assert_num_queries: Any
) -> None:
    write(tick(last="100"))
    with django_assert_num_queries(3):  # savepoint, look, end of savepoint
        assert accept_standing_suspects(now=NOW) == 0


@pytest.mark.django_db(transaction=True)
def test_a_jump_that_somebody_is_judging_is_left_to_him() -> None:
    Instrument.objects.create(symbol="AAPL")
    wait_for(10)
    believed: list[int] = []

    with transaction.atomic():
        Quote.objects.select_for_update().get()
        in_thread(lambda: believed.append(accept_standing_suspects(now=NOW + 20 * SECOND))).join()

    assert believed == [0]
    assert accept_standing_suspects(now=NOW + 20 * SECOND) == 1


# -- prices that are pushed


@pytest.mark.parametrize(
    ("_case", "pushed", "reason"),
    [
        ("crossed", {"bid": "101", "ask": "100"}, "crossed"),
        ("too wide", {"bid": "98", "ask": "102"}, "spread_too_wide"),
        ("outside the collar", {"last": 79}, "outside_collar"),
        ("older than the last", {"last": "100", "at": "2026-03-02T15:30:29.999Z"}, "older_than_last"),
        ("ahead of our clock", {"last": "100", "at": "2026-03-02T15:30:36Z"}, "ahead_of_clock"),
    ],
)
def test_a_pushed_price_that_is_not_believed_is_counted(
    aapl: Instrument, _case: str, pushed: dict[str, Any], reason: str
) -> None:
    Instrument.objects.update(max_spread_pct=3)
    write(tick("99.9", "100.1", "100"))

    ticks, malformed = read_quotes([{"symbol": "AAPL", **pushed}], now=NOW)
    outcome = write(*ticks)

    assert malformed == {}
    assert outcome == WriteOutcome(refused=Counter({("AAPL", reason): 1}))
    assert RefusedPrice.objects.values_list("symbol", "reason", "count").get() == ("AAPL", reason, 1)
    assert Quote.objects.get().last == 100


def test_a_pushed_price_that_is_stale_is_counted(aapl: Instrument) -> None:
    ticks, _ = read_quotes([{"symbol": "AAPL", "last": "1", "at": "2026-03-02T15:29:29.999Z"}], now=NOW)

    assert write(*ticks).refused == {("AAPL", "stale"): 1}
    assert RefusedPrice.objects.values_list("reason", flat=True).get() == "stale"


@pytest.mark.parametrize(
    ("_case", "price"),
    [("BRK.A", "742150.0150"), ("a satoshi", "0.00000001"), ("all digits", "12345678901234567890.123456789012345678")],
)
def test_a_price_is_kept_to_its_last_digit(aapl: Instrument, _case: str, price: str) -> None:
    write(tick(last=price))

    quote = Quote.objects.get()
    assert (quote.last, quote.bid_low, quote.mid_low, quote.mid_high, quote.bar_high) == (Decimal(price),) * 5


def test_a_new_minute_closes_the_bar_of_the_one_before(aapl: Instrument) -> None:
    write(tick(last="100"), tick(last="104"), tick(last="98"), tick(last="99"))
    later = NOW + timedelta(seconds=30)
    write(tick(last="101", at=later), now=later)

    bar = Bar.objects.get()
    assert (bar.start, bar.seconds) == (NOW.replace(second=0), 60)
    assert (bar.open, bar.high, bar.low, bar.close) == (100, 104, 98, 99)
    assert Quote.objects.values_list("bar_open", "bar_low", "bar_high").get() == (101, 101, 101)


def test_a_batch_across_minutes_fills_each_minutes_bar(aapl: Instrument) -> None:
    times = [NOW, NOW + 10 * SECOND, NOW + 40 * SECOND, NOW + 59 * SECOND]
    ticks = [tick(last=price, at=at) for price, at in zip((100, 103, 105, 102), times, strict=True)]

    outcome = write(*ticks, now=times[-1])

    assert outcome == WriteOutcome(accepted_symbols={"AAPL"})
    assert Bar.objects.values_list("start", "open", "high", "low", "close").get() == (
        NOW.replace(second=0), 100, 103, 100, 103,
    )  # fmt: skip
    quote = Quote.objects.get()
    assert (quote.bar_open, quote.bar_low, quote.bar_high, quote.last) == (105, 102, 105, 102)
    assert extremes(quote)["last"] == (100, 105)


def test_the_bell_rings_once_prices_are_committed(aapl: Instrument, django_capture_on_commit_callbacks: Any) -> None:
    rings: list[Decimal] = []

    with django_capture_on_commit_callbacks(execute=True):
        write(tick(last="100"), ring=lambda: rings.append(Quote.objects.get().last))
        assert rings == []

    assert rings == [100]


def test_nothing_to_write_asks_the_database_nothing(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert write() == WriteOutcome()


def test_statements_do_not_grow_with_the_batch(db: None, django_assert_max_num_queries: Any) -> None:
    names = [f"S{n}" for n in range(ROWS_AT_ONCE + 1)]
    Instrument.objects.bulk_create(Instrument(symbol=name) for name in names)
    ticks = [tick(last=str(price), symbol=name) for name in names for price in (100, 99, 101)]

    with django_assert_max_num_queries(10):  # two portions: read, savepoint, setting, write, end of savepoint
        outcome = write(*ticks)

    assert outcome.accepted_symbols == set(names)
    assert Quote.objects.filter(last=101, last_low=99, last_high=101, seq=1).count() == len(names)


@pytest.mark.parametrize(
    ("_case", "price", "at", "left"),
    [
        ("a newer price is judged again and written", "101", NOW + 2 * SECOND, (101, 101, 101, 3)),
        ("an older one does not overwrite", "99", NOW, (104, 104, 104, 2)),
        ("one that has become a jump waits", "80.1", NOW + 2 * SECOND, (104, 104, 104, 2)),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_the_second_of_two_writers_looks_again(_case: str, price: str, at: datetime, left: tuple[int, ...]) -> None:
    aapl = Instrument.objects.create(symbol="AAPL")
    write(tick(last="100", at=NOW))
    now = NOW + 2 * SECOND
    outcomes: list[WriteOutcome] = []

    with transaction.atomic():
        Quote.objects.select_for_update().get(pk=aapl.pk)
        writer = in_thread(lambda: outcomes.append(write(tick(last=price, at=at), now=now)))
        eventually(somebody_waits_for_us)
        write(tick(last="104", at=NOW + SECOND), now=now)
        Quote.objects.update(last_low=F("last"), last_high=F("last"), bid_low=F("bid"), ask_low=F("ask"))
    writer.join()

    quote = Quote.objects.get()
    assert (quote.last, quote.bid, quote.ask, quote.seq) == left
    assert outcomes[0].accepted_symbols == ({"AAPL"} if left[3] == 3 else set())
    assert outcomes[0].refused.total() == (0 if left[3] == 3 else 1)
    assert RefusedPrice.objects.count() == outcomes[0].refused.total()


@pytest.mark.django_db(transaction=True)
def test_writers_side_by_side_lose_no_extreme_and_do_not_deadlock() -> None:
    names = [f"S{n}" for n in range(20)]
    Instrument.objects.bulk_create(Instrument(symbol=name) for name in names)
    accepted: Counter[str] = Counter()
    failures: list[Exception] = []
    lock = threading.Lock()

    def feed(prices: Iterable[int], order: list[str]) -> None:
        for price in prices:
            try:
                outcome = write(*(tick(last=price, symbol=name) for name in order))
            except Exception as error:
                failures.append(error)
                return
            with lock:
                accepted.update(outcome.accepted_symbols)

    threads = [
        in_thread(lambda: feed(range(100, 110), names)),
        in_thread(lambda: feed(range(109, 99, -1), names[::-1])),
        in_thread(lambda: feed([105, 100, 109, 104], names)),
    ]
    for thread in threads:
        thread.join()

    assert failures == []
    assert accepted == dict.fromkeys(names, 24)
    for quote in Quote.objects.select_related("instrument"):
        assert extremes(quote) == dict.fromkeys(("bid", "ask", "last", "mid"), (100, 109)), quote.instrument.symbol
        assert quote.seq == 24
    assert not RefusedPrice.objects.exists()
