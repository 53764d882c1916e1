"""The calendar of an instrument: one that does not exist is refused at every door, and a new one is filled."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from rest_framework.test import APIClient

from alerts.models import Event
from positions.models import Instrument, Session

Person = Callable[..., User]
FIELDS = {
    "tick": "0.01", "lot": "1", "min_notional": "0", "dust": "0.001", "collar_pct": "20", "max_age_seconds": "60",
    "asset_class": "equity", "shortable": "on", "tradable": "on",
}  # fmt: skip


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tasks that are sent from here on, none of which leaves."""
    sent: list[str] = []
    monkeypatch.setattr(current_app._get_current_object(), "send_task", lambda name, **_: sent.append(name))
    return sent


@pytest.mark.parametrize(
    ("_case", "calendar", "says"),
    [
        ("an alias", "NASDAQ", "there is no exchange calendar 'NASDAQ'; did you mean XNYS?"),
        ("a slip", "XNYC", "there is no exchange calendar 'XNYC'; did you mean XNYS"),
    ],
)
def test_the_api_refuses_an_unknown_calendar(
    _case: str, calendar: str, says: str, admin: APIClient, instrument: Instrument, rung: list[str]
) -> None:
    before = Event.objects.count()
    url = "/api/v1/instruments"
    made = admin.post(url, {"symbol": "IBM", "calendar": calendar}, format="json")
    changed = admin.patch(f"{url}/{instrument.pk}", {"calendar": calendar}, format="json")
    for answer in (made, changed):
        assert answer.status_code == 400, answer.content
        (error,) = answer.json()["errors"]
        assert error["field"] == "calendar"
        assert error["message"].startswith(says)
    instrument.refresh_from_db()
    assert (instrument.calendar, Instrument.objects.count(), Event.objects.count()) == ("XNYS", 1, before)


def test_the_admin_site_refuses_an_unknown_calendar(person: Person, rung: list[str]) -> None:
    client = Client()
    client.force_login(person("admin", is_staff=True))
    page = client.post("/admin/positions/instrument/add/", {**FIELDS, "symbol": "IBM", "calendar": "NYSE"})
    assert page.status_code == 200
    assert "did you mean XNYS?" in page.content.decode()
    assert not Instrument.objects.exists()
    added = client.post("/admin/positions/instrument/add/", {**FIELDS, "symbol": "IBM", "calendar": "XNYS"})
    assert added.status_code == 302


@pytest.mark.django_db(transaction=True)
def test_a_new_calendar_is_filled_without_waiting_for_the_schedule(
    admin: APIClient, instrument: Instrument, rung: list[str]
) -> None:
    url = f"/api/v1/instruments/{instrument.pk}"
    assert admin.patch(url, {"tradable": False}, format="json").status_code == 200
    assert rung == []
    assert admin.patch(url, {"calendar": "XLON"}, format="json").status_code == 200
    assert rung == ["exitmgr.keep_sessions"]
    made = admin.post("/api/v1/instruments", {"symbol": "SAP", "calendar": "XETR"}, format="json")
    assert made.status_code == 201
    assert rung == ["exitmgr.keep_sessions"] * 2


def test_a_fresh_installation_knows_its_sessions(db: None, settings: Any) -> None:
    settings.ADMIN_PASSWORD, settings.SIMULATOR_URL = "planted", ""
    Instrument.objects.create(symbol="SHUT", calendar="XBEL")
    said, wrong = io.StringIO(), io.StringIO()

    call_command("bootstrap", stdout=said, stderr=wrong)

    assert Session.objects.filter(calendar="XNYS", closes_at__gt=datetime.now(UTC) + timedelta(days=390)).exists()
    assert "there is no exchange calendar 'XBEL'" in wrong.getvalue()
    Instrument.objects.filter(symbol="SHUT").delete()
    again = io.StringIO()
    call_command("bootstrap", stdout=again, stderr=wrong)
    assert "XNYS" not in again.getvalue()
