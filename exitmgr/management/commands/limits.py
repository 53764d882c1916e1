"""Loss limits from the command line: where each account stands, and ending a breach once a person has understood it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from exitmgr.loss_watches import watch_of
from exitmgr.safety import ResetRefused, reset_limits
from positions.models import Account
from positions.wire import spell

_ACTOR = "command line"


class Command(BaseCommand):
    """Show and reset the loss limits of accounts."""

    help = "Show the loss limits of accounts, and reset one that was hit."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare one sub-command a verb."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|reset")
        show = verbs.add_parser("show", help="show limits, what they are measured from, and whether one was hit")
        show.add_argument("account", nargs="?")
        reset = verbs.add_parser("reset", help="end a breach and measure losses anew from now")
        reset.add_argument("account")
        reset.add_argument("--note", required=True, help="why; kept in the journal")

    def handle(self, *_args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says."""
        if verb == "show":
            for line in _shown(options["account"]):
                self.stdout.write(line)
        else:
            self.stdout.write(_reset(options["account"], note=options["note"], now=datetime.now(UTC)))


def _shown(name: str | None) -> Iterator[str]:
    accounts = Account.objects.select_related("loss_watch").defer("credentials").order_by("name")
    for account in [_account(name)] if name else accounts:
        yield (
            f"{account.name}: {account.trading_state}, daily loss limit {_money(account.max_daily_loss)}, "
            f"drawdown limit {_money(account.max_drawdown)}, then {account.loss_action}"
        )
        watch = watch_of(account)
        if watch is None or watch.noted_at is None:
            continue
        yield (
            f"  P&L {_money(watch.pnl)} at {watch.noted_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"{_money(watch.day_start_pnl)} when {watch.day} began, best {_money(watch.best_pnl)}"
        )
        if watch.hit_at is not None:
            yield f"  HIT {watch.reason} at {watch.hit_at:%Y-%m-%d %H:%M:%S} UTC, action {watch.action}; not reset yet"


def _money(amount: Decimal | None) -> str:
    return "none" if amount is None else spell(amount)


def _reset(name: str, *, note: str, now: datetime) -> str:
    account = _account(name)
    try:
        watch = reset_limits(account_id=account.pk, now=now, actor=_ACTOR, note=note)
    except ResetRefused as error:
        raise CommandError(str(error), returncode=2) from None
    account.refresh_from_db(fields=["trading_state"])
    return f"{account.name} is {account.trading_state}; losses are measured from a P&L of {_money(watch.pnl)} on"


def _account(name: str) -> Account:
    found = Account.objects.select_related("loss_watch").defer("credentials").filter(name=name).first()
    if found is None:
        known = ", ".join(Account.objects.order_by("name").values_list("name", flat=True)[:8])
        raise CommandError(f"there is no account {name!r}; known are {known or 'none yet'}", returncode=2)
    return found
