"""Live trails: followed in cohorts, fired by the rules, never by a price from before they were armed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection

from exitmgr import trails
from exitmgr.models import Trail, TrailCohort, Trigger
from exitmgr.scans import scan
from exitmgr.trails import tidy_cohorts
from positions.models import Instrument, Quote
from positions.values import Side
from tests import factories as f
from tests.exitmgr.tape import Tape, exits_of

D = Decimal
pytestmark = pytest.mark.django_db
ONE_PCT = {"trailing": {"pct": "1"}}


def statuses(position):
    """Return the status of each trigger of a position by its slot."""
    return dict(position.triggers.order_by("pk").values_list("slot", "status"))


@pytest.mark.parametrize(
    ("_case", "side", "trail", "prices", "fired_at"),
    [
        ("long, a tick above", Side.LONG, {"pct": "1"}, ["110", "108.91"], None),
        ("long, exactly at", Side.LONG, {"pct": "1"}, ["110", "108.90"], "108.90"),
        ("long, a tick beyond", Side.LONG, {"pct": "1"}, ["110", "108.89"], "108.89"),
        ("long, a gap far through", Side.LONG, {"pct": "1"}, ["110", "70"], "70"),
        ("long, from the entry price itself", Side.LONG, {"pct": "1"}, ["99"], "99"),
        ("long, the peak falls with nothing", Side.LONG, {"pct": "1"}, ["110", "109", "110.5", "109.395"], "109.395"),
        ("short, a tick below", Side.SHORT, {"pct": "1"}, ["90", "90.89"], None),
        ("short, exactly at", Side.SHORT, {"pct": "1"}, ["90", "90.90"], "90.90"),
        ("short, from the entry price itself", Side.SHORT, {"pct": "1"}, ["101"], "101"),
        ("long, by distance, above", Side.LONG, {"distance": "2"}, ["110", "108.01"], None),
        ("long, by distance, exactly", Side.LONG, {"distance": "2"}, ["110", "108"], "108"),
        ("short, by distance, exactly", Side.SHORT, {"distance": "2"}, ["90", "92"], "92"),
        ("a third of a percent, exactly at", Side.LONG, {"pct": "0.3"}, ["107", "106.679"], "106.679"),
        ("a third of a percent, a tick above", Side.LONG, {"pct": "0.3"}, ["107", "106.680"], None),
    ],
)
def test_a_trail_fires_when_its_offset_is_given_back(_case, side, trail, prices, fired_at):
    tape = Tape()
    tape.trade("100")
    position = f.hold(side=side, plan={"trailing": trail})
    tape.trade(*prices)
    assert exits_of(position) == ([("trailing_stop", D(10), D(fired_at))] if fired_at else [])
    assert statuses(position) == {"trailing_1": "fired" if fired_at else "armed"}


@pytest.mark.parametrize(
    ("_case", "prices", "exits"),
    [
        ("before it starts nothing is given back", ["101.99", "99"], []),
        ("it starts at its profit and is measured from there", ["102", "100.98"], [("trailing_stop", D("100.98"))]),
        ("a tick above its stop", ["102", "100.981"], []),
        ("started by a gap, it is measured from the gap", ["105", "103.95"], [("trailing_stop", D("103.95"))]),
        ("a tick above the stop after a gap", ["105", "103.951"], []),
    ],
)
def test_a_trail_with_an_activation_starts_at_that_profit(_case, prices, exits):
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"trailing": {"pct": "1", "activation_pct": "2"}})
    assert statuses(position) == {"trailing_1:start": "armed", "trailing_1": "waiting"}
    tape.trade(*prices)
    assert [(reason, price) for reason, _, price in exits_of(position)] == exits


def test_a_trail_that_tightens_in_steps_is_several_trails():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan={"trailing": [{"pct": "3"}, {"pct": "1", "activation_pct": "5"}]})
    tape.trade("104", "101.5")
    assert exits_of(position) == []
    tape.trade("106", "104.94")
    assert exits_of(position) == [("trailing_stop", D(10), D("104.94"))]
    assert statuses(position) == {"trailing_1": "cancelled", "trailing_2:start": "fired", "trailing_2": "fired"}


def test_of_a_high_and_a_low_between_two_looks_only_what_is_certain_fires():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan=ONE_PCT)
    tape.trade("100")
    tape.at(1)
    tape.quote("110", "109.5", "108", "110")  # the low may have come first, as far as the row can tell
    tape.look()
    assert exits_of(position) == []
    tape.at(1)
    tape.quote("109", "108.9", "109.9")  # the peak of 110 is older than this dip: it is certain
    tape.look()
    assert exits_of(position) == [("trailing_stop", D(10), D("108.9"))]


def test_the_price_now_is_certainly_later_than_the_high_before_it():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan=ONE_PCT)
    tape.trade("100")
    tape.at(1)
    tape.quote("110", "108.9")
    tape.look()
    assert exits_of(position) == [("trailing_stop", D(10), D("108.9"))]


def test_extremes_from_before_a_trail_was_armed_neither_lift_nor_fire_it():
    tape = Tape()
    tape.trade("100")
    tape.at(1)
    tape.quote("120", "80", "100")
    position = f.hold(plan=ONE_PCT)
    tape.look()
    assert exits_of(position) == []
    assert TrailCohort.objects.get().best == D(100)


def test_trails_that_share_a_peak_become_one_row_and_fire_by_their_own_offset():
    tape = Tape()
    tape.trade("100")
    holdings = [
        f.hold(price=price, plan={"trailing": {"pct": pct}})
        for price, pct in (("100", "1"), ("101", "2"), ("102", "3"), ("103", "4"))
    ]
    assert TrailCohort.objects.count() == 4
    tape.trade("104")
    cohort = TrailCohort.objects.get()
    assert (cohort.best, cohort.tightest, cohort.size, cohort.nearest) == (D(104), D(1), 4, D("102.96"))
    tape.trade("102", "101")
    fired = [[reason for reason, _, _ in exits_of(position)] for position in holdings]
    assert fired == [["trailing_stop"], ["trailing_stop"], [], []]


def test_longs_and_shorts_follow_their_own_prices():
    tape = Tape(spread="0.5")
    tape.trade("100")
    account = f.make_account()
    long = f.hold(account=account, plan=ONE_PCT)
    short = f.hold(account=account, side=Side.SHORT, plan=ONE_PCT)
    tape.trade("98.5")
    assert [reason for reason, _, _ in exits_of(long)] == ["trailing_stop"]
    assert exits_of(short) == []
    tape.trade("99.5")  # the ask is 100, a percent above the lowest ask of 99
    assert [(reason, price) for reason, _, price in exits_of(short)] == [("trailing_stop", D(100))]


@pytest.mark.parametrize("source", ["last", "mid"])
def test_a_trail_may_follow_another_price(source):
    tape = Tape(spread="2")
    tape.trade("100")
    position = f.hold(plan={"price_source": source, "trailing": {"pct": "1"}})
    tape.trade("110")  # last 110, mid 111
    tape.trade("109" if source == "last" else "109.5")
    assert exits_of(position) == []
    tape.trade("108.9" if source == "last" else "108.89")
    assert [reason for reason, _, _ in exits_of(position)] == ["trailing_stop"]


def test_more_trails_than_one_batch_takes_all_fire_from_a_dip_that_came_and_went(monkeypatch):
    monkeypatch.setattr("exitmgr.scans.TRIGGERS_AT_ONCE", 3)
    tape = Tape()
    tape.trade("100")
    account = f.make_account()
    holdings = [f.hold(account=account, quantity="1", plan=ONE_PCT) for _ in range(8)]
    tape.trade("110")
    tape.at(1)
    tape.quote("108", "112")
    tape.look()
    assert [len(exits_of(position)) for position in holdings] == [1] * 8


def test_a_trail_that_was_called_off_neither_fires_nor_stays():
    tape = Tape()
    tape.trade("100")
    position = f.hold(plan=ONE_PCT)
    keeps = f.hold(plan={"trailing": {"pct": "2"}})
    tape.trade("110")
    Trigger.objects.filter(position=position).update(status="cancelled")
    tape.trade("108.5")
    assert exits_of(position) == []
    assert (tidy_cohorts(), tidy_cohorts()) == (1, 0)
    cohort = TrailCohort.objects.get()
    assert (cohort.size, cohort.tightest) == (1, D(2))
    Trigger.objects.filter(position=keeps).update(status="cancelled")
    assert tidy_cohorts() == 1
    assert (Trail.objects.count(), TrailCohort.objects.count()) == (0, 0)


def test_a_new_best_price_costs_one_row_however_many_trail(django_assert_max_num_queries):
    tape = Tape()
    tape.trade("100")
    account = f.make_account()
    for _ in range(30):
        f.hold(account=account, quantity="1", plan=ONE_PCT)
    tape.trade("101")
    tape.at(1)
    tape.quote("102")
    with django_assert_max_num_queries(16) as counted:
        scan(now=tape.now)
    assert not any("exitmgr_trail" in query["sql"] and "UPDATE" in query["sql"] and '"exitmgr_trail"' in query["sql"]
                   for query in counted.captured_queries)  # fmt: skip
    assert TrailCohort.objects.get().best == D(102)


def test_scans_probe_cohorts_by_index_and_never_read_all_of_them():
    now = f.utc_now()
    instruments = Instrument.objects.bulk_create(Instrument(symbol=f"S{number}") for number in range(500))
    hundred, more = D(100), D(101)
    Quote.objects.bulk_create(
        Quote(
            instrument=instrument, last=hundred, bid=hundred, ask=more, last_low=hundred, last_high=hundred,
            bid_low=hundred, bid_high=hundred, ask_low=more, ask_high=more, mid_low=hundred, mid_high=more,
            source="test", source_at=now, received_at=now,
        )
        for instrument in instruments
    )  # fmt: skip
    TrailCohort.objects.bulk_create(
        TrailCohort(
            instrument=instruments[number % 500], basis=basis, direction=direction, unit="pct",
            best=D(200) + number if direction == "fall" else D(50) + D(number) / 20_000, tightest=D(150), seen_seq=1,
        )
        for number in range(20_000)
        for basis, direction in (("bid", "fall"), ("ask", "rise"))
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE exitmgr_trailcohort, positions_quote")
        for sql, index in (
            (trails._FIND_BY_SIDES[False], "cohort_fire_probe"),
            (trails._LIFTED_BY_SIDES[False], "cohort_best_probe"),
        ):
            cursor.execute("EXPLAIN " + sql, {"ids": [row.pk for row in instruments], "triggers": 250})
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert plan.count(index) == 2, plan[-2000:]
            assert "Seq Scan on exitmgr_trailcohort" not in plan, plan[-2000:]
    assert trails.probe_trails([row.pk for row in instruments], chosen=True, limit=250) == []
