"""Tokens from the command line: shown once, valid for as long as asked, revocable; mistakes end with code 2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from knox.models import AuthToken
from rest_framework.test import APIClient

from alerts.models import Event

Person = Callable[..., User]


def run(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("token", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_a_token_works_until_it_is_revoked(person: Person) -> None:
    user = person("viewer")
    (token,) = run("create", "viewer", "--days", "7")
    row = AuthToken.objects.get()
    assert abs(row.expiry - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/v1/positions").status_code == 200
    (listed,) = run("list", "viewer")
    assert listed == f"{row.token_key}  viewer  valid until {row.expiry:%Y-%m-%d %H:%M} UTC"
    assert token not in listed
    assert run("revoke", row.token_key) == ["revoked the token of viewer"]
    assert client.get("/api/v1/positions").status_code == 401
    assert run("list") == []
    told = list(Event.objects.order_by("pk").values_list("kind", "actor", "data"))
    assert told == [
        ("token_created", "command line", {"user": user.username, "token": row.token_key}),
        ("token_revoked", "command line", {"user": user.username, "token": row.token_key}),
    ]


@pytest.mark.parametrize(
    ("_case", "arguments", "message"),
    [
        ("nobody of that name", ["create", "ghost"], "there is no user 'ghost'; add one in the admin site first"),
        ("somebody who left", ["create", "viewer"], "user 'viewer' is not active"),
        ("no time at all", ["create", "viewer", "--days", "0"], "--days must be from 1 to 3650; got 0"),
        ("a token that is none", ["revoke", "exm_x"], "there is no token 'exm_x'; `token list` shows what there is"),
        ("a list of nobody", ["list", "ghost"], "there is no user 'ghost'; add one in the admin site first"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(_case: str, arguments: list[str], message: str, person: Person) -> None:
    person("viewer", is_active=False)
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert (str(caught.value), caught.value.returncode) == (message, 2)
    assert not AuthToken.objects.exists()
    assert not Event.objects.exists()
