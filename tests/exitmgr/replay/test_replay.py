"""What fires inside a bar, in which order and at which price: each line of the description, one case a boundary."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.replay.engine import Ready, Settings, prepare, replay
from exitmgr.replay.errors import InvalidInput
from exitmgr.replay.results import exits_as_json
from tests.exitmgr.replay.cases import MINUTE, START, holding_of, series_of

D = Decimal


def bars_of(*rows, every=MINUTE):
    """Return bars from texts "open high low close", one each minute."""
    return [(START + number * every, *map(D, row.split())) for number, row in enumerate(rows)]


def run(plan, *rows, side="long", qty="10", entry="100", opened=0, every=MINUTE, **settings):
    """Replay one position over bars and return its outcome."""
    position = {
        "id": "p", "symbol": "AAPL", "side": side, "qty": qty, "entry_price": entry, "plan": plan,
        "opened_at": (START + opened * every).isoformat(),
    }  # fmt: skip
    series = {"AAPL": series_of(bars_of(*rows, every=every))}
    chosen = Settings(**settings)
    (outcome,) = replay(prepare([holding_of(position)], series, settings=chosen, source="plan"), settings=chosen)
    return outcome


def exits(plan, *rows, **options):
    """Return "reason bar price quantity" of each exit."""
    outcome = run(plan, *rows, **options)
    return [f"{e.reason} {e.at} {e.exit_price.normalize():f} {e.quantity.normalize():f}" for e in outcome.exits]


STOP_AND_TARGET = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}
LADDER = {"stop_loss": {"pct": "5"}, "take_profits": [{"pct": "1", "fraction_pct": "50"}, {"pct": "2"}]}


@pytest.mark.parametrize(
    ("_case", "plan", "bar", "adverse", "favourable"),
    [
        ("a cent above the stop", STOP_AND_TARGET, "100 101 99.01 100", [], []),
        ("exactly at the stop", STOP_AND_TARGET, "100 101 99 100", ["stop_loss 0 99 10"], ["stop_loss 0 99 10"]),
        ("beyond the stop, at its level", STOP_AND_TARGET, "100 101 98 100", ["stop_loss 0 99 10"], ["stop_loss 0 99 10"]),
        ("a gap through the stop, at the open", STOP_AND_TARGET, "97 98 96 97", ["stop_loss 0 97 10"], ["stop_loss 0 97 10"]),
        ("an open exactly at the stop", STOP_AND_TARGET, "99 100 98 99", ["stop_loss 0 99 10"], ["stop_loss 0 99 10"]),
        ("a gap through the target", STOP_AND_TARGET, "103 104 102 103", ["take_profit_1 0 103 10"], ["take_profit_1 0 103 10"]),
        ("both in one bar: the path decides", STOP_AND_TARGET, "100 102 99 100", ["stop_loss 0 99 10"], ["take_profit_1 0 102 10"]),
        ("rungs one after the other", LADDER, "100 103 100 101", ["take_profit_1 0 101 5", "take_profit_2 0 102 5"], ["take_profit_1 0 101 5", "take_profit_2 0 102 5"]),
        ("a gap over two rungs", LADDER, "103 103 103 103", ["take_profit_1 0 103 5", "take_profit_2 0 103 5"], ["take_profit_1 0 103 5", "take_profit_2 0 103 5"]),
        (
            "a rung, then the stop takes the rest",
            LADDER, "100 101 94 96", ["stop_loss 0 95 10"], ["take_profit_1 0 101 5", "stop_loss 0 95 5"],
        ),
        (
            "break-even is armed by the rung, within the bar",
            LADDER | {"break_even": {"after_rung": 1}}, "100.5 101 99 99.5", ["take_profit_1 0 101 5", "break_even 0 100 5"], ["take_profit_1 0 101 5", "break_even 0 100 5"],
        ),
        (
            "a trail's best starts at the entry price",
            {"trailing": {"pct": "1"}}, "99.5 99.6 99 99.2", ["trailing_stop 0 99 10"], ["trailing_stop 0 99 10"],
        ),
        (
            "a trail follows the high first, or only after the low",
            {"trailing": {"pct": "1"}}, "100 102 100.5 101", [], ["trailing_stop 0 100.98 10"],
        ),
        (
            "after the high, the close gives back",
            {"trailing": {"pct": "1"}}, "100 102 100 100.9", ["trailing_stop 0 100.98 10"], ["trailing_stop 0 100.98 10"],
        ),
        (
            "an activated trail is measured from the price that activated it",
            {"trailing": {"distance": "1", "activation_pct": "2"}}, "100 102 100.9 101.5", [], ["trailing_stop 0 101 10"],
        ),
        (
            "activated by a gap: measured from the open",
            {"trailing": {"distance": "1", "activation_pct": "2"}}, "104 104 102.9 104", ["trailing_stop 0 103 10"], ["trailing_stop 0 103 10"],
        ),
        (
            "of a stop and a trail the tighter gives the reason",
            {"stop_loss": {"pct": "2"}, "trailing": {"pct": "1"}}, "100 100 90 95", ["trailing_stop 0 99 10"], ["trailing_stop 0 99 10"],
        ),
        (
            "in a gap as well",
            {"stop_loss": {"pct": "0.5"}, "trailing": {"pct": "1"}}, "95 96 94 95", ["stop_loss 0 95 10"], ["stop_loss 0 95 10"],
        ),
        (
            "of two trails the tighter one fires, once it has started",
            {"trailing": [{"pct": "5"}, {"pct": "1", "activation_pct": "1"}]}, "100 101 99 99.5", ["trailing_stop 0 99.99 10"], ["trailing_stop 0 99.99 10"],
        ),
        (
            "break-even starts at a profit",
            {"break_even": {"at_profit_pct": "1", "offset_pct": "0.1"}}, "100 101 99.9 100.05", ["break_even 0 100.1 10"], ["break_even 0 100.1 10"],
        ),
    ],
)  # fmt: skip
def test_inside_a_bar(_case, plan, bar, adverse, favourable):
    assert exits(plan, bar) == adverse
    assert exits(plan, bar, adverse_first=False) == favourable


@pytest.mark.parametrize(
    ("_case", "plan", "rows", "expected"),
    [
        ("a short's stop lies above", {"stop_loss": {"pct": "1"}}, ["100 101 99 100"], ["stop_loss 0 101 10"]),
        ("adverse first is the high", STOP_AND_TARGET, ["100 101 98 100"], ["stop_loss 0 101 10"]),
        ("a short's ladder", LADDER, ["100 100 97 98"], ["take_profit_1 0 99 5", "take_profit_2 0 98 5"]),
        ("a short's trail", {"trailing": {"pct": "1"}}, ["100 100 98 98.5", "98.5 99 98 98.5"], ["trailing_stop 1 98.98 10"]),
        ("a short's gap", STOP_AND_TARGET, ["103 104 102 103"], ["stop_loss 0 103 10"]),
    ],
)  # fmt: skip
def test_a_short_mirrors_a_long(_case, plan, rows, expected):
    assert exits(plan, *rows, side="short") == expected


FLAT = ["100 100.1 99.9 100"] * 6


@pytest.mark.parametrize(
    ("_case", "plan", "rows", "expected"),
    [
        ("a time limit, at the open of the bar it is due in", {"time_limit_seconds": 120}, FLAT, ["time_limit 2 100 10"]),
        ("due between two bars, at the next open", {"time_limit_seconds": 121}, FLAT, ["time_limit 3 100 10"]),
        ("a stop met by the open outranks it", {"time_limit_seconds": 120, **STOP_AND_TARGET}, [*FLAT[:2], "98 98 98 98"], ["stop_loss 2 98 10"]),
        ("it outranks a target met by the open", {"time_limit_seconds": 120, **STOP_AND_TARGET}, [*FLAT[:2], "105 105 105 105"], ["time_limit 2 105 10"]),
        ("stagnation without a move", {"stagnation": {"seconds": 120, "move_pct": "0.5"}}, FLAT, ["stagnation 2 100 10"]),
        (
            "a move within a bar measures it anew from that bar",
            {"stagnation": {"seconds": 120, "move_pct": "0.5"}}, [FLAT[0], "100 100.5 100 100.5", *["100.5 100.6 100.4 100.5"] * 4], ["stagnation 3 100.5 10"],
        ),
        (
            "a move away from the new price counts, not from the entry",
            {"stagnation": {"seconds": 120, "move_pct": "0.5"}}, ["100 100.5 100 100.5", "100.5 100.6 99.9 99.9", *FLAT], ["stagnation 3 100 10"],
        ),
        (
            "a due stagnation wins over a move made by that very open",
            {"stagnation": {"seconds": 120, "move_pct": "0.5"}}, [*FLAT[:2], "103 103 103 103"], ["stagnation 2 103 10"],
        ),
        (
            "a decaying target takes its step at the open",
            {"take_profits": [{"schedule": [{"after_seconds": 0, "pct": "5"}, {"after_seconds": 120, "pct": "1"}]}]},
            ["100 101 100 101", "101 101.5 101 101.5", "101.5 102 101 101.5"], ["take_profit_1 2 101.5 10"],
        ),
        (
            "and is met within a later bar at its level",
            {"take_profits": [{"schedule": [{"after_seconds": 0, "pct": "5"}, {"after_seconds": 90, "pct": "1"}]}]},
            ["100 101 100 101", "101 101.5 100 100", "100 102 100 101.5"], ["take_profit_1 2 101 10"],
        ),
        (
            "a schedule that begins later has no target before",
            {"take_profits": [{"schedule": [{"after_seconds": 120, "pct": "1"}]}]},
            ["100 110 100 100", "100 110 100 100", "100 110 100 101.5"], ["take_profit_1 2 101 10"],
        ),
    ],
)  # fmt: skip
def test_time(_case, plan, rows, expected):
    assert exits(plan, *rows) == expected


def test_bars_before_the_entry_are_not_seen():
    rows = ["100 110 90 100", "100 110 90 100", "100 100.5 99.5 100", "100 100 98 98"]
    assert exits(STOP_AND_TARGET, *rows, opened=2) == ["stop_loss 3 99 10"]
    assert exits(STOP_AND_TARGET, *rows, opened=1.5) == ["stop_loss 3 99 10"]
    assert exits(STOP_AND_TARGET, *rows, opened=1) == ["stop_loss 1 99 10"]


def test_a_rung_closes_its_part_of_what_remains():
    plan = {"take_profits": [{"pct": str(n), "fraction_pct": "50"} for n in (1, 2, 3)]}
    outcome = run(plan, "100 105 100 105")
    assert [e.quantity for e in outcome.exits] == [D(5), D("2.5"), D("1.25")]
    assert (outcome.remaining, outcome.last_price, outcome.open_pnl) == (D("1.25"), D(105), D("6.25"))


def test_with_a_lot_partial_exits_are_whole_lots_and_the_last_one_is_everything():
    plan = {"take_profits": [{"pct": "1", "fraction_pct": "33"}, {"pct": "2", "fraction_pct": "1"}, {"pct": "3"}]}
    outcome = run(plan, "100 105 100 105", lot=D(1), qty="10.5")
    assert [e.quantity for e in outcome.exits] == [D(3), D(1), D("6.5")]


def test_fees_are_paid_on_the_way_in_and_out():
    outcome = run(STOP_AND_TARGET, "100 103 100 102", fee_bps=D(10))
    (exit_,) = outcome.exits
    assert exit_.realized_pnl == D("20") - D("2.02")
    assert exit_.realized_pct == D("1.798")
    (short,) = run(STOP_AND_TARGET, "100 101 100 100", side="short", fee_bps=D(10)).exits
    assert short.realized_pnl == D("-10") - D("2.01")


def test_break_even_with_fees_earns_them():
    plan = {"break_even": {"at_profit_pct": "1", "include_fees": True}}
    (exit_,) = run(plan, "100 101 100 100", fee_bps=D(10)).exits
    assert (exit_.exit_price, exit_.realized_pnl) == (D("100.2"), D("-0.002"))


def test_what_is_written_down():
    outcome = run(LADDER | {"time_limit_seconds": 60}, "100 101 100 101", "100.5 100.5 100 100", qty="3")
    assert list(exits_as_json(outcome)) == [
        {
            "position": "p", "reason": "take_profit_1", "ts": "2008-09-29T13:30:00Z", "trigger_price": "101",
            "exit_price": "101", "qty": "1.5", "realized_pnl": "1.5", "realized_pct": "1",
        },
        {
            "position": "p", "reason": "time_limit", "ts": "2008-09-29T13:31:00Z", "trigger_price": None,
            "exit_price": "100.5", "qty": "1.5", "realized_pnl": "0.75", "realized_pct": "0.5",
        },
    ]  # fmt: skip


def test_a_tiny_move_does_not_measure_a_stagnation_for_ever():
    plan = {"stagnation": {"seconds": 60, "move_pct": "1e-18"}, "stop_loss": {"pct": "1"}}
    assert exits(plan, "100 100.5 98 98") == ["stop_loss 0 99 10"]
    assert exits(plan, "100 100 100 100", "100 101 99.5 100", "100 100 100 100") == ["stagnation 1 100 10"]


def test_a_plan_that_does_not_fit_its_entry_is_refused_with_its_place():
    with pytest.raises(InvalidInput) as refusal:
        run({"stop_loss": {"price": "101"}}, "100 100 100 100")
    assert str(refusal.value) == (
        "plan: positions.0.plan.stop_loss.price: a long's stop must lie below the entry price 100; got 101"
    )


def test_a_symbol_without_bars_is_refused():
    position = {"id": 1, "symbol": "TSLA", "side": "long", "qty": 1, "entry_price": 1, "opened_at": START.isoformat()}
    with pytest.raises(InvalidInput, match=r"^plan: positions.0.symbol: the bars have no TSLA; they have AAPL$"):
        prepare([holding_of(position)], {"AAPL": series_of([])}, settings=Settings(), source="plan")


def test_a_range_is_measured_on_the_bars_finished_by_the_entry():
    rows = ["100 101 99 100"] * 4 + ["100 150 50 100", "100 100 90 90"]
    plan = {"stop_loss": {"atr": {"period": 2, "multiple": "2"}}}
    assert exits(plan, *rows, opened=4) == ["stop_loss 4 96 10"]
    outcome = run(plan, *rows, opened=2)
    assert outcome.notes == (
        "stop_loss.atr: 2 % of the entry price is used instead, "
        "because only 2 finished bars are known and 3 are needed",
    )
    assert outcome.stop_price == D(98)


def test_a_session_close_is_the_calendars():
    plan = {"session_close": {"minutes_before": 10}}
    day = ["100 100 100 100"] * 800  # from 13:30 to past the close at 20:00, a bar a minute
    assert exits(plan, *day) == ["session_close 380 100 10"]
    assert exits(plan, *day, calendar="XLON") == ["session_close 110 100 10"]
    with pytest.raises(InvalidInput, match=r"positions.0.plan.session_close: .*around the clock"):
        run(plan, *day[:3], calendar="24/7")


def test_ready_positions_can_be_replayed_again():
    series = series_of(bars_of("100 102 98 100"))
    position = {"id": 1, "symbol": "AAPL", "side": "long", "qty": 1, "entry_price": 100, "opened_at": START.isoformat()}
    ready = prepare([holding_of(position)], {"AAPL": series}, settings=Settings(), source="plan")
    assert isinstance(ready[0], Ready)
    assert list(replay(ready, settings=Settings())) == list(replay(ready, settings=Settings()))
