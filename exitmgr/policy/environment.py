"""The environment as a layer: EXITMGR_TRADING__EXIT_MANAGER__STOP_LOSS__THRESHOLD_PCT=1.5. Pure: names and texts in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from exitmgr.policy.exact_yaml import Unreadable, read_yaml
from exitmgr.policy.layers import section_at
from exitmgr.policy.schema import InvalidPolicy, Policy
from exitmgr.policy.validation import problems_of
from exitmgr.policy.wording import unknown_among

PREFIX: Final = "EXITMGR_TRADING__"
_SEPARATOR: Final = "__"


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the variables set, as a document; values are read as YAML, so objects may be written in braces.

    Accounts and symbols are not set here; only `symbol_specific_ratios` has names of its own, which keep their case.

    :raises InvalidPolicy: a variable names no key, or its value is wrong; the problems are named by variable.
    """
    document: dict[str, Any] = {}
    names: dict[str, str] = {}
    problems: dict[str, str] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        try:
            path = _path_of(variable)
            value = read_yaml(environ[variable])
        except (Unreadable, _UnknownName) as error:
            problems[variable] = str(error)
            continue
        names[".".join(path)] = variable
        _put(document, path, value)
    for wrong, text in problems_of(document).items():
        problems[_variable_of(wrong, names)] = text
    if problems:
        raise InvalidPolicy(problems)
    return document


class _UnknownName(Exception):
    """A variable names no key of the configuration."""


def _path_of(variable: str) -> list[str]:
    model: type[BaseModel] = Policy
    path: list[str] = []
    parts = variable.removeprefix(PREFIX).split(_SEPARATOR)
    for index, part in enumerate(parts):
        name = part.lower()
        if name not in model.model_fields:
            raise _UnknownName(unknown_among(part, list(model.model_fields)))
        path.append(name)
        section = section_at(name, model)
        if section is None:
            return [*path, *_rest(name, parts[index + 1 :])]
        model = section
    raise _UnknownName(f"names a section, not a key; keys here: {', '.join(model.model_fields)}")


def _rest(name: str, parts: list[str]) -> list[str]:
    if not parts or (name == "symbol_specific_ratios" and len(parts) == 1):
        return parts
    raise _UnknownName(f"goes beyond the key {name}; give the whole value, as in {{pct: 1}}")


def _put(document: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        document = document.setdefault(name, {})
    document[path[-1]] = value


def _variable_of(path: str, names: Mapping[str, str]) -> str:
    """Return the variable whose value a problem is in."""
    for known, variable in names.items():
        if path == known or path.startswith(f"{known}."):
            return variable
    return path
