"""The replay as a command of Django; `manage.py replay` itself gets there without it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError

from exitmgr.replay.command import add_arguments, run
from exitmgr.replay.errors import InvalidInput


class Command(BaseCommand):
    """Run exit plans over historical bars."""

    help = "Run exit plans over historical bars, with the rules that decide live."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        add_arguments(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Replay, and turn refusals into what Django prints in one line."""
        try:
            run(Namespace(**options), stdout=cast(Any, self.stdout)._out, stderr=cast(Any, self.stderr)._out)
        except InvalidInput as error:
            raise CommandError(str(error), returncode=2) from None
