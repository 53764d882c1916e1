"""Loss limits at the doors: set by an admin, refused when they make no sense, shown with what they are measured from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from alerts.models import Event
from positions.models import Account, LossWatch

Person = Callable[..., User]
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def page_of(account: Account) -> str:
    return f"/admin/positions/account/{account.pk}/change/"


def given(**fields: str) -> dict[str, str]:
    return {"base_url": "http://127.0.0.1:9", "trading_state": "active", "loss_action": "reduce_only", **fields}


@pytest.fixture
def desk(person: Person) -> Client:
    client = Client()
    client.force_login(person("admin", is_staff=True))
    return client


def hit(account: Account) -> LossWatch:
    return LossWatch.objects.create(
        account=account, since=AT, pnl=Decimal("-100.5"), noted_at=AT, day=AT.date(), day_start_pnl=Decimal(0),
        hit_at=AT, reason="daily_loss", action="flatten", state_before="active",
    )  # fmt: skip


def test_an_admin_sets_the_limits_and_the_journal_tells_it(desk: Client, account: Account) -> None:
    form = given(max_daily_loss="100", max_drawdown="250.5", loss_action="flatten")
    assert desk.post(page_of(account), form).status_code == 302
    account.refresh_from_db()
    assert (account.max_daily_loss, account.max_drawdown, account.loss_action) == (100, Decimal("250.5"), "flatten")
    told = Event.objects.get(kind="account_changed").data
    assert told == {
        "before": {"max_daily_loss": None, "max_drawdown": None, "loss_action": "reduce_only"},
        "after": {"max_daily_loss": "100", "max_drawdown": "250.5", "loss_action": "flatten"},
    }


@pytest.mark.parametrize(
    ("_case", "field", "value", "told"),
    [
        ("nothing", "max_daily_loss", "0", "amount of money above 0"),
        ("negative", "max_drawdown", "-5", "amount of money above 0"),
        ("no number", "max_drawdown", "much", "Enter a number"),
        ("an action nobody knows", "loss_action", "panic", "not one of the available choices"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    desk: Client, account: Account, _case: str, field: str, value: str, told: str
) -> None:
    page = desk.post(page_of(account), given(**{field: value}))
    assert page.status_code == 200
    assert told in page.content.decode()
    account.refresh_from_db()
    assert (account.max_daily_loss, account.max_drawdown, account.loss_action) == (None, None, "reduce_only")
    assert not Event.objects.exists()


def test_the_pages_show_what_was_hit(desk: Client, account: Account) -> None:
    assert "not watched" in desk.get(page_of(account)).content.decode()
    hit(account)
    page = desk.get(page_of(account)).content.decode()
    assert "P&amp;L -100.5 at 2026-03-02 12:00:00 UTC" in page
    assert "daily_loss limit hit at 2026-03-02 12:00:00 UTC, not reset yet" in page
    listed = desk.get("/admin/positions/account/").content.decode()
    assert "daily_loss" in listed


def test_the_api_shows_limits_and_what_they_are_measured_from(admin: APIClient, account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(max_daily_loss=Decimal(100))
    before = admin.get(f"/api/v1/accounts/{account.pk}").json()
    assert (before["max_daily_loss"], before["max_drawdown"], before["loss_action"]) == ("100", None, "reduce_only")
    assert before["loss_watch"] is None
    hit(account)
    (listed,) = admin.get("/api/v1/accounts").json()["results"]
    assert listed["loss_watch"] == {
        "since": "2026-03-02T12:00:00Z",
        "pnl": "-100.5",
        "noted_at": "2026-03-02T12:00:00Z",
        "day": "2026-03-02",
        "day_start_pnl": "0",
        "best_pnl": None,
        "hit_at": "2026-03-02T12:00:00Z",
        "reason": "daily_loss",
        "action": "flatten",
    }
