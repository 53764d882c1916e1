"""Turns what pydantic found wrong into paths and sentences a person can act on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from exitmgr.rules.plan import _shown

_QUOTE: Final = "'"


def problems_in(errors: Sequence[ErrorDetails], *, root: type[BaseModel]) -> dict[str, str]:
    """Return the first problem of each path."""
    found: dict[str, str] = {}
    for issue in errors:
        found.setdefault(".".join(str(part) for part in issue["loc"]), _worded(issue, root))
    return found


def unknown_among(name: object, known: Sequence[str]) -> str:
    """Return the sentence about a key nobody knows."""
    near = get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    hint = f" did you mean {near[0]}?" if near else ""
    return f"is unknown;{hint} known here: {', '.join(known)}"


def shown(given: object) -> str:
    """Return a value as a refusal quotes it."""
    return _shown(given)


def model_at(loc: Sequence[int | str], root: type[BaseModel]) -> type[BaseModel]:
    """Return the innermost model on the way to a path."""
    part = root
    for key in loc:
        field = part.model_fields.get(key) if isinstance(key, str) else None
        part = next(models_in(field.annotation), part) if field else part
    return part


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models an annotation mentions."""
    inner = get_args(annotation)
    if not inner and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in inner:
        yield from models_in(each)


def _worded(issue: ErrorDetails, root: type[BaseModel]) -> str:
    kind, loc = issue["type"], issue["loc"]
    if kind == "value_error":
        return str(issue["ctx"]["error"])
    if kind == "extra_forbidden":
        return unknown_among(loc[-1], list(model_at(loc[:-1], root).model_fields))
    wanted = {
        "bool_type": "must be true or false",
        "dict_type": "must be an object",
        "tuple_type": "must be an object or a list of objects",
    }.get(kind, issue["msg"])
    if kind == "literal_error":
        wanted = f"must be {issue['ctx']['expected'].replace(_QUOTE, '')}"
    elif kind == "model_type":
        wanted = f"must be an object with any of {', '.join(model_at(loc, root).model_fields)}"
    return f"{wanted}; got {shown(issue['input'])}"
