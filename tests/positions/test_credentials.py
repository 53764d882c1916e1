"""Secrets at rest: unreadable without the key, bound to their place, and never printed."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core import serializers
from django.db import connection

from positions.credentials import UnreadableCredentials, decrypt, encrypt
from positions.models import Account

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SECRET = {"key": "PKTEST", "secret": "correct horse battery staple"}


def new_key() -> str:
    """Return a fresh encryption key as the settings hold it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def make_account(name: str = "a", **fields: Any) -> Account:
    """Return a stored account."""
    return Account.objects.create(name=name, broker="paper", created_at=NOW, updated_at=NOW, **fields)


def stored_bytes(account: Account) -> bytes:
    """Return what really is in the column."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT credentials FROM positions_account WHERE id = %s", [account.pk])
        return bytes(cursor.fetchone()[0])


def test_what_is_stored_opens_again_and_shows_nothing(db: None) -> None:
    account = make_account(credentials=SECRET)

    assert Account.objects.get().credentials == SECRET
    for text in ("PKTEST", "horse", "secret"):
        assert text.encode() not in stored_bytes(account)


def test_the_same_secret_never_looks_the_same() -> None:
    assert encrypt(SECRET, bound_to="here") != encrypt(SECRET, bound_to="here")


def test_no_credentials_stay_none(db: None) -> None:
    make_account()

    assert Account.objects.get().credentials is None


@pytest.mark.parametrize(
    ("_case", "spoil"),
    [
        ("a changed bit", lambda stored: stored[:-1] + bytes([stored[-1] ^ 1])),
        ("a changed nonce", lambda stored: bytes([stored[0] ^ 1]) + stored[1:]),
        ("cut short", lambda stored: stored[:-1]),
        ("nothing but a nonce", lambda stored: stored[:12]),
    ],
)
def test_a_damaged_secret_is_refused(_case: str, spoil: Any) -> None:
    with pytest.raises(UnreadableCredentials):
        decrypt(spoil(encrypt(SECRET, bound_to="here")), bound_to="here")


def test_a_secret_moved_to_another_place_is_refused(db: None) -> None:
    sealed = encrypt(SECRET, bound_to="positions_other:credentials")
    account = make_account()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE positions_account SET credentials = %s WHERE id = %s", [sealed, account.pk])

    with pytest.raises(UnreadableCredentials):
        Account.objects.get()


def test_keys_rotate(db: None, settings: Any) -> None:
    old, new = new_key(), new_key()
    settings.EXITMGR_KEYS = (old,)
    account = make_account(credentials=SECRET)

    settings.EXITMGR_KEYS = (new, old)
    account = Account.objects.get(pk=account.pk)
    assert account.credentials == SECRET
    account.save()  # sealed anew, under the newest key

    settings.EXITMGR_KEYS = (new,)
    assert Account.objects.get().credentials == SECRET
    settings.EXITMGR_KEYS = (old,)
    with pytest.raises(UnreadableCredentials, match="EXITMGR_KEYS"):
        Account.objects.get()


def test_a_secret_is_never_printed_or_dumped(db: None) -> None:
    account = make_account(credentials=SECRET)

    assert "horse" not in f"{account} {account!r}"
    with pytest.raises(TypeError, match="not serialised"):
        serializers.serialize("json", [account])
    with pytest.raises(UnreadableCredentials) as refused:
        decrypt(encrypt(SECRET, bound_to="here"), bound_to="there")
    assert "horse" not in f"{refused.value!r} {refused.value.__context__!r}"
