"""What is wrong with what a replay was given. The message is for the person who gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SHOWN: Final = 5


class InvalidInput(Exception):
    """A file or an option was refused; the message names the place, what would be right, and what was got."""


def refuse_all(source: str, problems: Mapping[str, str]) -> InvalidInput:
    """Return the refusal of a file with problems at several paths, the first few of them spelled out."""
    told = [f"{path}: {text}" for path, text in list(problems.items())[:_SHOWN]]
    rest = len(problems) - len(told)
    return InvalidInput(f"{source}: {'; '.join(told)}{f'; and {rest} more' if rest else ''}")
