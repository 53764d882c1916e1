"""Reconciliation from the command line and over the API: literal answers; mistakes are one line and code 2."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from rest_framework.test import APIClient

from exitmgr.models import Difference
from tests import factories as f

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> list[str]:
    """Run the command and return its lines."""
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue().splitlines()


def refused(*arguments: str) -> str:
    """Run a command that must end with one line and code 2."""
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert caught.value.returncode == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def there(box, quantity, average="100"):
    """Let the broker hold this, with no order."""
    box.control("POST", "/positions", {"symbol": "AAPL", "qty": quantity, "avg_entry_price": average})


@pytest.fixture(autouse=True)
def _no_static_files(settings) -> None:
    """Do without collected static files."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture
def client(db) -> APIClient:
    """Return a client that may do everything."""
    client = APIClient()
    client.force_authenticate(User.objects.create_superuser("root"))
    return client


def test_the_command_says_what_differs_and_what_it_waits_with(box, account):
    assert run() == ["sim: agrees with its broker"]
    position = f.hold(account=account)
    wanted = ["sim: 1 differences", "  closed_outside AAPL: here 10, there 0, average_here 100"]
    assert run("look", "sim", "--dry-run") == wanted
    assert Difference.objects.count() == 0
    assert run("look", "sim") == [wanted[0], f"{wanted[1]}; waited with"]
    answer = json.loads("\n".join(run("look", "--json", "--dry-run")))
    assert answer == {
        "sim": [
            {
                "kind": "closed_outside",
                "symbol": "AAPL",
                "figures": {"here": "10", "there": "0", "average_here": "100"},
                "positions": [position.pk],
                "order": None,
                "done": "",
            }
        ]
    }


def test_a_mistake_is_one_line(box, account):
    position = f.hold(account=account)
    assert refused("look", "nope") == "there is no account 'nope'; known are sim"
    assert "is no ratio; write 4:1" in refused("confirm-split", "AAPL", "4/1")
    assert refused("split", "NOPE", "4:1") == "there is no instrument 'NOPE'"
    assert "shows no split there" in refused("confirm-split", "AAPL", "4:1")
    assert "is not frozen" in refused("release", str(position.pk), "--note", "x")
    assert refused("release", "999999", "--note", "x") == "there is no position 999999"
    f.make_account(name="nobody")
    assert "the broker of nobody did not answer" in refused("look", "nobody")


def test_a_split_is_confirmed_from_the_command_line(box, account):
    position = f.hold(account=account)
    there(box, "40", "25")
    run()
    assert run("confirm-split", "AAPL", "4:1") == [
        f"AAPL: positions {position.pk} are in the terms of 4:1 and watched again"
    ]
    assert f.read_again(position).remaining == 40
    assert run() == ["sim: agrees with its broker"]


def test_the_api_looks_lists_and_settles(box, account, client):
    position = f.hold(account=account)
    there(box, "40", "25")
    url = f"/api/v1/accounts/{account.pk}/reconcile"
    dry = client.post(url, {"dry_run": True}, format="json")
    assert (dry.status_code, dry.json()[0]["kind"], dry.json()[0]["done"]) == (200, "split", "")
    assert client.get("/api/v1/differences").json()["results"] == []
    assert client.post(url, {}, format="json").json()[0]["done"] == "frozen, and told a person"
    (listed,) = client.get("/api/v1/differences", {"open": "true", "account": "sim"}).json()["results"]
    assert (listed["kind"], listed["figures"]["ratio"], listed["resolved_at"]) == ("split", "4:1", None)
    wrong = client.post("/api/v1/splits", {"symbol": "AAPL", "ratio": "5:1"}, format="json")
    assert (wrong.status_code, wrong.json()["type"]) == (409, "urn:exitmgr:split-refused")
    bad = client.post("/api/v1/splits", {"symbol": "AAPL", "ratio": "half"}, format="json")
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (400, "ratio")
    done = client.post("/api/v1/splits", {"symbol": "AAPL", "ratio": "4:1"}, format="json")
    assert (done.status_code, done.json()) == (200, {"positions": [position.pk]})
    again = client.post(f"/api/v1/positions/{position.pk}/release", {"note": "x"}, format="json")
    assert (again.status_code, again.json()["type"]) == (409, "urn:exitmgr:not-frozen")


def test_an_account_that_is_not_there(client):
    assert client.post("/api/v1/accounts/999999/reconcile", {}, format="json").status_code == 404
    assert client.post("/api/v1/positions/999999/release", {"note": "x"}, format="json").status_code == 404


def test_who_may_not_leave_positions_may_not_settle_them(account):
    client = APIClient()
    client.force_authenticate(User.objects.create_user("looker"))
    assert client.post(f"/api/v1/accounts/{account.pk}/reconcile", {}, format="json").status_code == 403
    assert client.post("/api/v1/splits", {"symbol": "AAPL", "ratio": "4:1"}, format="json").status_code == 403
    assert client.get("/api/v1/differences").status_code == 403


def test_a_difference_is_open_once(account):
    now = f.utc_now()
    row = {"account": account, "key": "holding:AAPL", "kind": "split", "seen_at": now, "last_seen_at": now}
    first = Difference.objects.create(**row)
    with pytest.raises(DatabaseError, match="difference_is_open_once"), transaction.atomic():
        Difference.objects.create(**row)
    Difference.objects.filter(pk=first.pk).update(resolved_at=now)
    assert Difference.objects.create(**row).pk != first.pk
