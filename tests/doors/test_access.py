"""Who gets in: tokens, sessions, roles; and the one shape of every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from knox.models import AuthToken
from rest_framework.test import APIClient

from alerts.models import Event
from exitmgr.roles import ROLES
from orders.models import Order
from positions.models import Instrument, Position
from tests.doors.conftest import PASSWORD, client_of

Hold = Callable[..., Position]
Person = Callable[..., User]

ENTRY = {"account": "paper", "symbol": "AAPL", "side": "long", "quantity": "10"}
HOLDING = {**ENTRY, "entry_price": "100"}
QUOTES = {"quotes": [{"symbol": "AAPL", "last": "100"}]}


def refused(response: Any, status: int) -> dict[str, Any]:
    """Assert that a response is a problem of this status and return it."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "detail", "errors"}
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("_case", "headers"),
    [
        ("no token", {}),
        ("an empty one", {"Authorization": "Token"}),
        ("one that never was", {"Authorization": "Token exm_" + "0" * 64}),
        ("two", {"Authorization": "Token a b"}),
        ("bytes that are no text", {"Authorization": "Token \xff\xfe"}),
        ("very long", {"Authorization": "Token " + "a" * 5_000}),
        ("another scheme", {"Authorization": "Bearer abc"}),
    ],
)
def test_without_a_valid_token_nothing_is_shown(_case: str, headers: dict[str, str], db: None) -> None:
    response = APIClient(raise_request_exception=False).get("/api/v1/positions", headers=headers)
    refused(response, 401)
    assert response.headers["WWW-Authenticate"] == "Token"


def test_a_token_ends_when_its_time_has_come(person: Person) -> None:
    row, token = AuthToken.objects.create(person("viewer"))
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/v1/positions").status_code == 200
    AuthToken.objects.filter(pk=row.pk).update(expiry=datetime.now(UTC) - timedelta(seconds=1))
    refused(client.get("/api/v1/positions"), 401)


def test_a_token_ends_with_its_user(person: Person) -> None:
    user = person("viewer")
    client = client_of(user)
    user.is_active = False
    user.save()
    refused(client.get("/api/v1/positions"), 401)


def test_only_the_digest_of_a_token_is_stored(person: Person) -> None:
    row, token = AuthToken.objects.create(person("viewer"))
    assert token.startswith("exm_")
    assert token not in (row.digest, row.token_key)
    assert len(row.digest) == 128


def test_a_session_reads_but_needs_its_csrf_token_to_write(person: Person, hold: Hold) -> None:
    position = hold()
    person("trader")
    client = APIClient(enforce_csrf_checks=True)
    assert client.login(username="trader", password=PASSWORD)
    assert client.get("/api/v1/positions").status_code == 200
    problem = refused(client.post(f"/api/v1/positions/{position.pk}/exit", {}, format="json"), 403)
    assert "CSRF" in problem["detail"]
    assert not Order.objects.exists()


READS = ("positions", "orders", "brackets", "instruments", "accounts", "quotes", "alerts", "events")
WRITES = {
    "positions": HOLDING,
    "positions/{position}/exit": {},
    "positions/{position}/emergency-exit": {},
    "orders": ENTRY,
    "orders/{order}/cancel": {},
    "orders/{order}/retry": {},
    "quotes": QUOTES,
    "instruments": {"symbol": "NEW"},
}


@pytest.mark.parametrize(
    ("role", "may_write"),
    [
        ("viewer", set()),
        ("trader", set(WRITES) - {"quotes", "instruments"}),
        ("feed", {"quotes"}),
        ("admin", set(WRITES)),
    ],
)
def test_each_role_may_do_what_is_its_own(role: str, may_write: set[str], person: Person, hold: Hold) -> None:
    position = hold()
    client = client_of(person(role))
    for path in READS:
        assert client.get(f"/api/v1/{path}").status_code == 200
    for path, body in WRITES.items():
        order = Order.objects.order_by("pk").first()
        url = f"/api/v1/{path.format(position=position.pk, order=order.pk if order else 1)}"
        before = (Order.objects.count(), Position.objects.count(), Instrument.objects.count(), Event.objects.count())
        response = client.post(url, body, format="json")
        if path in may_write:
            assert response.status_code != 403, (path, response.content)
        else:
            refused(response, 403)
            after = (Order.objects.count(), Position.objects.count(), Instrument.objects.count(), Event.objects.count())
            assert after == before


def test_somebody_without_a_role_sees_nothing(person: Person, hold: Hold) -> None:
    hold()
    client = client_of(person())
    for path in READS:
        refused(client.get(f"/api/v1/{path}"), 403)


def test_a_superuser_needs_no_role(hold: Hold) -> None:
    position = hold()
    client = client_of(User.objects.create_superuser("root", password=PASSWORD))
    assert client.post(f"/api/v1/positions/{position.pk}/exit", {}, format="json").status_code == 201


def test_the_roles_name_only_permissions_that_exist(person: Person) -> None:
    for role in ROLES:
        user = person(role)
        assert all(user.has_perm(permission) for permission in ROLES[role])
        assert user.has_perm("alerts.view_event")
        assert not user.has_perm("auth.change_user")


@pytest.mark.parametrize(
    ("_case", "method", "path", "status"),
    [
        ("an address nobody knows", "get", "/api/v1/nothing", 404),
        ("another version", "get", "/api/v2/positions", 404),
        ("the root", "get", "/api", 404),
        ("a slash too many", "get", "/api/v1/positions/", 404),
        ("an id that is none", "get", "/api/v1/positions/abc", 404),
        ("an id beyond every id", "get", "/api/v1/positions/99999999999999999999999", 404),
        ("a position that is not there", "get", "/api/v1/positions/999999", 404),
        ("an order that is not there", "get", "/api/v1/orders/999999", 404),
        ("the events of nothing", "get", "/api/v1/positions/999999/events", 404),
        ("leaving nothing", "post", "/api/v1/positions/999999/exit", 404),
        ("cancelling nothing", "post", "/api/v1/orders/999999/cancel", 404),
        ("retrying nothing", "post", "/api/v1/orders/999999/retry", 404),
        ("deleting", "delete", "/api/v1/positions", 405),
        ("writing the journal", "post", "/api/v1/events", 405),
        ("a wrong cursor", "get", "/api/v1/positions?cursor=A", 404),
        ("a cursor with a wrong place", "get", "/api/v1/positions?cursor=cD1ub3RoaW5n", 404),
        ("an unknown parameter", "get", "/api/v1/positions?sybmol=AAPL", 400),
        ("an unknown order", "get", "/api/v1/positions?ordering=closed_at", 400),
        ("an order where none is offered", "get", "/api/v1/alerts?ordering=title", 400),
        ("a page too large", "get", "/api/v1/positions?limit=501", 400),
        ("an unknown status", "get", "/api/v1/positions?status=lost", 400),
        ("an unknown side", "get", "/api/v1/positions?side=up", 400),
        ("a position that is no number", "get", "/api/v1/orders?position=x", 400),
        ("bars of nothing", "get", "/api/v1/bars", 400),
        ("events after nothing", "get", "/api/v1/events?after=x", 400),
        ("events before the first", "get", "/api/v1/events?after=-1", 400),
        ("events beyond every id", "get", "/api/v1/events?after=99999999999999999999", 400),
        ("an unknown parameter of events", "get", "/api/v1/events?since=1", 400),
        ("NUL in a parameter", "get", "/api/v1/positions?symbol=%00", 400),
    ],
)
def test_what_is_not_there_is_a_problem_of_the_one_shape(
    _case: str, method: str, path: str, status: int, admin: APIClient
) -> None:
    refused(getattr(admin, method)(path), status)


def test_what_is_not_json_is_not_read(admin: APIClient, hold: Hold) -> None:
    position = hold()
    response = admin.post(f"/api/v1/positions/{position.pk}/exit", "percentage=1", content_type="text/plain")
    refused(response, 415)
    assert not Order.objects.exists()


def test_a_defect_says_nothing_of_itself(
    admin: APIClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("exitmgr.api.listed_positions", broken)
    problem = refused(admin.get("/api/v1/positions"), 500)
    assert "hunter2" not in str(problem)
    assert "Traceback" not in str(problem)
    assert "hunter2" in caplog.text


def test_a_database_that_is_away_is_worth_another_try(admin: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("connection to server at 10.0.0.1 failed")

    monkeypatch.setattr("exitmgr.api.listed_positions", away)
    response = admin.get("/api/v1/positions")
    assert "10.0.0.1" not in str(refused(response, 503))
    assert response.headers["Retry-After"] == "1"


def test_nothing_but_the_description_is_open(db: None) -> None:
    from config.api import urlpatterns

    client = APIClient(raise_request_exception=False)
    routes = [str(route.pattern) for group in urlpatterns for route in getattr(group, "url_patterns", [group])]
    closed = [re.sub(r"\(\?P<[^)]*\)", "1", route).strip("^$").replace("\\Z", "") for route in routes]
    answers = {path: client.get(f"/api/v1/{path}").status_code for path in closed}
    assert len(answers) >= 20
    assert {path for path, status in answers.items() if status not in (401, 405)} == {"", "schema", "docs"}
