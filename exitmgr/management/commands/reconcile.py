"""Reconciliation from the command line: look at accounts, confirm a split, release what was frozen."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError

from exitmgr.reconcile.freezing import NotFrozen, release_position
from exitmgr.reconcile.looks import LookRefused, Seen, reconcile_account
from exitmgr.reconcile.splitting import SplitRefused, confirm_split
from orders.brokers.registry import connect
from positions.models import Account, Position
from positions.splits import parse_ratio

_ACTOR = "command line"


class Command(BaseCommand):
    """Compare accounts with their brokers, and settle what only a person can."""

    help = "Compare accounts with their brokers, and settle what only a person can."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare one sub-command a verb; without one all accounts are looked at."""
        verbs = parser.add_subparsers(dest="verb", metavar="look|split|release")
        look = verbs.add_parser("look", help="compare an account, or all, with the broker and do what follows")
        for one in (look, parser):
            one.add_argument("--json", action="store_true")
            one.add_argument("--dry-run", action="store_true", help="only compare; nothing is written or sent")
        look.add_argument("account", nargs="?")
        split = verbs.add_parser(
            "split", aliases=["confirm-split"], help="confirm one: put the frozen positions of a symbol into new terms"
        )
        split.add_argument("symbol")
        split.add_argument("ratio", help="new:old, such as 4:1, or 1:10 for a reverse split")
        release = verbs.add_parser("release", help="let the triggers of a frozen position count again, as it is")
        release.add_argument("position", type=int)
        release.add_argument("--note", required=True, help="why; kept in the journal")

    def handle(self, *_args: Any, verb: str | None, **options: Any) -> None:
        """Do what the verb says; a mistake is one line and code 2."""
        try:
            if verb in ("split", "confirm-split"):
                self.stdout.write(_confirmed(options["symbol"], options["ratio"]))
            elif verb == "release":
                self.stdout.write(_released(options["position"], note=options["note"]))
            else:
                for line in _looked(options.get("account"), as_json=options["json"], dry_run=options["dry_run"]):
                    self.stdout.write(line)
        except (SplitRefused, NotFrozen, LookRefused, Position.DoesNotExist, ValueError) as error:
            raise CommandError(str(error), returncode=2) from None
        except (OperationalError, InterfaceError) as error:
            detail = str(error).strip().splitlines()[0]
            raise CommandError(f"the database does not answer: {detail}", returncode=2) from None


def _looked(name: str | None, *, as_json: bool, dry_run: bool) -> Iterator[str]:
    found: dict[str, list[Seen]] = {}
    failures: list[str] = []
    for account in _accounts(name):
        try:
            found[account.name] = reconcile_account(
                account_id=account.pk, connect=connect, clock=lambda: datetime.now(UTC), actor=_ACTOR, dry_run=dry_run
            )
        except LookRefused as error:
            failures.append(str(error))
    if as_json:
        yield json.dumps({name: [_as_json(one) for one in seen] for name, seen in found.items()}, indent=2)
    else:
        for account_name, seen in found.items():
            yield f"{account_name}: {f'{len(seen)} differences' if seen else 'agrees with its broker'}"
            for one in seen:
                yield f"  {one.difference}{f'; {one.done}' if one.done else '' if dry_run else '; waited with'}"
    if failures:
        raise LookRefused("; ".join(failures))


def _accounts(name: str | None) -> list[Account]:
    accounts = Account.objects.defer("credentials").order_by("name")
    if name is None:
        return list(accounts)
    found = list(accounts.filter(name=name))
    if not found:
        known = ", ".join(accounts.values_list("name", flat=True)[:8])
        raise LookRefused(f"there is no account {name!r}; known are {known or 'none yet'}")
    return found


def _as_json(one: Seen) -> dict[str, Any]:
    different = one.difference
    return {
        "kind": str(different.kind),
        "symbol": different.symbol,
        "figures": dict(different.figures),
        "positions": list(different.position_ids),
        "order": different.order_id,
        "done": one.done,
    }


def _confirmed(symbol: str, ratio: str) -> str:
    factor = parse_ratio(ratio)
    ids = confirm_split(symbol=symbol, factor=factor, now=datetime.now(UTC), actor=_ACTOR)
    return f"{symbol}: positions {', '.join(map(str, ids))} are in the terms of {ratio} and watched again"


def _released(position_id: int, *, note: str) -> str:
    try:
        release_position(position_id=position_id, note=note, now=datetime.now(UTC), actor=_ACTOR)
    except Position.DoesNotExist:
        raise Position.DoesNotExist(f"there is no position {position_id}") from None
    return f"position {position_id} is watched again"
