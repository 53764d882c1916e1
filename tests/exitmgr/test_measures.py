"""What a plan is compiled on: ranges from the broker's bars or our own minutes, sessions, fees; never an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from exitmgr.measures import close_of, entry_of, expected_entry, read_market
from exitmgr.rules.atr import measure_range
from exitmgr.rules.compile import Range, compile_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.rules.regime import Regime
from exitmgr.rules.risk_reward import RatioTerms, Strategy, choose_ratio
from exitmgr.rules.volatility import measure_ewma
from positions.bars import save_bars
from positions.models import Instrument, Position, Session
from positions.values import Candle, Side
from tests.exitmgr.rules.candles import real_bars
from tests.factories import make_account, make_instrument

D = Decimal
DAY = timedelta(days=1)
OPENED = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
PLAN = parse_plan({"stop_loss": {"atr": {"period": 3, "multiple": "2"}}, "take_profits": [{"rr": "1.5"}]})
CLOSING = parse_plan({"session_close": {"minutes_before": 10}})
pytestmark = pytest.mark.django_db


@pytest.fixture
def aapl() -> Instrument:
    """Return an instrument."""
    return make_instrument("AAPL")


def position_in(instrument: Instrument, **fields: Any) -> Position:
    """Return a long position of 10 at 100."""
    wanted = {"side": Side.LONG, "quantity": D(10), "entry_cost": D(1000), "opened_at": OPENED} | fields
    return Position.objects.create(account=make_account(), instrument=instrument, **wanted)


def store(instrument: Instrument, *widths: int, until: datetime = OPENED, seconds: int = 86_400) -> list[Candle]:
    """Store bars around 100 of these widths, the last one finished at a moment."""
    length = timedelta(seconds=seconds)
    bars = [
        Candle(until - place * length, D(100), 100 + D(width) / 2, 100 - D(width) / 2, D(100))
        for place, width in zip(range(len(widths), 0, -1), widths, strict=True)
    ]
    save_bars(instrument_id=instrument.pk, seconds=seconds, bars=bars)
    return bars


def entry(position: Position, plan: Any = PLAN, **how: Any) -> Any:
    """Return what the plan is compiled on."""
    return entry_of(position=position, plan=plan, now=OPENED + timedelta(seconds=1), **how)


def test_everything_is_gathered(aapl: Instrument) -> None:
    store(aapl, 1, 2, 3, 4)
    Session.objects.create(
        calendar="XNYS", opens_at=OPENED - timedelta(minutes=30), closes_at=OPENED + timedelta(hours=6)
    )
    plan = parse_plan({"stop_loss": {"atr": {"period": 3}}, "trailing": {"atr": {"period": 2}}, "session_close": {}})

    found = entry(position_in(aapl, fees=D("2.5"), side=Side.SHORT), plan, fallback_pct=D(3))

    assert found.ranges == {3: Range(D(3)), 2: Range(D("3.25"))}
    assert (found.side, found.price, found.opened_at) == (Side.SHORT, D(100), OPENED)
    assert (found.closes_at, found.fee_per_unit) == (OPENED + timedelta(hours=6), D("0.25"))
    assert (found.fallback_pct, found.now) == (D(3), OPENED + timedelta(seconds=1))


def test_a_plan_without_ranges_reads_no_bars(aapl: Instrument, django_assert_num_queries: Any) -> None:
    position = position_in(aapl)
    plan = parse_plan({"stop_loss": {"pct": "1"}})
    with django_assert_num_queries(0):
        found = entry(position, plan)
    assert (found.ranges, found.closes_at) == ({}, None)


@pytest.mark.parametrize(("side", "stop", "target"), [(Side.LONG, "94", "109"), (Side.SHORT, "106", "91")])
def test_a_stop_by_range_lies_on_its_side(aapl: Instrument, side: Side, stop: str, target: str) -> None:
    store(aapl, 1, 2, 3, 4)
    compiled = compile_plan(PLAN, entry=entry(position_in(aapl, side=side)))
    assert (compiled.stop_price, compiled.target_prices, compiled.atr) == (D(stop), (D(target),), D(3))
    assert compiled.notes == ()


@pytest.mark.parametrize(
    ("_case", "widths", "until", "why"),
    [
        ("no bars", (), OPENED, "no bars are known"),
        ("too few", (1, 2, 3), OPENED, "only 3 finished bars are known and 4 are needed"),
        ("the last one is not finished", (1, 2, 3, 4), OPENED + DAY, "only 3 finished bars are known and 4 are needed"),
        ("too old", (1, 2, 3, 4), OPENED - 6 * DAY, "the newest bar is too old, it ended 2026-11-14 15:00 UTC"),
        ("no move", (0, 0, 0, 0), OPENED, "the last 4 bars do not move"),
    ],
)
def test_what_cannot_be_measured_falls_back_and_says_so(
    aapl: Instrument, _case: str, widths: tuple[int, ...], until: datetime, why: str
) -> None:
    store(aapl, *widths, until=until)
    compiled = compile_plan(PLAN, entry=entry(position_in(aapl)))
    assert (compiled.stop_price, compiled.atr) == (D(98), None)
    assert [note for note in compiled.notes if note.endswith(why)] == list(compiled.notes[:1])


def test_compiling_again_later_measures_the_same(aapl: Instrument) -> None:
    position = position_in(aapl)
    store(aapl, 1, 2, 3, 4)
    before = entry(position)
    store(aapl, 50, 50, 50, until=OPENED + 3 * DAY)
    assert entry_of(position=position, plan=PLAN, now=OPENED + 4 * DAY).ranges == before.ranges == {3: Range(D(3))}


def test_live_and_replay_measure_the_same_of_a_long_history(aapl: Instrument) -> None:
    bars = list(real_bars("AAPL"))
    save_bars(instrument_id=aapl.pk, seconds=86_400, bars=bars)
    at = bars[-1].start + DAY
    found = entry(position_in(aapl, opened_at=at))
    assert found.ranges[3] == measure_range(bars, period=3, at=at, bar_seconds=86_400)
    assert found.ranges[3].value is not None


def test_another_estimator_is_asked(aapl: Instrument) -> None:
    bars = list(real_bars("IBM"))[-60:]
    save_bars(instrument_id=aapl.pk, seconds=86_400, bars=bars)
    at = bars[-1].start + DAY
    found = entry(position_in(aapl, opened_at=at), estimator="ewma")
    assert found.ranges[3] == measure_ewma(bars, period=3, at=at, bar_seconds=86_400)


def test_our_own_minutes_stand_in_for_a_history_that_is_missing(aapl: Instrument) -> None:
    for day, width in ((6, 9), (5, 1), (4, 2), (3, 3), (2, 4), (1, 5)):  # of the oldest day the beginning is not known
        at = datetime(2026, 11, 20, 15, tzinfo=UTC) - day * DAY
        store(aapl, width, until=at, seconds=60)
    found = entry(position_in(aapl)).ranges[3]
    assert found.value is not None
    assert found == Range((D(2) + 3 + 4) / 3 * 2 / 3 + D(5) / 3)


def test_where_neither_suffices_the_longer_history_gives_the_reason(aapl: Instrument) -> None:
    store(aapl, 1, 2)
    store(aapl, 1, until=OPENED - 3 * DAY, seconds=60)
    store(aapl, 1, until=OPENED - 2 * DAY, seconds=60)
    assert entry(position_in(aapl)).ranges[3] == Range(None, "only 2 finished bars are known and 4 are needed")


def test_what_never_closes_has_no_weekend_to_be_stale_over() -> None:
    coin = make_instrument("BTC/USD", calendar="24/7")
    store(coin, 1, 2, 3, 4, until=OPENED - timedelta(hours=1), seconds=60)
    found = entry(position_in(coin), bar_seconds=60).ranges[3]
    assert found.why.startswith("the newest bar is too old")


def test_the_session_is_that_of_the_entry_unless_told(aapl: Instrument) -> None:
    for day in range(3):
        opens_at = OPENED + day * DAY - timedelta(minutes=30)
        Session.objects.create(calendar="XNYS", opens_at=opens_at, closes_at=opens_at + timedelta(hours=6))
    position, close = position_in(aapl), OPENED + timedelta(hours=5, minutes=30)
    assert entry(position, CLOSING).closes_at == close
    assert entry(position, CLOSING, closes_after=close).closes_at == close + DAY


@pytest.mark.parametrize(
    ("_case", "calendar", "close"),
    [
        ("New York's", "XNYS", datetime(2026, 11, 20, 21, 0, tzinfo=UTC)),
        ("Tokyo's, after the weekend", "XTKS", datetime(2026, 11, 23, 6, 30, tzinfo=UTC)),
        ("none", "24/7", None),
        ("of an unknown one New York's", "NOPE", datetime(2026, 11, 20, 21, 0, tzinfo=UTC)),
    ],
)
def test_usual_hours_stand_in_for_missing_sessions(
    caplog: pytest.LogCaptureFixture, _case: str, calendar: str, close: datetime | None
) -> None:
    instrument = make_instrument("ODD", calendar=calendar)
    assert close_of(instrument, after=OPENED) == close
    assert ("sessions_missing symbol=ODD" in caplog.text) is (close is not None)


def test_what_an_entry_would_be_compiled_on(aapl: Instrument) -> None:
    store(aapl, 1, 2, 3, 4)
    found = expected_entry(instrument=aapl, side=Side.LONG, price=D(200), plan=PLAN, now=OPENED)
    assert (found.price, found.opened_at, found.ranges, found.now) == (D(200), OPENED, {3: Range(D(3))}, None)
    assert compile_plan(PLAN, entry=found).stop_price == D(194)


def test_the_market_is_read_from_stored_bars(aapl: Instrument) -> None:
    bars = list(real_bars("AAPL"))[:400]
    save_bars(instrument_id=aapl.pk, seconds=86_400, bars=bars)
    reading, relative = read_market(instrument=aapl, now=bars[-1].start + DAY)
    assert reading.regime in set(Regime)
    assert relative.value is not None
    ratio = choose_ratio(RatioTerms(strategy=Strategy.MARKET_CONDITION), symbol="AAPL", reading=reading)
    assert f"in a {reading.regime} market" in ratio.why


def test_a_market_without_bars_is_not_known(aapl: Instrument) -> None:
    reading, relative = read_market(instrument=aapl, now=OPENED)
    assert (reading.regime, reading.why) == (None, "no bars are known")
    assert (relative.value, relative.why) == (None, "no bars are known")
