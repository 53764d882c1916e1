"""API tokens from the command line: made and printed once, listed, revoked."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from knox.models import AuthToken

from exitmgr.tokens import create_token, revoke_token

_ACTOR = "command line"
_LONGEST_DAYS = 3650


class Command(BaseCommand):
    """Make, list and revoke API tokens."""

    help = "Make, list and revoke API tokens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare one sub-command a verb."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|revoke")
        create = verbs.add_parser("create", help="make a token and print it, once")
        create.add_argument("user")
        create.add_argument("--days", type=int, default=30, help="how long it is valid (default: 30)")
        listing = verbs.add_parser("list", help="show whose tokens exist and until when")
        listing.add_argument("user", nargs="?")
        revoke = verbs.add_parser("revoke", help="end a token")
        revoke.add_argument("key", help="its beginning, as the list shows it")

    def handle(self, *_args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says."""
        now = datetime.now(UTC)
        if verb == "create":
            self.stdout.write(_create(options["user"], days=options["days"], now=now))
        elif verb == "list":
            for token in _tokens(options["user"]):
                state = "valid until" if token.expiry > now else "ended"
                self.stdout.write(
                    f"{token.token_key}  {token.user.username}  {state} {token.expiry:%Y-%m-%d %H:%M} UTC"
                )
        else:
            self.stdout.write(f"revoked the token of {_revoke(options['key'], now=now)}")


def _create(username: str, *, days: int, now: datetime) -> str:
    if not 1 <= days <= _LONGEST_DAYS:
        raise CommandError(f"--days must be from 1 to {_LONGEST_DAYS}; got {days}", returncode=2)
    return create_token(_user(username), valid_for=timedelta(days=days), now=now, actor=_ACTOR)


def _revoke(key: str, *, now: datetime) -> str:
    found = list(AuthToken.objects.select_related("user").filter(token_key=key))
    if not found:
        raise CommandError(f"there is no token {key!r}; `token list` shows what there is", returncode=2)
    for row in found:
        revoke_token(row, now=now, actor=_ACTOR)
    return str(found[0].user.username)


def _tokens(username: str | None) -> list[Any]:
    rows = AuthToken.objects.select_related("user").order_by("created")
    return list(rows.filter(user=_user(username)) if username else rows)


def _user(username: str) -> Any:
    found = get_user_model().objects.filter(username=username).first()
    if found is None:
        raise CommandError(f"there is no user {username!r}; add one in the admin site first", returncode=2)
    if not found.is_active:
        raise CommandError(f"user {username!r} is not active", returncode=2)
    return found
