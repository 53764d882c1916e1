"""Plans changed while they run: what is armed follows, what has fired stays, what would sell at once is asked about."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts.models import Alert, Event
from exitmgr.advance import advance
from exitmgr.exits import request_exit
from exitmgr.models import Bracket, TrailCohort, Trigger
from exitmgr.plan_edits import PlanRefused, WouldFireNow, change_plan, merged_plan, preview_plan
from exitmgr.queries import level_now, stops_now, triggers_in_order
from exitmgr.rules.plan import InvalidPlan, parse_plan
from exitmgr.scans import scan
from orders.brokers.protocol import ReportedState
from orders.cancel import request_cancel
from orders.models import Order
from orders.updates import apply_reports
from positions.models import Position
from positions.values import Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db
LADDER = {
    "stop_loss": {"pct": "5"},
    "take_profits": [{"pct": "1", "fraction_pct": "50"}, {"pct": "2", "fraction_pct": "50"}, {"pct": "3"}],
}


def change(position, plan, **options):
    """Give a position a plan as a person would."""
    options = {"now": f.utc_now(), "actor": "ann", **options}
    return change_plan(position_id=position.pk, plan=parse_plan(plan), **options)


def preview(position, plan):
    return preview_plan(f.read_again(position), parse_plan(plan), now=f.utc_now())


def look(**options):
    return scan(now=options.pop("now", None) or f.utc_now(), **options)


def live(position):
    """Return status and level of each trigger that counts, by slot."""
    rows = triggers_in_order().filter(position=position).exclude(status="cancelled").order_by("pk")
    return {row.slot: (row.status, level_now(row)) for row in rows}


def orders_of(position):
    return list(Order.objects.filter(position=position, intent="exit").order_by("pk").values_list("reason", "quantity"))


def untouched(position):
    """Return everything a change would write."""
    return (
        list(Bracket.objects.filter(position=position).values("plan", "changed_at", "stop_price", "status")),
        list(Trigger.objects.filter(position=position).order_by("pk").values("slot", "status", "level", "armed_at")),
        Event.objects.count(),
    )


# -- the stop


@pytest.mark.parametrize(
    ("_case", "side", "stop", "loosens"),
    [
        ("long, tighter", Side.LONG, "99.5", False),
        ("long, looser", Side.LONG, "98", True),
        ("long, taken out", Side.LONG, None, True),
        ("short, tighter", Side.SHORT, "100.5", False),
        ("short, looser", Side.SHORT, "102", True),
    ],
)
def test_a_stop_is_moved_and_a_looser_one_is_said_to_be(_case, side, stop, loosens):
    f.set_quote("100")
    position = f.hold(side=side)
    before = stops_now([position.pk])[position.pk]
    plan = {"stop_loss": {"price": stop}} if stop else {}
    told = preview(position, plan)
    assert (told.stop_before, told.stop_after) == (before, D(stop) if stop else None)
    assert (told.loosens, told.would_fire) == (loosens, ())
    bracket, _ = change(position, plan)
    assert bracket.stop_price == (D(stop) if stop else None)
    assert live(position) == ({"stop_loss": ("armed", D(stop))} if stop else {})
    assert stops_now([position.pk]) == ({position.pk: D(stop)} if stop else {})


@pytest.mark.parametrize(("side", "price", "stop"), [(Side.LONG, "105", "103"), (Side.SHORT, "95", "97")])
def test_a_stop_is_moved_into_profit_and_fires_there(side, price, stop):
    f.set_quote("100")
    position = f.hold(side=side, plan={"stop_loss": {"pct": "5"}})
    f.set_quote(price)
    change(position, {"stop_loss": {"price": stop}})
    look()
    assert orders_of(position) == []
    f.set_quote(stop, stop)
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == [("stop_loss", D(10))]
    assert Order.objects.get().trigger_price == D(stop)


def test_a_moved_stop_is_not_judged_on_prices_from_before_it():
    f.set_quote("100")
    position = f.hold(plan={"stop_loss": {"pct": "5"}})
    f.push_price("98")
    f.push_price("100")
    change(position, {"stop_loss": {"price": "99"}})
    look()
    assert orders_of(position) == []
    f.push_price("98.99")
    look()
    assert orders_of(position) == [("stop_loss", D(10))]


def test_what_would_sell_at_once_is_refused_and_done_when_it_is_confirmed():
    f.set_quote("100")
    position = f.hold()
    before = untouched(position)
    plan = {"stop_loss": {"price": "100.5"}, "take_profits": [{"price": "99"}], "time_limit_seconds": 86400}
    with pytest.raises(WouldFireNow, match=r"at once \(stop_loss, take_profit_1\); confirm") as refused:
        change(position, plan)
    assert refused.value.preview.would_fire == ("stop_loss", "take_profit_1")
    assert refused.value.preview.price == D(100)
    assert untouched(position) == before
    _, told = change(position, plan, confirm=True)
    assert told.would_fire == ("stop_loss", "take_profit_1")
    assert orders_of(position) == []  # the scan sells, nobody else
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == [("stop_loss", D(10))]
    assert Event.objects.get(kind="plan_changed").data["would_fire"] == ["stop_loss", "take_profit_1"]


def test_a_preview_changes_nothing():
    f.set_quote("100")
    position = f.hold()
    before = untouched(position)
    told = preview(position, {"stop_loss": {"price": "98"}, "take_profits": [{"pct": "4"}]})
    assert (told.targets_before, told.targets_after, told.price) == ((D(102),), (D(104),), D(100))
    assert untouched(position) == before


def test_without_a_price_nobody_can_say_what_would_fire():
    position = f.hold()
    told = preview(position, {"stop_loss": {"price": "150"}})
    assert (told.price, told.would_fire) == (None, ())
    change(position, {"stop_loss": {"price": "150"}})
    assert live(position) == {"stop_loss": ("armed", D(150))}


# -- trails


def test_a_trail_added_while_it_runs_follows_from_the_price_now():
    f.set_quote("100")
    position = f.hold()
    f.set_quote("105")
    plan = {"stop_loss": {"pct": "1"}, "trailing": {"pct": "2"}}
    told = preview(position, plan)
    assert (told.tightest_before, told.tightest_after, told.loosens) == (D(99), D("102.9"), False)
    change(position, plan)
    look(instrument_ids=[position.instrument_id])
    assert stops_now([position.pk]) == {position.pk: D("102.9")}
    f.set_quote("102.9")
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == [("trailing_stop", D(10))]


@pytest.mark.parametrize(
    ("_case", "trailing", "changed", "level"),
    [
        ("tighter", {"pct": "5"}, {"pct": "2"}, "107.8"),
        ("looser", {"pct": "2"}, {"pct": "5"}, "104.5"),
        ("in price instead of percent", {"pct": "2"}, {"distance": "3"}, "107"),
        ("started by a profit before", {"pct": "2", "activation_pct": "5"}, {"pct": "1", "activation_pct": "5"}, "108.9"),
        ("its start moved away after it has started", {"pct": "2", "activation_pct": "5"},
         {"pct": "1", "activation_pct": "50"}, "108.9"),
        ("its start taken away", {"pct": "2", "activation_pct": "5"}, {"pct": "1"}, "108.9"),
        ("a start put before it after it has started", {"pct": "2"}, {"pct": "1", "activation_pct": "50"}, "108.9"),
    ],
)  # fmt: skip
def test_a_trail_keeps_its_best_price_through_changes(_case, trailing, changed, level):
    f.set_quote("100")
    position = f.hold(plan={"trailing": trailing})
    for bid in ("106", "110", "109.5"):
        f.push_price(bid)
        look()
    told = preview(position, {"trailing": changed})
    assert told.tightest_after == D(level)
    change(position, {"trailing": changed})
    look(instrument_ids=[position.instrument_id])
    assert stops_now([position.pk]) == {position.pk: D(level)}
    assert live(position)["trailing_1"] == ("armed", D(level))
    f.set_quote(level)
    look(instrument_ids=[position.instrument_id])
    assert orders_of(position) == [("trailing_stop", D(10))]
    assert Order.objects.get().trigger_price == D(level)


def test_a_best_price_no_scan_has_seen_yet_counts_through_a_change():
    f.set_quote("100")
    position = f.hold(plan={"trailing": {"pct": "5"}})
    f.push_price("110")
    f.push_price("108")
    change(position, {"trailing": {"pct": "3"}})
    look()
    assert orders_of(position) == []  # the change came after the peak, so only the price now is held against it
    assert TrailCohort.objects.get(trails__isnull=False).best == D(110)
    f.push_price("106.7")
    look()
    assert orders_of(position) == [("trailing_stop", D(10))]


def test_a_trail_that_waits_for_its_start_starts_at_once_without_one():
    f.set_quote("100")
    position = f.hold(plan={"trailing": {"pct": "2", "activation_pct": "5"}})
    assert live(position) == {"trailing_1:start": ("armed", D(105)), "trailing_1": ("waiting", None)}
    change(position, {"trailing": {"pct": "2"}})
    assert live(position) == {"trailing_1": ("armed", D(98))}


def test_taking_a_trail_out_loosens_though_the_stop_stays():
    f.set_quote("100")
    position = f.hold(plan={"stop_loss": {"pct": "5"}, "trailing": {"pct": "2"}})
    told = preview(position, {"stop_loss": {"pct": "5"}})
    assert (told.stop_before, told.stop_after) == (D(95), D(95))
    assert (told.tightest_before, told.tightest_after, told.loosens) == (D(98), D(95), True)


# -- rungs


def test_rungs_that_fired_stay_fired_and_the_others_follow():
    f.set_quote("100")
    position = f.hold(plan=LADDER)
    f.push_price("101")
    look()
    changed = merged_plan(LADDER, {"take_profits": [LADDER["take_profits"][0], {"price": "104", "fraction_pct": "20"}]})
    change(position, changed)
    assert live(position) == {
        "stop_loss": ("armed", D(95)), "take_profit_1": ("fired", D(101)), "take_profit_2": ("armed", D(104)),
    }  # fmt: skip
    assert Trigger.objects.get(slot="take_profit_2", status="armed").fraction_pct == 20
    f.push_price("104")
    look()
    assert orders_of(position) == [("take_profit_1", D(5)), ("take_profit_2", D(1))]


def test_other_terms_for_a_rung_that_fired_are_refused_because_they_would_never_count():
    f.set_quote("100")
    position = f.hold(plan=LADDER)
    f.push_price("101")
    look()
    before = untouched(position)
    with pytest.raises(InvalidPlan) as refused:
        change(position, {**LADDER, "take_profits": [{"pct": "6"}]})
    assert refused.value.problems == {
        "take_profits.0": "has fired at 101 and stays fired; keep it as it is and put what is new after it"
    }
    with pytest.raises(InvalidPlan):
        preview(position, {**LADDER, "take_profits": [{"pct": "6"}]})
    assert untouched(position) == before


def test_a_target_put_in_after_all_were_taken_out_is_a_new_one():
    f.set_quote("100")
    position = f.hold(plan=LADDER)
    f.push_price("101")
    look()
    change(position, {"stop_loss": {"pct": "5"}})
    assert live(position) == {"stop_loss": ("armed", D(95)), "take_profit_1": ("fired", D(101))}
    change(position, {"stop_loss": {"pct": "5"}, "take_profits": [{"pct": "6"}]})
    f.push_price("106")
    look()
    assert [reason for reason, _ in orders_of(position)] == ["take_profit_1"]
    Order.objects.update(state="filled", reserved=0, ended_at=f.utc_now())
    Position.objects.update(reserved=0)
    f.push_price("106.5")
    look(instrument_ids=[position.instrument_id])
    assert [reason for reason, _ in orders_of(position)] == ["take_profit_1", "take_profit_1"]


def test_a_part_is_taken_out_and_the_others_stay_as_they_were():
    f.set_quote("100")
    position = f.hold(plan={**LADDER, "time_limit_seconds": 3600})
    armed_at = Trigger.objects.get(slot="stop_loss").armed_at
    change(position, merged_plan(f.bracket_of(position).plan, {"take_profits": None, "time_limit_seconds": None}))
    assert live(position) == {"stop_loss": ("armed", D(95))}
    assert Trigger.objects.get(slot="stop_loss").armed_at == armed_at
    assert f.bracket_of(position).plan == {"stop_loss": {"pct": "5"}}
    assert set(Trigger.objects.exclude(slot="stop_loss").values_list("status", flat=True)) == {"cancelled"}


# -- break-even


def test_a_break_even_stop_that_is_set_stays_and_may_be_moved():
    f.set_quote("100")
    plan = {"stop_loss": {"pct": "2"}, "break_even": {"at_profit_pct": "1"}}
    position = f.hold(plan=plan)
    f.push_price("101.5")
    look()
    assert stops_now([position.pk]) == {position.pk: D(100)}
    told = preview(position, {**plan, "stop_loss": {"pct": "1"}})
    assert (told.tightest_before, told.tightest_after, told.loosens) == (D(100), D(100), False)
    change(position, {**plan, "break_even": {"at_profit_pct": "3", "offset_pct": "0.5"}})
    assert live(position) == {
        "stop_loss": ("armed", D(98)), "break_even:start": ("fired", D(101)), "break_even": ("armed", D("100.5")),
    }  # fmt: skip


def test_a_break_even_put_in_again_waits_for_its_profit_again():
    f.set_quote("100")
    plan = {"break_even": {"at_profit_pct": "1"}}
    position = f.hold(plan=plan)
    f.push_price("101.5")
    look()
    change(position, {})
    change(position, {"break_even": {"at_profit_pct": "3"}})
    assert live(position)["break_even:start"] == ("armed", D(103))
    assert live(position)["break_even"] == ("waiting", D(100))


def test_a_break_even_that_waits_is_set_at_once_after_a_rung_that_fired_already():
    f.set_quote("100")
    plan = {**LADDER, "break_even": {"at_profit_pct": "4"}}
    position = f.hold(plan=plan)
    f.push_price("101")
    look()
    change(position, {**LADDER, "break_even": {"after_rung": 1}})
    assert live(position)["break_even"] == ("armed", D(100))
    f.push_price("99.9")
    look()
    assert orders_of(position) == [("take_profit_1", D(5)), ("break_even", D(5))]


# -- timers


def test_a_stagnation_keeps_its_clock_unless_its_terms_change():
    f.set_quote("100")
    stagnation = {"seconds": 600, "move_pct": "1"}
    position = f.hold(plan={"stagnation": stagnation})
    due_at = Trigger.objects.get(slot="stagnation").due_at
    later = f.utc_now() + timedelta(seconds=60)
    change(position, {"stagnation": stagnation, "stop_loss": {"pct": "5"}}, now=later)
    assert Trigger.objects.get(slot="stagnation").due_at == due_at
    change(position, {"stagnation": {**stagnation, "seconds": 900}}, now=later)
    assert Trigger.objects.get(slot="stagnation").due_at == later + timedelta(seconds=900)


def test_a_time_limit_added_while_it_runs_counts_from_the_entry():
    f.set_quote("100")
    position = f.hold()
    change(position, {"time_limit_seconds": 600})
    assert Trigger.objects.get(slot="time_limit").due_at == position.opened_at + timedelta(seconds=600)


def test_a_time_limit_that_is_over_already_is_asked_about_and_fires_when_meant():
    f.set_quote("100")
    position = f.hold()
    later = f.utc_now() + timedelta(seconds=700)
    with pytest.raises(WouldFireNow, match=r"\(time_limit\)"):
        change(position, {"time_limit_seconds": 600}, now=later)
    change(position, {"time_limit_seconds": 600}, now=later, confirm=True)
    look(now=later, everything=True)
    assert orders_of(position) == [("time_limit", D(10))]


# -- what has gone wrong before


def failed_stop(**options):
    """Return a position whose stop fired and whose exit a person called off."""
    f.set_quote("100")
    position = f.hold(**options)
    f.push_price("90")
    look()
    order = Order.objects.get(position=position)
    request_cancel(order_id=order.pk, now=f.utc_now(), actor="ann")
    advance(now=f.utc_now())
    assert orders_of(position) == [(order.reason, D(10))]
    return position


def test_a_stop_whose_exit_failed_is_armed_again():
    position = failed_stop()
    assert live(position)["stop_loss"] == ("fired", D(99))
    with pytest.raises(WouldFireNow):
        change(position, f.PLAN)
    change(position, {"stop_loss": {"price": "85"}})
    assert live(position) == {"stop_loss": ("armed", D(85))}
    f.push_price("84.5")
    look()
    assert orders_of(position) == [("stop_loss", D(10)), ("stop_loss", D(10))]


@pytest.mark.parametrize(
    ("_case", "trailing", "level"),
    [
        ("from the entry on", {"pct": "4"}, "96"),
        ("after a start it goes on from the price now", {"pct": "4", "activation_pct": "1"}, "86.4"),
    ],
)
def test_a_trail_whose_exit_failed_is_followed_again(_case, trailing, level):
    f.set_quote("100")
    position = f.hold(plan={"trailing": trailing})
    f.push_price("101")
    look()
    f.push_price("90")
    look()
    request_cancel(order_id=Order.objects.get().pk, now=f.utc_now(), actor="ann")
    advance(now=f.utc_now())
    change(position, {"trailing": trailing}, confirm=True)
    assert live(position)["trailing_1"] == ("armed", D(level))


def test_a_live_exit_keeps_its_stop_from_being_armed_again():
    f.set_quote("100")
    position = f.hold()
    f.push_price("98.9")
    look()
    change(position, {"stop_loss": {"price": "95"}})
    assert live(position)["stop_loss"] == ("fired", D(99))
    assert orders_of(position) == [("stop_loss", D(10))]


def test_a_stop_that_waits_for_quantity_goes_out_whatever_the_new_plan_says():
    f.set_quote("100")
    position = f.hold()
    manual = request_exit(position_id=position.pk, now=f.utc_now(), actor="ann")
    f.push_price("98.9")
    look()
    assert live(position)["stop_loss"][0] == "breached"
    change(position, {"stop_loss": {"price": "95"}})
    assert live(position)["stop_loss"][0] == "breached"
    apply_reports(account_id=manual.account_id, reports=[f.report_of(manual, ReportedState.REJECTED)], now=f.utc_now())
    advance(now=f.utc_now())
    assert orders_of(position) == [("manual", D(10)), ("stop_loss", D(10))]


def test_a_bracket_in_error_is_repaired_by_a_plan_that_fits():
    f.set_quote("100")
    order = f.entry_order(plan={"stop_loss": {"price": "99"}})
    fill = f.fill_of("10", "98")
    apply_reports(
        account_id=order.account_id,
        reports=[f.report_of(order, ReportedState.FILLED, executions=[fill])],
        now=f.utc_now(),
    )
    advance(now=f.utc_now())
    bracket = Bracket.objects.get()
    assert (bracket.status, Alert.objects.get(kind="bracket_error").resolved_at) == ("error", None)
    position = Position.objects.get()
    f.set_quote("98")
    changed, told = change(position, {"stop_loss": {"pct": "1"}})
    assert (changed.pk, changed.status, changed.error) == (bracket.pk, "active", "")
    assert told.stop_before is None
    assert live(position) == {"stop_loss": ("armed", D("97.02"))}
    assert Alert.objects.get(kind="bracket_error").resolved_at is not None


def test_a_position_without_a_plan_gets_its_first():
    f.set_quote("100")
    position = f.hold(plan={})
    Bracket.objects.update(status="cancelled", ended_at=f.utc_now())
    bracket, told = change(position, {"stop_loss": {"pct": "3"}})
    assert (bracket.status, bracket.armed_at, told.stop_before) == ("active", bracket.changed_at, None)
    assert (Bracket.objects.count(), live(position)) == (2, {"stop_loss": ("armed", D(97))})
    assert Event.objects.get(kind="plan_changed").data["before"] is None


@pytest.mark.parametrize("act", [change, preview])
def test_a_closed_position_has_nothing_to_plan_for(act):
    position = f.hold()
    Position.objects.update(status="closed", exited=10, closed_at=f.utc_now())
    before = untouched(position)
    with pytest.raises(PlanRefused, match=f"position {position.pk} is closed; there is nothing left to plan for"):
        act(f.read_again(position), {})
    assert untouched(position) == before


def test_a_position_that_is_not_there_has_no_plan():
    with pytest.raises(Position.DoesNotExist, match="there is no position 999999"):
        change_plan(position_id=999999, plan=parse_plan({}), now=f.utc_now(), actor="ann")


@pytest.mark.parametrize(
    ("_case", "plan", "path"),
    [
        ("a stop below nothing", {"stop_loss": {"distance": "100"}}, "stop_loss.distance"),
        ("a start behind the entry of a trail", {"break_even": {"at_profit_pct": "1", "after_rung": 1}}, "break_even"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_the_old_one_goes_on(_case, plan, path):
    f.set_quote("100")
    position = f.hold()
    before = untouched(position)
    with pytest.raises(InvalidPlan) as refused:
        change(position, plan)
    assert list(refused.value.problems) == [path]
    assert untouched(position) == before


# -- what is told


def test_the_journal_tells_who_changed_what_and_why():
    f.set_quote("100")
    position = f.hold()
    bracket, _ = change(position, {"stop_loss": {"price": "98.50"}}, note=" earnings tonight ")
    told = Event.objects.get(kind="plan_changed")
    assert (told.actor, told.position_ref, told.bracket_ref, told.account_ref) == (
        "ann", position.pk, bracket.pk, position.account_id,
    )  # fmt: skip
    assert told.data == {
        "before": f.PLAN,
        "after": {"stop_loss": {"price": "98.50"}},
        "stop_before": "99",
        "stop_after": "98.50",
        "would_fire": [],
        "note": "earnings tonight",
    }


def test_more_of_the_entry_filled_later_keeps_what_a_person_chose():
    f.set_quote("100")
    order = f.entry_order(plan=f.PLAN)
    first = f.fill_of("5", "100")
    apply_reports(account_id=order.account_id, reports=[f.report_of(order, executions=[first])], now=f.utc_now())
    advance(now=f.utc_now())
    position = Position.objects.get()
    f.set_quote("104")
    change(position, {"stop_loss": {"price": "103"}})
    rest = [first, f.fill_of("5", "102")]
    apply_reports(
        account_id=order.account_id,
        reports=[f.report_of(order, ReportedState.FILLED, executions=rest)],
        now=f.utc_now(),
    )
    advance(now=f.utc_now())
    assert f.read_again(position).quantity == 10
    assert (f.bracket_of(position).status, live(position)) == ("active", {"stop_loss": ("armed", D(103))})


def test_the_stops_of_many_positions_take_one_query():
    f.set_quote("100")
    account = f.make_account()
    positions = [f.hold(account=account, plan={"stop_loss": {"pct": "5"}, "trailing": {"pct": "3"}}) for _ in range(4)]
    bare, short = f.hold(plan={}), f.hold(side=Side.SHORT, plan={"stop_loss": {"pct": "5"}, "trailing": {"pct": "2"}})
    with CaptureQueriesContext(connection) as captured:
        stops = stops_now([*(position.pk for position in positions), bare.pk, short.pk])
    assert len(captured) == 1
    assert stops == {**dict.fromkeys([position.pk for position in positions], D(97)), short.pk: D(102)}
