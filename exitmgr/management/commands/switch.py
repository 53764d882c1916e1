"""The kill switch from the command line: what may be done, and saying so, for one account or for all."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from exitmgr.account_models import Flatten
from exitmgr.flatten import request_flatten
from exitmgr.switches import SwitchRefused, shown_switch, switch_account, switch_all
from positions.models import Account
from positions.values import TradingState

_ACTOR = "command line"


class Command(BaseCommand):
    """Show and set the kill switch, and leave everything."""

    help = "Show or set what accounts may do: active, reduce_only (no entries), halted (nothing by itself); or flatten."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare one sub-command a verb."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|active|reduce_only|halted|flatten")
        verbs.add_parser("show", help="show the switch over all accounts and each account's own")
        for state, text in (
            (TradingState.ACTIVE, "everything is allowed again"),
            (TradingState.REDUCE_ONLY, "no entries; exits go on"),
            (TradingState.HALTED, "nothing is sent but emergency exits a person asks for"),
        ):
            _add_target(verbs.add_parser(str(state), help=text))
        flatten = verbs.add_parser("flatten", help="leave everything at once and take no entries")
        _add_target(flatten)
        flatten.add_argument("--confirm", required=True, help="the account's name again; without --account: everything")

    def handle(self, *_args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says."""
        now = datetime.now(UTC)
        if verb != "show":
            try:
                _set(verb, account=options["account"], note=options["note"], confirm=options.get("confirm"), now=now)
            except SwitchRefused as error:
                raise CommandError(str(error), returncode=2) from None
        for line in _shown():
            self.stdout.write(line)


def _add_target(parser: ArgumentParser) -> None:
    parser.add_argument("--account", metavar="NAME", help="this account alone; all of them when left out")
    parser.add_argument("--note", required=True, help="why; kept in the journal")


def _set(verb: str, *, account: str | None, note: str, confirm: str | None, now: datetime) -> None:
    account_id = _account_id(account) if account else None
    if verb == "flatten":
        request_flatten(account_id=account_id, confirm=confirm or "", note=note, now=now, actor=_ACTOR)
    elif account_id is None:
        switch_all(state=TradingState(verb), note=note, now=now, actor=_ACTOR)
    else:
        switch_account(account_id=account_id, state=TradingState(verb), note=note, now=now, actor=_ACTOR)


def _shown() -> Iterator[str]:
    switch = shown_switch()
    said = f" ({switch.set_by} at {switch.set_at:%Y-%m-%d %H:%M:%S} UTC: {switch.note})" if switch.set_at else ""
    yield f"all accounts: {switch.state}{said}"
    for name, state in Account.objects.order_by("name").values_list("name", "trading_state"):
        yield f"{name}: {state}"
    for wish in Flatten.objects.filter(ended_at__isnull=True).select_related("account").defer("account__credentials"):
        yield f"being left: {wish.account or 'everything'} since {wish.asked_at:%Y-%m-%d %H:%M:%S} UTC, {wish.asked_by}"


def _account_id(name: str) -> int:
    found = Account.objects.filter(name=name).values_list("pk", flat=True).first()
    if found is None:
        known = ", ".join(Account.objects.order_by("name").values_list("name", flat=True)[:8])
        raise CommandError(f"there is no account {name!r}; known are {known or 'none yet'}", returncode=2)
    return found
