"""Alerts: one unresolved per key, repeats counted, severities known, and a new one after the old is resolved."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from alerts.models import Alert, Severity
from alerts.notices import raise_alert, resolve_alerts

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def alarm(*, at=NOW, **fields):
    """Raise one alert."""
    wanted = {
        "kind": "exit_failed",
        "severity": Severity.CRITICAL,
        "title": "Position 7 could not be left",
        "message": "Close it at the broker.",
        "dedupe_key": "exit_failed:7",
        "now": at,
    }
    return raise_alert(**wanted | fields)


def test_a_repeat_is_counted_on_the_unresolved_alert():
    later = NOW + timedelta(seconds=9)
    first = alarm(data={"price": Decimal("1.10")})
    assert alarm(at=later, message="Still.", severity=Severity.WARNING) == first
    alert = Alert.objects.get()
    assert (alert.count, alert.raised_at, alert.last_seen_at) == (2, NOW, later)
    assert (alert.message, alert.severity, alert.deliveries) == ("Still.", "warning", [])


def test_only_the_first_of_its_kind_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            alarm()
    assert [record.levelname for record in caplog.records if "alert_raised" in record.message] == ["CRITICAL"]


def test_after_it_was_resolved_the_same_key_is_a_new_alert():
    first = alarm()
    assert resolve_alerts(dedupe_key="exit_failed:7", now=NOW) == 1
    assert resolve_alerts(dedupe_key="exit_failed:7", now=NOW) == 0
    assert alarm() != first
    assert list(Alert.objects.order_by("pk").values_list("count", "resolved_at")) == [(1, NOW), (1, None)]


def test_other_keys_are_other_alerts():
    assert alarm() != alarm(dedupe_key="exit_failed:8")
    resolve_alerts(dedupe_key="exit_failed:7", now=NOW)
    assert Alert.objects.get(resolved_at=None).dedupe_key == "exit_failed:8"


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("alert_severity_is_known", {"severity": "loud"}),
        ("alert_is_open_once_per_key", {"dedupe_key": "exit_failed:7"}),
    ],
)
def test_the_database_refuses(constraint, fields):
    alarm()
    wanted = {
        "kind": "k", "severity": "info", "title": "t", "message": "m", "dedupe_key": "d", "raised_at": NOW,
        "last_seen_at": NOW,
    }  # fmt: skip
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Alert.objects.create(**wanted | fields)
    assert Alert.objects.count() == 1
