"""The page that changes a plan: it shows what would change, and changes only what was shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from alerts.models import Event
from exitmgr.models import Bracket, Trigger
from exitmgr.plan_edits import change_plan
from exitmgr.rules.plan import parse_plan
from exitmgr.scans import scan
from orders.models import Order
from positions.models import Position
from tests.doors.conftest import NOW, push
from tests.doors.test_admin import desk_of, page_of, said

Hold = Callable[..., Position]
Person = Callable[..., User]
PLAN = {"stop_loss": {"pct": "2"}, "take_profits": [{"pct": "3", "fraction_pct": "50"}, {"pct": "6"}]}


@pytest.fixture
def desk(person: Person) -> Client:
    return desk_of(person("trader"))


def filled(page: Any, **changes: str) -> dict[str, str]:
    """Return the form of a page as a browser would send it, with some fields changed."""
    form = page.context["form"]
    return {name: str(form[name].value() or "") for name in form.fields if not form.fields[name].disabled} | changes


def look(desk: Client, position: Position, **changes: str) -> Any:
    """Fill the form in and ask what would change."""
    url = page_of(position, "plan")
    return desk.post(url, filled(desk.get(url), **changes))


def confirm(desk: Client, position: Position, page: Any) -> Any:
    """Press the button below what was shown."""
    preview = page.content.decode().split('id="preview"', 1)[1].split("</form>", 1)[0]
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', preview))
    return desk.post(page_of(position, "plan"), {name: unescape(text) for name, text in hidden.items()})


def text_of(page: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page.content.decode())).split())


def plan_of(position: Position) -> Any:
    return Bracket.objects.get(position=position).plan


def test_a_stop_is_moved_in_two_steps(desk: Client, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, stop_price="99", note="tight")
    assert "Stop-loss 98 99 Nearest stop of all 98 99 Targets 103, 106 103, 106 stop_loss" in text_of(page)
    assert "gives away more" not in text_of(page)
    assert plan_of(position) == PLAN
    done = confirm(desk, position, page)
    assert (done.url, said(done)) == (page_of(position), ["success: The plan was changed."])
    assert plan_of(position) == {**PLAN, "stop_loss": {"price": "99"}}
    told = Event.objects.get(kind="plan_changed")
    assert (told.actor, told.data["note"]) == ("trader", "tight")
    assert Trigger.objects.get(slot="stop_loss").level == 99


@pytest.mark.parametrize(
    ("_case", "changes", "part", "becomes"),
    [
        ("no stop", {"stop_price": ""}, "stop_loss", None),
        ("a rung elsewhere keeps its percentage", {"target_1": "104"}, "take_profits",
         [{"price": "104", "fraction_pct": "50"}, {"pct": "6"}]),
        ("a rung less", {"target_1": ""}, "take_profits", [{"pct": "6"}]),
        ("a rung more", {"new_target": "109", "new_fraction": "30"}, "take_profits",
         [*PLAN["take_profits"], {"price": "109", "fraction_pct": "30"}]),
        ("a trail", {"trail_pct": "1.5"}, "trailing", [{"pct": "1.5"}]),
        ("a trail that starts at a profit", {"trail_distance": "2", "trail_activation_pct": "4"}, "trailing",
         [{"distance": "2", "activation_pct": "4"}]),
        ("break-even", {"break_even_pct": "1", "break_even_offset_pct": "0.1"}, "break_even",
         {"at_profit_pct": "1", "offset_pct": "0.1"}),
        ("a time limit", {"time_limit_seconds": "86400"}, "time_limit_seconds", 86400),
        ("anything, as JSON", {"document": json.dumps({**PLAN, "session_close": {"minutes_before": 5}})},
         "session_close", {"minutes_before": 5}),
    ],
)  # fmt: skip
def test_each_usual_move_has_its_field(
    _case: str, changes: dict[str, str], part: str, becomes: Any, desk: Client, hold: Hold
) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, **changes)
    assert page.context["preview"] is not None, page.context["form"].errors
    confirm(desk, position, page)
    wanted = {**PLAN, part: becomes}
    assert plan_of(position) == {name: value for name, value in wanted.items() if value is not None}


@pytest.mark.parametrize(
    ("_case", "changes", "field", "says"),
    [
        ("a stop of words", {"stop_price": "low"}, "stop_price", "must be a number above 0"),
        ("a stop of NaN", {"stop_price": "NaN"}, "stop_price", "must be a number above 0"),
        ("a target of nothing", {"target_2": "0"}, "target_2", "must be a number above 0"),
        ("a percentage without a target", {"new_fraction": "20"}, "new_fraction", "must have exactly one of"),
        ("a percentage above all", {"new_target": "109", "new_fraction": "101"}, "new_fraction", "at most 100"),
        ("two kinds of trail", {"trail_pct": "1", "trail_distance": "2"}, "trail_pct", "must have exactly one of"),
        ("a trail without an offset", {"trail_activation_pct": "1"}, "trail_activation_pct", "must have exactly one"),
        ("an offset beyond the start", {"break_even_pct": "1", "break_even_offset_pct": "2"}, "break_even_offset_pct",
         "must be below at_profit_pct"),
        ("a time limit of words", {"time_limit_seconds": "an hour"}, "time_limit_seconds", "must be a whole number"),
        ("no JSON", {"document": "{"}, "document", "is not valid JSON"),
        ("a name twice", {"document": '{"stop_loss": null, "stop_loss": null}'}, "document", "given twice"),
        ("an unknown part", {"document": '{"stoploss": {}}'}, "document", "stoploss: is unknown"),
        ("a list", {"document": "[]"}, "document", "plan: must be"),
        ("field and JSON at once", {"document": "{}", "stop_price": "99"}, "document", "not both"),
        ("a plan that does not fit", {"document": '{"stop_loss": {"distance": "100"}}'}, "document",
         "stop_loss.distance: a long's stop must lie above 0"),
        ("a note too long", {"note": "n" * 501}, "note", "at most 500"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_at_its_field_and_nothing_changes(
    _case: str, changes: dict[str, str], field: str, says: str, desk: Client, hold: Hold
) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, **changes)
    assert (page.status_code, page.context["preview"]) == (200, None)
    assert says in " ".join(page.context["form"].errors.get(field, [])), page.context["form"].errors
    assert plan_of(position) == PLAN
    assert not Event.objects.filter(kind="plan_changed").exists()


def test_what_would_sell_at_once_is_said_and_done_only_when_meant(desk: Client, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, stop_price="100.5")
    assert "This leaves the position at once: the present price or the clock has reached stop_loss." in text_of(page)
    assert "Change it and leave at once" in text_of(page)
    assert plan_of(position) == PLAN
    done = confirm(desk, position, page)
    assert said(done) == ["success: The plan was changed."]
    assert Event.objects.get(kind="plan_changed").data["would_fire"] == ["stop_loss"]


def test_a_price_that_moves_meanwhile_is_shown_before_anything_sells(desk: Client, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, stop_price="99.5")
    assert "at once" not in text_of(page).replace("at once when empty", "")
    push("AAPL", bid="99.40", ask="99.60")
    again = confirm(desk, position, page)
    assert again.status_code == 200
    assert said(again) == ["warning: Nothing was changed yet: the price has moved, look again."]
    assert "has reached stop_loss" in text_of(again)
    assert plan_of(position) == PLAN
    confirm(desk, position, again)
    assert plan_of(position)["stop_loss"] == {"price": "99.5"}


def test_a_plan_somebody_else_changed_meanwhile_is_not_overwritten(desk: Client, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    page = look(desk, position, stop_price="99")
    change_plan(position_id=position.pk, plan=parse_plan({"stop_loss": {"pct": "5"}}), now=NOW, actor="ann")
    done = confirm(desk, position, page)
    assert said(done) == [
        f"error: Nothing was changed: the plan of position {position.pk} was changed meanwhile; look at it again"
    ]
    assert plan_of(position) == {"stop_loss": {"pct": "5"}}


def test_a_looser_stop_is_warned_of(desk: Client, hold: Hold) -> None:
    page = look(desk, hold("10", plan=PLAN), stop_price="97")
    assert "This gives away more than the present plan" in text_of(page)


def test_rungs_that_fired_and_what_has_no_field_cannot_be_typed_over(desk: Client, hold: Hold) -> None:
    plan = {**PLAN, "trailing": [{"pct": "1"}, {"pct": "2"}], "break_even": {"after_rung": 1}}
    position = hold("10", plan=plan)
    push("AAPL", bid="103", ask="103.10")
    scan(now=datetime.now(UTC))
    assert Order.objects.get().reason == "take_profit_1"
    form = desk.get(page_of(position, "plan")).context["form"]
    assert {name for name in form.fields if form.fields[name].disabled} == {
        "target_1", "trail_pct", "trail_distance", "trail_activation_pct", "break_even_pct", "break_even_offset_pct",
    }  # fmt: skip
    page = look(desk, position, document=json.dumps({**plan, "take_profits": [{"pct": "9"}]}))
    assert "take_profits.0: has fired at 103 and stays fired" in str(page.context["form"].errors["document"])


def test_a_position_without_plan_and_without_price_gets_both_said(desk: Client, hold: Hold) -> None:
    position = hold("10")
    Trigger.objects.all().delete()
    Bracket.objects.all().delete()
    position.instrument.quote.delete()
    page = look(desk, position, stop_price="98")
    assert "nobody can say what would fire at once" in text_of(page)
    confirm(desk, position, page)
    assert plan_of(position) == {"stop_loss": {"price": "98"}}


def test_the_page_is_for_who_may_act_on_what_is_open(person: Person, desk: Client, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    assert page_of(position, "plan") in desk.get("/admin/positions/position/").content.decode()
    assert page_of(position, "plan")[:-1] in desk.get(page_of(position)).content.decode()
    viewer = desk_of(person("viewer"))
    assert page_of(position, "plan")[:-1] not in viewer.get(page_of(position)).content.decode()
    assert viewer.get(page_of(position, "plan")).status_code == 403
    assert viewer.post(page_of(position, "plan"), {"confirmed": "yes", "document": "{}"}).status_code == 403
    Position.objects.update(status="closed", exited=10, closed_at=NOW)
    assert desk.get(page_of(position, "plan")).status_code == 403
    assert plan_of(position) == PLAN


@pytest.mark.parametrize(
    "given",
    [{}, {"document": "{"}, {"document": "{}"}, {"document": "{}", "based_on": "x"}, {"document": "[" * 100_000}],
)
def test_a_confirmation_this_page_did_not_write_changes_nothing(
    given: dict[str, str], desk: Client, hold: Hold
) -> None:
    position = hold("10", plan=PLAN)
    done = desk.post(page_of(position, "plan"), {"confirmed": "yes", **given})
    assert said(done) == ["error: Nothing was changed: the request was not made by this page"]
    assert plan_of(position) == PLAN


def test_triggers_show_where_they_fire_and_what_they_wait_for(desk: Client, hold: Hold) -> None:
    position = hold(
        "10", plan={"stop_loss": {"pct": "5"}, "trailing": [{"pct": "2"}, {"pct": "1", "activation_pct": "4"}]}
    )
    shown = text_of(desk.get(page_of(position)))
    assert re.search(r"trailing_1 armed 98 100 fall 2 %", shown), shown
    assert re.search(r"trailing_2 waiting - - fall 1 % - 100 trailing_2:start", shown), shown
