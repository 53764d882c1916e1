"""YAML as a person means it: numbers are exact, a key given twice is refused, only true and false are truth values."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import yaml

#: A configuration is some pages long; more than this is something else.
LARGEST_BYTES: Final = 1_000_000


class Unreadable(Exception):
    """The text is not the YAML we read; the message says where and why."""


class _ExactLoader(yaml.SafeLoader):
    """SafeLoader with rules of its own for scalars: no yes and no (ON is a symbol), no 1:30, no dates, no floats."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            self._refuse_repeated_keys(node)
        return super().construct_object(node, deep=deep)

    def _refuse_repeated_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.tag not in {_TEXT, _MERGE}:
                raise yaml.MarkedYAMLError(
                    problem=f"a key must be text; write '{key.value}' in quotes", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)


_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_SCALARS: Final = (
    ("tag:yaml.org,2002:bool", r"true|True|false|False", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|", ["~", "n", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,4})?",
        "-+.0123456789",
    ),
    (_MERGE, r"<<", "<"),
)  # fmt: skip
for _tag, _pattern, _first in _SCALARS:
    _ExactLoader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))
_ExactLoader.add_constructor("tag:yaml.org,2002:float", lambda _loader, node: Decimal(node.value))
_ExactLoader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value))
_ExactLoader.add_constructor("tag:yaml.org,2002:bool", lambda _loader, node: node.value.lower() == "true")


def read_yaml(text: str) -> Any:
    """Return the value a YAML text stands for, its decimals exact.

    :raises Unreadable: it is too long, no YAML, says a key twice, or holds more than one document.
    """
    if len(text) > LARGEST_BYTES:
        raise Unreadable(f"has {len(text)} characters; at most {LARGEST_BYTES} are read")
    try:
        return yaml.load(text, Loader=_ExactLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Unreadable(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise Unreadable(" ".join(str(error).split())) from None
    except (RecursionError, ValueError) as error:  # too deep, or an integer of thousands of digits
        raise Unreadable(f"cannot be read: {error}") from None
