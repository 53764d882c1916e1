"""The trading configuration from the command line: looked at, checked, explained, changed by versions."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError

from exitmgr.models import PolicyVersion
from exitmgr.policy import reapply as reapplying
from exitmgr.policy import versions
from exitmgr.policy.check import checked
from exitmgr.policy.current import in_force, trading_file
from exitmgr.policy.documents import as_json
from exitmgr.policy.local import read_file
from exitmgr.policy.reference import written_reference
from exitmgr.policy.schema import InvalidPolicy
from positions.states import IllegalMove
from positions.wire import spell

_ACTOR = "command line"
_FILE = "file"


class Command(BaseCommand):
    """Look at the trading configuration and change it."""

    help = "Look at the trading configuration and change it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare one sub-command a verb."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        check = verbs.add_parser("check", help="say whether a file is valid; needs no running service")
        check.add_argument("file", nargs="?", help="default: the file in use, with the environment")
        show = verbs.add_parser("show", help="show what is in force")
        show.add_argument("--json", action="store_true")
        explain = verbs.add_parser("explain", help="say which layer gave a value, and what every other one says")
        explain.add_argument("path", help="a key, or a section for every key below it")
        for one in (show, explain):
            one.add_argument("--account", default="")
            one.add_argument("--symbol", default="")
        diff = verbs.add_parser("diff", help="show what differs between two versions")
        for side in ("before", "after"):
            diff.add_argument(side, help="a number, or file for the file without any version")
        draft = verbs.add_parser("draft", help="make a new version of a file")
        draft.add_argument("file")
        draft.add_argument("--note", default="", help="why")
        for verb, what in (
            ("validate", "check a draft, so that it may be activated"),
            ("preview", "show what a version would change about open positions"),
            ("activate", "put a version into force"),
        ):
            verbs.add_parser(verb, help=what).add_argument("number", type=int)
        back = verbs.add_parser("rollback", help="put the version into force that was before, or an earlier one")
        back.add_argument("number", type=int, nargs="?")
        for one in (verbs.choices["activate"], back):
            one.add_argument("--replaces", help="refuse unless this one is in force: a number, or file")
        again = verbs.add_parser("reapply", help="give open positions the plan of the version in force")
        again.add_argument("--bracket", type=int, action="append", help="only this one; may be repeated")
        again.add_argument("--confirm", action="store_true", help="also where it sells at once")
        verbs.add_parser("list", help="list the versions")
        verbs.add_parser("reference", help="write docs/configuration.md to standard output")

    def handle(self, *_args: Any, verb: str, **options: Any) -> None:
        """Do what the verb says; a mistake is one line and code 2."""
        try:
            for line in _VERBS[verb](options, datetime.now(UTC)):
                self.stdout.write(line)
        except (InvalidPolicy, IllegalMove, PolicyVersion.DoesNotExist) as error:
            raise CommandError(str(error), returncode=2) from None
        except (OperationalError, InterfaceError) as error:
            detail = str(error).strip().splitlines()[0]
            raise CommandError(f"the database does not answer: {detail}", returncode=2) from None


def _check(options: Mapping[str, Any], _now: datetime) -> Iterable[str]:
    return checked(options["file"], usual=trading_file(), environ=os.environ)


def _show(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    who = {"account": options["account"], "symbol": options["symbol"]}
    found = in_force(now=now)
    if options["json"]:
        yield json.dumps(as_json(found.policy_for(**who).model_dump()), indent=2)
        return
    for one in found.explain("", **who):
        yield f"{one.path} = {_spelled(one.value)}  ({one.source})"


def _explain(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    found = in_force(now=now).explain(options["path"], account=options["account"], symbol=options["symbol"])
    for one in found:
        yield f"{one.path} = {_spelled(one.value)}, from {one.source}"
        yield from (f"  {name}: {_spelled(value)}" for name, value in one.says)


def _diff(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    before, after = (_version_or_file(options[side]) for side in ("before", "after"))
    changes = versions.diff(before, after, now=now)
    for path, (was, becomes) in changes.items():
        yield f"{path}: {_spelled(was)} -> {_spelled(becomes)}"
    if not changes:
        yield "no difference"


def _draft(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    document = read_file(Path(options["file"]))
    version = versions.create_draft(document=document, note=options["note"], now=now, actor=_ACTOR)
    yield f"drafted version {version.number}"


def _validate(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    version = versions.validate(options["number"], now=now, actor=_ACTOR)
    if version.problems:
        raise InvalidPolicy(version.problems)
    yield f"version {version.number} is valid and may be activated"


def _preview(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    found = reapplying.preview(versions.version_numbered(options["number"]), now=now)
    changed = [one for one in found if one.changes]
    for one in changed:
        what = one.problem or (
            f"stop {_price(one.stop_before)} -> {_price(one.stop_after)}, "
            f"targets {_prices(one.targets_before)} -> {_prices(one.targets_after)}"
        )
        fires = f"; would sell at once: {', '.join(one.would_fire)}" if one.would_fire else ""
        yield f"position {one.position_id} {one.symbol} ({one.account}): {what}{fires}"
    yield f"{len(changed)} of {len(found)} open positions with a plan from the configuration would change"


def _activate(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    version = versions.activate(options["number"], now=now, actor=_ACTOR, **_replaces(options))
    yield f"version {version.number} is in force"


def _rollback(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    version = versions.rollback(to=options["number"], now=now, actor=_ACTOR, **_replaces(options))
    yield f"version {version.number} is in force again" if version else "the file alone is in force again"


def _reapply(options: Mapping[str, Any], now: datetime) -> Iterable[str]:
    done = reapplying.reapply(
        versions.active_version(), now=now, actor=_ACTOR, bracket_ids=options["bracket"], confirm=options["confirm"]
    )
    for one in done:
        yield f"position {one.position_id}: {'changed' if one.applied else one.why}"
    yield f"changed {sum(one.applied for one in done)} of {len(done)}"


def _list(_options: Mapping[str, Any], _now: datetime) -> Iterable[str]:
    for one in PolicyVersion.objects.order_by("number"):
        by = f", activated {one.activated_at:%Y-%m-%d %H:%M} UTC by {one.activated_by}" if one.activated_at else ""
        note = f"  {one.note}" if one.note else ""
        yield f"{one.number}  {one.status}  {one.created_at:%Y-%m-%d %H:%M} UTC by {one.created_by}{by}{note}"


def _reference(_options: Mapping[str, Any], _now: datetime) -> Iterable[str]:
    yield written_reference().rstrip("\n")


_VERBS: Mapping[str, Callable[[Mapping[str, Any], datetime], Iterable[str]]] = {
    "check": _check,
    "show": _show,
    "explain": _explain,
    "diff": _diff,
    "draft": _draft,
    "validate": _validate,
    "preview": _preview,
    "activate": _activate,
    "rollback": _rollback,
    "reapply": _reapply,
    "list": _list,
    "reference": _reference,
}


def _version_or_file(text: str) -> PolicyVersion | None:
    if text == _FILE:
        return None
    if not text.isascii() or not text.isdigit():
        raise CommandError(f"must be the number of a version, or file; got {text!r}", returncode=2)
    return versions.version_numbered(int(text))


def _replaces(options: Mapping[str, Any]) -> dict[str, int | None]:
    given = options["replaces"]
    if given is None:
        return {}
    found = _version_or_file(given)
    return {"replaces": found.number if found else None}


def _spelled(value: Any) -> str:
    value = as_json(value)
    return value if isinstance(value, str) else json.dumps(value)


def _price(price: Decimal | None) -> str:
    return "none" if price is None else spell(price)


def _prices(prices: Iterable[Decimal]) -> str:
    return ", ".join(map(spell, prices)) or "none"
