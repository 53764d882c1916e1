"""What a fresh installation needs before its programs start. Safe to run at each start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from exitmgr.roles import write_roles
from positions.models import Account, Instrument
from positions.sessions import ENOUGH, calendars_in_use, calendars_short_of
from positions.values import AssetClass

#: Symbols the bundled market data knows.
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")


class Command(BaseCommand):
    """Create the administrator, the paper account and its instruments where they are missing."""

    help = "Create the administrator, the paper account and its instruments where they are missing."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Create what is missing; the simulator's address is given by the stack that runs it."""
        now = datetime.now(UTC)
        write_roles()
        self._administrator()
        self._paper_account(now)
        for symbol in SYMBOLS:
            Instrument.objects.get_or_create(symbol=symbol, defaults={"asset_class": AssetClass.EQUITY})
        self._sessions(now)

    def _sessions(self, now: datetime) -> None:
        """Fill the table of trading sessions where it runs short; a calendar that cannot be filled stops nothing."""
        wanting = calendars_short_of(now + ENOUGH, calendars=calendars_in_use())
        if wanting:
            try:
                call_command("sessions", *wanting, stdout=self.stdout)
            except CommandError as error:
                self.stderr.write(str(error))

    def _administrator(self) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", "admin@example.com", settings.ADMIN_PASSWORD)
            self.stdout.write("created the administrator: admin")

    def _paper_account(self, now: datetime) -> None:
        url, credentials = settings.SIMULATOR_URL, settings.SIMULATOR_CREDENTIALS
        if not url:
            return
        account, created = Account.objects.get_or_create(
            name="paper",
            defaults={
                "broker": "paper",
                "base_url": url,
                "credentials": credentials,
                "created_at": now,
                "updated_at": now,
            },
        )
        if created:
            self.stdout.write(f"created the paper account at {url}")
        elif account.base_url != url or account.credentials != credentials:
            account.base_url, account.credentials, account.updated_at = url, credentials, now
            account.save()
            self.stdout.write(f"the paper account now points to {url}")
