"""Fills the table of trading sessions; the one place of the running system that loads pandas."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from positions.calendars import UnknownCalendar
from positions.sessions import AHEAD, BEHIND, calendars_in_use, fill_sessions
from positions.trading_days import CalendarUnavailable


class Command(BaseCommand):
    """Write the sessions of exchange calendars, those of the instruments unless some are named."""

    help = "Write the sessions of exchange calendars, those of the instruments unless some are named."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the calendars and how far to look."""
        parser.add_argument("calendars", nargs="*", metavar="calendar", help="such as XNYS; those in use when left out")
        parser.add_argument(
            "--ahead-days", type=int, default=AHEAD.days, help=f"how far ahead, {AHEAD.days} by default"
        )
        parser.add_argument(
            "--past-days", type=int, default=BEHIND.days, help=f"how far back, {BEHIND.days} by default"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Fill each calendar; one that cannot be filled does not stop the others, but fails the command."""
        ahead, behind = timedelta(days=options["ahead_days"]), timedelta(days=options["past_days"])
        if ahead.days < 1 or behind.days < 0:
            raise CommandError("--ahead-days must be 1 or more and --past-days 0 or more", returncode=2)
        failed, code = [], 1
        for name in options["calendars"] or sorted(calendars_in_use()):
            try:
                until = fill_sessions(name, now=datetime.now(UTC), ahead=ahead, behind=behind)
            except CalendarUnavailable as error:
                failed.append(str(error))
            except UnknownCalendar as error:
                failed.append(str(error))
                code = 2
            else:
                self.stdout.write(f"{name}: sessions are known until {until:%Y-%m-%d %H:%M} UTC")
        if failed:
            raise CommandError("; ".join(failed), returncode=code)
