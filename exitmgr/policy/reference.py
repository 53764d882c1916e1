"""The reference of the configuration, written from its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from exitmgr.policy.documents import as_json
from exitmgr.policy.layers import section_at
from exitmgr.policy.schema import DEFAULTS, Policy

_INTRODUCTION = """\
# Configuration

*The tables below are written by `manage.py policy reference` from the schema; a test keeps them current.*

The trading configuration says what plan a position gets when nobody gave it one, which prices are trusted, and how hard
the system tries. Without any configuration the defaults below hold.

## Where a value comes from

Each layer goes over those before it, key by key; a list, and a part that is written as in a plan (`trailing`,
`break_even`, `stagnation`, `session_close`), is replaced as a whole.

1. the defaults
2. the file, `config/trading.yaml` (`EXITMGR_TRADING_FILE` names another one)
3. the environment: `EXITMGR_TRADING__EXIT_MANAGER__STOP_LOSS__THRESHOLD_PCT=1.5`; values are written as in the file
4. the active version in the database
5. `accounts: NAME:` in the file, then in the active version
6. `symbols: SYMBOL:` in the file, then in the active version
7. the settings of a single position

`accounts` and `symbols` stand beside the three sections and hold the same keys for one account or symbol alone:

```yaml
exit_manager:
  stop_loss: {threshold_pct: 1.5}
accounts:
  cautious:
    exit_manager: {stop_loss: {threshold_pct: 0.5}}
symbols:
  TSLA:
    trade_exit: {mode: atr, atr: {multiplier: 3}}
```

`manage.py policy explain exit_manager.stop_loss.threshold_pct --symbol TSLA` says which layer gave a value and what
every other one says. Numbers are exact. A key that is not known, a key given twice, and a value outside its bounds are
refused with their path and what would be right.

## Versions

A version is drafted, validated, activated, and superseded by the next. `preview` shows which open positions it would
change and what would be sold at once. A version holds everywhere within a second of its activation, without a restart;
it changes the plans of positions that are opened from then on. Plans of open positions that the configuration gave
follow only when it is re-applied; a plan that a person gave never does. `rollback` activates the version that was in
force before.

```
manage.py policy check [FILE]                  # needs no running service
manage.py policy show [--account NAME] [--symbol SYMBOL] [--json]
manage.py policy explain PATH [--account NAME] [--symbol SYMBOL]
manage.py policy draft FILE [--note TEXT]
manage.py policy validate N
manage.py policy diff A B                      # each a number, or file for the file alone
manage.py policy preview N
manage.py policy activate N [--replaces M]
manage.py policy reapply [--bracket ID ...] [--confirm]
manage.py policy rollback [N]
manage.py policy list
```

When the file or the environment becomes wrong, the last good one stays in force, also over a restart
(`var/policy/last_good.json`), and a critical alert names the path and the problem; it is resolved when the file is
mended.
An active version that cannot be read any more gives way to the one before it, with an alert as well.
"""


def written_reference() -> str:
    """Return the reference as Markdown."""
    return "\n".join([_INTRODUCTION, *_tables(Policy, "", DEFAULTS)]).rstrip("\n") + "\n"


def _tables(model: type[BaseModel], prefix: str, defaults: dict[str, Any]) -> Iterator[str]:
    values = [(name, one) for name, one in model.model_fields.items() if section_at(name, model) is None]
    if values:
        yield f"## {prefix.rstrip('.')}\n\n{model.__doc__}\n"
        yield "| key | default | unit | allowed | |"
        yield "|---|---|---|---|---|"
        for name, one in values:
            extra: Any = one.json_schema_extra or {}
            unread = " *Not read by any code yet.*" if extra.get("unread") else ""
            cells = [f"`{name}`", f"`{_spelled(defaults[name])}`", extra.get("unit", ""), _allowed(one)]
            yield f"| {' | '.join(cells)} | {one.description}{unread} |"
        yield ""
    for name in model.model_fields:
        section = section_at(name, model)
        if section is not None:
            yield from _tables(section, f"{prefix}{name}.", defaults[name])


def _spelled(value: Any) -> str:
    value = as_json(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {inner}" for name, inner in value.items()) + "}"
    return str(value)


def _allowed(field: FieldInfo) -> str:
    extra: Any = field.json_schema_extra or {}
    if extra.get("allowed"):
        return str(extra["allowed"])
    words = _words(field.annotation)
    if words:
        return ", ".join(words)
    if field.annotation is bool:
        return "true, false"
    bounds = {type(one).__name__: one for one in _bounds(field)}
    least = f"from {bounds['Ge'].ge}" if "Ge" in bounds else f"above {bounds['Gt'].gt}" if "Gt" in bounds else ""
    most = f"{bounds['Le'].le:,}" if "Le" in bounds else ""
    if not least:
        return "as in a [plan](exit_rules.md)"
    return f"{least} to {most}" if least.startswith("from") else f"{least}, at most {most}"


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    found = [word for inner in get_args(annotation) if get_origin(inner) is Literal for word in get_args(inner)]
    return [*map(str, found), "null"] if found else []


def _bounds(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for inner in get_args(field.annotation):
        for one in getattr(inner, "__metadata__", ()):
            yield from getattr(one, "metadata", [one])
