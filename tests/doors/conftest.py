"""An account, two instruments with prices, and people with tokens of every role."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from knox.models import AuthToken
from rest_framework.test import APIClient

from exitmgr.entries import register_position
from exitmgr.roles import write_roles
from positions.feeds.protocol import Tick
from positions.models import Account, Instrument, Position
from positions.quotes import write_quotes
from positions.values import Side

NOW = datetime.now(UTC).replace(microsecond=0)
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    """Do without collected static files and without slow password digests."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.WHITENOISE_AUTOREFRESH = True
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def account(db: None) -> Account:
    return Account.objects.create(
        name="paper",
        broker="paper",
        base_url="http://127.0.0.1:9",
        credentials={"key": "PLANTED-KEY", "secret": "PLANTED-SECRET"},
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.fixture
def instrument(db: None) -> Instrument:
    """AAPL, last seen at 99.90 / 100.10."""
    made = Instrument.objects.create(symbol="AAPL")
    push("AAPL", bid="99.90", ask="100.10")
    return made


def push(symbol: str, *, bid: str, ask: str) -> None:
    now = datetime.now(UTC)
    tick = Tick(symbol, Decimal(bid), Decimal(ask), None, now)
    outcome = write_quotes(ticks=[tick], source="test", now=now, ring=lambda: None)
    assert outcome.accepted_symbols == {symbol}


@pytest.fixture
def hold(account: Account, instrument: Instrument) -> Callable[..., Position]:
    """Return a function that registers a holding of AAPL."""

    def register(quantity: str = "100", side: Side = Side.LONG, **how: Any) -> Position:
        position, _ = register_position(
            **{
                "account": account,
                "symbol": instrument.symbol,
                "side": side,
                "quantity": Decimal(quantity),
                "entry_price": Decimal(100),
                "opened_at": NOW - timedelta(hours=1),
                "now": NOW,
                "actor": "test",
                **how,
            }
        )
        return position

    return register


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Return a function that makes a user of a role; without one, a user who may do nothing."""

    def make(role: str | None = None, **attributes: Any) -> User:
        write_roles()
        user = User.objects.create_user(role or "nobody", password=PASSWORD, **attributes)
        if role:
            user.groups.add(Group.objects.get(name=role))
        return user

    return make


def client_of(user: User) -> APIClient:
    _, token = AuthToken.objects.create(user)
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


@pytest.fixture
def trader(person: Callable[..., User]) -> APIClient:
    return client_of(person("trader"))


@pytest.fixture
def viewer(person: Callable[..., User]) -> APIClient:
    return client_of(person("viewer"))


@pytest.fixture
def admin(person: Callable[..., User]) -> APIClient:
    return client_of(person("admin"))
