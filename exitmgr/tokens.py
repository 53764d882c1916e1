"""API tokens: made and shown once, revoked at will, both told in the journal. Only their digests are kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from knox.models import AuthToken

from alerts.events import Happening, write_events


def create_token(user: User, *, valid_for: timedelta, now: datetime, actor: str) -> str:
    """Make a token and return it; nobody can read it again."""
    with transaction.atomic():
        row, token = AuthToken.objects.create(user, expiry=valid_for)
        _tell("token_created", row, now=now, actor=actor)
    return str(token)


def revoke_token(row: AuthToken, *, now: datetime, actor: str) -> None:
    """End a token."""
    with transaction.atomic():
        _tell("token_revoked", row, now=now, actor=actor)
        row.delete()


def _tell(kind: str, row: AuthToken, *, now: datetime, actor: str) -> None:
    data = {"user": row.user.username, "token": row.token_key}
    write_events([Happening(kind=kind, actor=actor, data=data)], now=now)
