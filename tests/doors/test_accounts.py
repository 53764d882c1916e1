"""The kill switch and flatten at the doors: API, admin site, command line; who may, with which reason."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from rest_framework.test import APIClient

from alerts.models import Event
from exitmgr.account_models import Flatten
from exitmgr.scans import scan
from orders.models import Order
from positions.models import Account, Instrument, Position, TradingSwitch
from tests.doors.conftest import client_of
from tests.doors.test_access import refused
from tests.factories import utc_now

Hold = Callable[..., Position]
Person = Callable[..., User]
NOTE = {"note": "prices are wrong"}


def act(client: APIClient, account: Account, verb: str, body: Any = NOTE) -> Any:
    return client.post(f"/api/v1/accounts/{account.pk}/{verb}", body, format="json")


def state_of(account: Account) -> str:
    return str(Account.objects.values_list("trading_state", flat=True).get(pk=account.pk))


def nothing_happened(account: Account) -> bool:
    return (
        state_of(account), TradingSwitch.objects.count(), Flatten.objects.count(), Order.objects.count()
    ) == ("active", 0, 0, 0)  # fmt: skip


# -- API


@pytest.mark.parametrize(("verb", "state"), [("halt", "halted"), ("reduce-only", "reduce_only"), ("resume", "active")])
def test_a_trader_switches_an_account(verb: str, state: str, trader: APIClient, account: Account) -> None:
    Account.objects.update(trading_state="reduce_only" if verb != "reduce-only" else "halted")
    response = act(trader, account, verb)
    assert (response.status_code, response.json()["trading_state"]) == (200, state)
    assert state_of(account) == state
    told = Event.objects.get(kind="account_switched")
    assert (told.actor, told.data["note"], told.data["after"]) == ("trader", NOTE["note"], {"trading_state": state})


def test_the_switch_over_all_accounts_is_shown_and_set(trader: APIClient, account: Account) -> None:
    shown = trader.get("/api/v1/switch")
    assert shown.json() == {"state": "active", "note": "", "set_by": "", "set_at": None}
    response = trader.post("/api/v1/switch", {"state": "halted", **NOTE}, format="json")
    assert response.status_code == 200
    shown = trader.get("/api/v1/switch").json()
    assert (shown["state"], shown["note"], shown["set_by"]) == ("halted", NOTE["note"], "trader")
    assert state_of(account) == "active"
    entry = {"account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10"}
    Instrument.objects.create(symbol="AAPL")
    problem = refused(trader.post("/api/v1/orders", {**entry, "limit_price": "1"}, format="json"), 422)
    assert problem["errors"] == [
        {
            "field": "account",
            "message": "all accounts are halted: none takes entries until the switch is set back to active",
        }
    ]


@pytest.mark.parametrize(
    ("_case", "path", "body", "field"),
    [
        ("no reason", "accounts/{}/halt", {}, "note"),
        ("an empty one", "accounts/{}/halt", {"note": " "}, "note"),
        ("a misspelt field", "accounts/{}/halt", {**NOTE, "stat": "x"}, "stat"),
        ("no reason", "switch", {"state": "halted"}, "note"),
        ("no such state", "switch", {"state": "off", **NOTE}, "state"),
        ("no confirmation", "accounts/{}/flatten", NOTE, "confirm"),
        ("no confirmation", "switch/flatten", NOTE, "confirm"),
    ],
)
def test_what_is_not_said_is_asked_for(
    _case: str, path: str, body: dict[str, str], field: str, trader: APIClient, account: Account
) -> None:
    problem = refused(trader.post(f"/api/v1/{path.format(account.pk)}", body, format="json"), 400)
    assert [one["field"] for one in problem["errors"]] == [field]
    assert nothing_happened(account)


def test_flatten_needs_the_name_and_goes_on_until_nothing_is_held(
    trader: APIClient, hold: Hold, account: Account
) -> None:
    position = hold()
    problem = refused(act(trader, account, "flatten", {**NOTE, "confirm": "papre"}), 409)
    assert problem["type"] == "urn:exitmgr:switch-refused"
    assert nothing_happened(account)
    response = act(trader, account, "flatten", {**NOTE, "confirm": "paper"})
    assert response.status_code == 202
    shown = response.json()
    assert (shown["account"], shown["asked_by"], shown["ended_at"]) == ("paper", "trader", None)
    assert state_of(account) == "reduce_only"
    scan(now=utc_now(), everything=True)
    order = Order.objects.get()
    assert (order.position_id, order.lane, order.quantity) == (position.pk, "emergency", position.quantity)
    assert Event.objects.get(kind="exit_requested").actor == "trader"


def test_everything_is_left_when_that_is_typed(trader: APIClient, hold: Hold, account: Account) -> None:
    hold()
    path = "/api/v1/switch/flatten"
    refused(trader.post(path, {**NOTE, "confirm": "paper"}, format="json"), 409)
    assert nothing_happened(account)
    response = trader.post(path, {**NOTE, "confirm": "everything"}, format="json")
    assert (response.status_code, response.json()["account"]) == (202, None)
    assert TradingSwitch.objects.get().state == "reduce_only"


@pytest.mark.parametrize("role", ["viewer", "feed"])
def test_others_look_at_the_switch_and_do_not_touch_it(role: str, person: Person, account: Account) -> None:
    client = client_of(person(role))
    assert client.get("/api/v1/switch").status_code == 200
    for verb in ("halt", "resume", "reduce-only", "flatten"):
        refused(act(client, account, verb, {**NOTE, "confirm": "paper"}), 403)
    refused(client.post("/api/v1/switch", {"state": "halted", **NOTE}, format="json"), 403)
    refused(client.post("/api/v1/switch/flatten", {**NOTE, "confirm": "everything"}, format="json"), 403)
    assert nothing_happened(account)


def test_an_account_that_is_not_there(trader: APIClient, db: None) -> None:
    for verb in ("halt", "flatten"):
        refused(
            trader.post(
                f"/api/v1/accounts/999/{verb}", {**NOTE, "confirm": "x"} if verb == "flatten" else NOTE, format="json"
            ),
            404,
        )


# -- command line


def run(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("switch", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_the_command_shows_and_sets_both_switches(account: Account) -> None:
    assert run("show") == ["all accounts: active", "paper: active"]
    assert run("halted", "--account", "paper", "--note", "why")[1] == "paper: halted"
    (overall, own) = run("reduce_only", "--note", "storm")
    assert overall.startswith("all accounts: reduce_only (command line at ")
    assert overall.endswith("UTC: storm)")
    assert own == "paper: halted"
    assert run("active", "--account", "paper", "--note", "calm")[1] == "paper: active"
    assert list(Event.objects.values_list("actor", flat=True).distinct()) == ["command line"]


def test_the_command_flattens_what_is_confirmed(hold: Hold, account: Account) -> None:
    hold()
    with pytest.raises(CommandError, match="confirm must be 'paper'") as told:
        run("flatten", "--account", "paper", "--note", "n", "--confirm", "everything")
    assert told.value.returncode == 2
    assert nothing_happened(account)
    shown = run("flatten", "--account", "paper", "--note", "n", "--confirm", "paper")
    assert shown[1] == "paper: reduce_only"
    assert shown[2].startswith("being left: paper since ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("halted", "--account", "papre", "--note", "n"), "there is no account 'papre'; known are paper"),
        (("halted", "--note", " "), "say why in a note"),
    ],
)
def test_mistakes_end_with_code_2_and_change_nothing(arguments: tuple[str, ...], told: str, account: Account) -> None:
    with pytest.raises(CommandError, match=told) as error:
        run(*arguments)
    assert error.value.returncode == 2
    assert nothing_happened(account)


# -- admin site


def desk_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def desk(person: Person) -> Client:
    return desk_of(person("trader", is_staff=True))


def page(account: Account, verb: str) -> str:
    return f"/admin/positions/account/{account.pk}/{verb}/"


def test_the_pages_ask_before_they_switch(desk: Client, account: Account) -> None:
    shown = desk.get(f"/admin/positions/account/{account.pk}/change/").content.decode()
    for verb in ("halt", "reduce-only", "resume", "flatten"):
        assert page(account, verb) in shown
    asked = desk.get(page(account, "halt"))
    assert "stops wait" in asked.content.decode()
    assert nothing_happened(account)
    assert desk.post(page(account, "halt"), {"note": ""}).status_code == 200
    assert nothing_happened(account)
    assert desk.post(page(account, "halt"), NOTE).status_code == 302
    assert state_of(account) == "halted"
    assert desk.post(page(account, "resume"), NOTE).status_code == 302
    assert state_of(account) == "active"
    assert [one.actor for one in Event.objects.all()] == ["trader", "trader"]


def test_the_page_flattens_only_under_the_right_name(desk: Client, hold: Hold, account: Account) -> None:
    hold()
    assert desk.post(page(account, "flatten"), {**NOTE, "confirm": "other"}).status_code == 302
    assert nothing_happened(account)
    assert "account_switched" not in Event.objects.values_list("kind", flat=True)
    desk.post(page(account, "flatten"), {**NOTE, "confirm": "paper"})
    assert Flatten.objects.get().account == account


def test_the_pages_over_all_accounts(desk: Client, account: Account) -> None:
    listing = desk.get("/admin/positions/account/").content.decode()
    for verb in ("switch-all", "flatten-all"):
        path = f"/admin/positions/account/{verb}/"
        assert path in listing
        assert desk.get(path).status_code == 200
    assert nothing_happened(account)
    desk.post("/admin/positions/account/switch-all/", {"state": "reduce_only", **NOTE})
    assert TradingSwitch.objects.get().state == "reduce_only"
    desk.post("/admin/positions/account/flatten-all/", {**NOTE, "confirm": "everything"})
    assert Flatten.objects.get().account is None


def test_a_viewer_is_shown_no_switch_and_may_not_use_one(person: Person, account: Account) -> None:
    client = desk_of(person("viewer", is_staff=True))
    shown = client.get(f"/admin/positions/account/{account.pk}/change/").content.decode()
    assert page(account, "halt") not in shown
    for path in (page(account, "halt"), page(account, "flatten"), "/admin/positions/account/switch-all/"):
        assert client.post(path, {**NOTE, "state": "halted", "confirm": "paper"}).status_code == 403
    assert nothing_happened(account)
