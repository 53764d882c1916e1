"""Documents as they are stored and compared: exact numbers as text, differences path by path. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel

from exitmgr.policy.layers import Partial, Sources, flat, stack
from exitmgr.policy.schema import OVERRIDING

#: What stands for a key that one of two documents does not set.
UNSET: Final = None


def as_json(value: Any) -> Any:
    """Return a value as JSON keeps it: decimals as text without exponent, everything else as it is."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, BaseModel):
        return as_json(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


def differences(before: Sources, after: Sources) -> dict[str, tuple[Any, Any]]:
    """Return path -> (before, after) of all that holds for everybody, then of the overrides, where they differ.

    Values that mean the same number are the same, however they were written.
    """
    was, becomes = _comparable(before), _comparable(after)
    return {
        path: (was.get(path, UNSET), becomes.get(path, UNSET))
        for path in dict.fromkeys([*was, *becomes])
        if was.get(path, UNSET) != becomes.get(path, UNSET)
    }


def _comparable(sources: Sources) -> dict[str, Any]:
    found = flat(stack([layer.partial for layer in sources.layers()]))
    for document in (sources.file, sources.version):
        for kind in OVERRIDING:
            for name, partial in (document.get(kind) or {}).items():
                found |= flat(_mapping(partial), prefix=f"{kind}.{name}.")
    return {path: _canonical(value) for path, value in found.items()}


def _canonical(value: Any) -> Any:
    """Return a value in the one spelling that equal values share."""
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except ArithmeticError:
            return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = Decimal(value)
        return f"{number.normalize():f}" if number.is_finite() else str(number)
    if isinstance(value, Mapping):
        return {name: _canonical(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return value


def _mapping(value: Any) -> Partial:
    return value if isinstance(value, Mapping) else {}
