"""Fixtures every test may use. The database and Redis are real; script/test starts them."""

from __future__ import annotations

import os

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Let several suites run side by side: each names its own test database."""
    from django.conf import settings

    if name := os.environ.get("EXITMGR_TEST_DB"):
        settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = name


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let the test runner empty the journal between tests; the guard is tested with its trigger switched on."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE '%event_is_never_emptied%'")
        (name,) = cursor.fetchone()
        cursor.execute(f'ALTER TABLE alerts_event DISABLE TRIGGER "{name}"')
