"""The plan of a position at the API: shown, previewed, changed whole and in parts, refused with its paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from alerts.models import Event
from exitmgr.models import Bracket, Trigger
from exitmgr.plan_edits import PlanChangedMeanwhile, change_plan
from exitmgr.rules.plan import parse_plan
from orders.models import Order
from positions.models import Position
from tests.doors.conftest import NOW
from tests.doors.test_access import refused

Hold = Callable[..., Position]
PLAN = {
    "stop_loss": {"pct": "2"},
    "take_profits": [{"pct": "3", "fraction_pct": "50"}, {"pct": "6"}],
    "trailing": {"pct": "1", "activation_pct": "4"},
    "time_limit_seconds": 86400,
}


def ask(client: APIClient, method: str, position: Position | int, body: Any = None, query: str = "") -> Any:
    pk = position if isinstance(position, int) else position.pk
    url = f"/api/v1/positions/{pk}/plan{query}"
    if body is None:
        return getattr(client, method)(url)
    return getattr(client, method)(url, json.dumps(body), content_type="application/json")


def written() -> tuple[Any, ...]:
    """Return all that a change of plan writes."""
    return (
        list(Bracket.objects.order_by("pk").values("plan", "changed_at", "stop_price", "status")),
        list(Trigger.objects.order_by("pk").values("slot", "status", "level", "due_at", "armed_at")),
        (Event.objects.count(), Order.objects.count()),
    )


def test_a_plan_is_shown_as_given_and_as_it_stands(viewer: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    shown = ask(viewer, "get", position).json()
    assert {name: shown[name] for name in shown if name not in ("triggers", "armed_at")} == {
        "position": position.pk,
        "bracket": Bracket.objects.get().pk,
        "status": "active",
        "plan": {**PLAN, "trailing": [PLAN["trailing"]]},
        "entry_price": "100",
        "stop_price": "98",
        "stop_now": "98",
        "target_prices": ["103", "106"],
        "ratio": "1.5",
        "atr": None,
        "notes": [],
        "error": "",
        "changed_at": None,
    }
    triggers = shown["triggers"]
    assert {slot: (one["status"], one["level_now"]) for slot, one in triggers.items()} == {
        "stop_loss": ("armed", "98"),
        "take_profit_1": ("armed", "103"),
        "take_profit_2": ("armed", "106"),
        "trailing_1:start": ("armed", "104"),
        "trailing_1": ("waiting", None),
        "time_limit": ("armed", None),
    }
    assert (triggers["trailing_1"]["after"], triggers["trailing_1:start"]["act"]) == ("trailing_1:start", "start")
    assert triggers["take_profit_1"]["fraction_pct"] == "50"
    assert triggers["time_limit"]["due_at"] is not None


def test_a_trail_shows_its_best_price_and_where_it_fires_now(viewer: APIClient, hold: Hold) -> None:
    position = hold(plan={"stop_loss": {"pct": "5"}, "trailing": {"distance": "2.5"}})
    shown = ask(viewer, "get", position).json()
    trail = shown["triggers"]["trailing_1"]
    assert (trail["best_price"], trail["level_now"], trail["level"], trail["offset"]) == ("100", "97.5", None, "2.5")
    assert shown["stop_now"] == "97.5"
    detail = viewer.get(f"/api/v1/positions/{position.pk}").json()["bracket"]
    assert {one["slot"]: one["level_now"] for one in detail["triggers"]} == {"stop_loss": "95", "trailing_1": "97.5"}


def test_notes_are_in_every_answer(trader: APIClient, hold: Hold, account: Any, instrument: Any) -> None:
    holding = {"account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10", "entry_price": "100"}
    plan = {"stop_loss": {"pct": "2"}, "take_profits": [{"pct": "1"}]}
    note = "the first target is 1 away and the stop 2: it risks at least as much as it can win"
    made = trader.post("/api/v1/positions", {**holding, "plan": plan}, format="json")
    assert made.json()["bracket"]["notes"] == [note]
    position = made.json()["id"]
    assert ask(trader, "get", position).json()["notes"] == [note]
    assert ask(trader, "put", position, {"plan": plan}, "?preview=true").json()["notes"] == [note]
    assert trader.get(f"/api/v1/brackets/{made.json()['bracket']['id']}").json()["notes"] == [note]


def test_an_entry_answers_with_the_plan_its_fill_will_arm(trader: APIClient, account: Any, instrument: Any) -> None:
    body = {"account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10", "plan": {"stop_loss": {"pct": "2"}}}
    shown = trader.post("/api/v1/orders", body, format="json").json()
    bracket = Bracket.objects.get()
    assert shown["bracket"] == {
        "id": bracket.pk, "status": "pending", "plan": {"stop_loss": {"pct": "2"}}, "notes": [],
    }  # fmt: skip


def test_a_preview_says_what_would_change_and_changes_nothing(trader: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    before = written()
    plan = {"stop_loss": {"price": 95.50}, "take_profits": [{"price": "99.90"}], "trailing": {"pct": "1"}}
    response = ask(trader, "put", position, {"plan": plan}, "?preview=true")
    assert response.status_code == 200
    assert response.json() == {
        "plan": {"stop_loss": {"price": "95.5"}, "take_profits": [{"price": "99.90"}], "trailing": [{"pct": "1"}]},
        "price": "99.9",
        "stop_before": "98",
        "stop_after": "95.5",
        "tightest_before": "98",
        "tightest_after": "99",
        "loosens": True,
        "targets_before": ["103", "106"],
        "targets_after": ["99.9"],
        "would_fire": ["take_profit_1"],
        "notes": ["the first target is 0.1 away and the stop 4.5: it risks at least as much as it can win"],
    }
    assert written() == before


def test_a_plan_is_replaced_whole(trader: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    response = ask(trader, "put", position, {"plan": {"stop_loss": {"price": "99"}}, "note": "tight"})
    assert response.status_code == 200
    shown = response.json()
    assert (shown["plan"], shown["stop_price"], list(shown["triggers"])) == (
        {"stop_loss": {"price": "99"}}, "99", ["stop_loss"],
    )  # fmt: skip
    assert shown["changed_at"] is not None
    told = Event.objects.get(kind="plan_changed")
    assert (told.actor, told.data["note"], told.data["before"]["stop_loss"]) == ("trader", "tight", {"pct": "2"})


def test_parts_are_replaced_and_taken_out(trader: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    parts = {"stop_loss": {"price": "99"}, "take_profits": None, "break_even": {"at_profit_pct": "1"}}
    shown = ask(trader, "patch", position, {"plan": parts}).json()
    assert shown["plan"] == {
        "stop_loss": {"price": "99"},
        "trailing": [PLAN["trailing"]],
        "time_limit_seconds": 86400,
        "break_even": {"at_profit_pct": "1"},
    }
    assert {slot: one["status"] for slot, one in shown["triggers"].items()} == {
        "stop_loss": "armed", "trailing_1:start": "armed", "trailing_1": "waiting", "time_limit": "armed",
        "break_even:start": "armed", "break_even": "waiting",
    }  # fmt: skip


def test_what_would_sell_at_once_is_a_problem_until_it_is_confirmed(trader: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    before = written()
    body = {"plan": {"stop_loss": {"price": "100.5"}}}
    response = ask(trader, "patch", position, body)
    assert response.status_code == 409
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:exitmgr:would-fire-now",
        "title": "The plan would leave the position at once",
        "status": 409,
        "detail": "it would leave the position at once (stop_loss); confirm it if that is meant",
        "errors": [],
        "would_fire": ["stop_loss"],
    }
    assert written() == before
    shown = ask(trader, "patch", position, {**body, "confirm": True}).json()
    assert shown["stop_price"] == "100.5"


def test_a_position_without_a_plan_says_so_and_gets_one(trader: APIClient, hold: Hold) -> None:
    position = hold()
    Trigger.objects.all().delete()
    Bracket.objects.all().delete()
    problem = refused(ask(trader, "get", position), 404)
    assert problem["detail"] == f"position {position.pk} has no plan; give it one with PUT"
    shown = ask(trader, "patch", position, {"plan": {"stop_loss": {"pct": "1"}}}).json()
    assert (shown["status"], shown["stop_price"]) == ("active", "99")


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize(
    ("_case", "body", "query", "field"),
    [
        ("no plan", {}, "", "plan"),
        ("a plan that is a word", {"plan": "tight"}, "", "plan"),
        ("a plan that is null", {"plan": None}, "", "plan"),
        ("a plan that is a list", {"plan": []}, "", "plan"),
        ("a body that is a list", [], "", "body"),
        ("an unknown field", {"plan": {}, "force": True}, "", "force"),
        ("a note too long", {"plan": {}, "note": "n" * 501}, "", "note"),
        ("a confirmation that is none", {"plan": {}, "confirm": "maybe"}, "", "confirm"),
        ("an unknown part", {"plan": {"stoploss": {"pct": "1"}}}, "", "plan.stoploss"),
        ("a stop of -1 %", {"plan": {"stop_loss": {"pct": "-1"}}}, "", "plan.stop_loss.pct"),
        ("a stop of NaN", {"plan": {"stop_loss": {"pct": "NaN"}}}, "", "plan.stop_loss.pct"),
        ("two kinds of stop", {"plan": {"stop_loss": {"pct": 1, "price": 90}}}, "", "plan.stop_loss"),
        ("a rung of 0 %", {"plan": {"take_profits": [{"pct": 1}, {"pct": 2, "fraction_pct": 0}]}}, "",
         "plan.take_profits.1.fraction_pct"),
        ("a stop below nothing", {"plan": {"stop_loss": {"distance": "100"}}}, "", "plan.stop_loss.distance"),
        ("a start behind the entry", {"plan": {"break_even": {"after_rung": 9}}}, "", "plan.break_even.after_rung"),
        ("an unknown parameter", {"plan": {}}, "?dry_run=true", "dry_run"),
        ("a preview that is neither", {"plan": {}}, "?preview=yes", "preview"),
        ("a preview of nonsense", {"plan": {"stop_loss": {}}}, "?preview=true", "plan.stop_loss"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_its_path_and_nothing_is_written(
    _case: str, body: Any, query: str, field: str, method: str, trader: APIClient, hold: Hold
) -> None:
    position = hold(plan=PLAN)
    before = written()
    problem = refused(ask(trader, method, position, body, query), 400)
    assert field in {one["field"] for one in problem["errors"]}
    assert written() == before


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("query", ["", "?preview=true"])
def test_a_closed_position_keeps_its_plan(method: str, query: str, trader: APIClient, hold: Hold) -> None:
    position = hold("10", plan=PLAN)
    Position.objects.update(status="closed", exited=10, closed_at=NOW)
    before = written()
    problem = refused(ask(trader, method, position, {"plan": {}}, query), 409)
    assert (problem["type"], "is closed" in problem["detail"]) == ("urn:exitmgr:plan-refused", True)
    assert written() == before
    assert ask(trader, "get", position).status_code == 200


@pytest.mark.parametrize("method", ["get", "put", "patch"])
def test_there_is_no_plan_of_what_is_not_there(method: str, trader: APIClient) -> None:
    body: Any = None if method == "get" else {"plan": {}}
    problem = refused(ask(trader, method, 999999, body), 404)
    assert problem["detail"] == "there is no position 999999"


def test_an_unknown_parameter_of_the_plan_is_refused(viewer: APIClient, hold: Hold) -> None:
    assert refused(ask(viewer, "get", hold(), query="?x=1"), 400)["errors"][0]["field"] == "x"


@pytest.mark.parametrize("query", ["", "?preview=true"])
@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_viewer_looks_and_changes_nothing(method: str, query: str, viewer: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    assert ask(viewer, "get", position).status_code == 200
    before = written()
    refused(ask(viewer, method, position, {"plan": {}}, query), 403)
    assert written() == before


def test_a_change_made_for_another_plan_is_refused(hold: Hold) -> None:
    position = hold(plan=PLAN)
    before = written()
    with pytest.raises(PlanChangedMeanwhile, match="was changed meanwhile; look at it again"):
        change_plan(position_id=position.pk, plan=parse_plan({}), now=NOW, actor="ann", based_on={"stop_loss": {}})
    assert written() == before


def test_the_plan_shown_has_the_fields_that_are_described(viewer: APIClient, hold: Hold) -> None:
    schemas = SchemaGenerator().get_schema(request=None, public=True)["components"]["schemas"]
    shown = ask(viewer, "get", hold(plan=PLAN)).json()
    assert set(shown) == set(schemas["PlanState"]["properties"])
    assert set(shown["triggers"]["stop_loss"]) == set(schemas["Trigger"]["properties"])


def test_a_looked_at_plan_takes_as_many_queries_for_many_triggers(viewer: APIClient, hold: Hold) -> None:
    def count(position: Position) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ask(viewer, "get", position).status_code == 200
        return len(captured)

    few = count(hold(plan={"stop_loss": {"pct": "1"}}))
    assert count(hold(plan={**PLAN, "trailing": [{"pct": str(number)} for number in range(1, 9)]})) == few
    assert few <= 8
