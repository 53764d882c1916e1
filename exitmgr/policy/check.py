"""Whether the file and the environment are valid, said without Django, a database or anything else that runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from exitmgr.policy.layers import Sources, effective
from exitmgr.policy.local import VARIABLE, read_file, read_local
from exitmgr.policy.schema import InvalidPolicy, warnings_of
from exitmgr.policy.validation import conflicts_in

USUAL_FILE: Final = Path(__file__).parents[2] / "config" / "trading.yaml"


def checked(file: str | None, *, usual: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield that a file is valid and what it is warned of; without a name, the file in use with the environment.

    :raises InvalidPolicy: with the path of every offending key.
    """
    if file:
        sources = Sources(file=read_file(Path(file)))
    else:
        local = read_local(usual, environ, required=VARIABLE in environ)
        sources = Sources(local.file, local.environment)
    conflicts = conflicts_in(sources)
    if conflicts:
        raise InvalidPolicy(conflicts)
    yield f"{file or usual} is valid"
    yield from (f"warning: {text}" for text in warnings_of(effective(sources.layers())))


def main(arguments: Sequence[str]) -> int:
    """Check as `manage.py policy check` does; return the exit code."""
    parser = argparse.ArgumentParser(prog="manage.py policy check", description="Say whether a file is valid.")
    parser.add_argument("file", nargs="?", help="default: the file in use, with the environment")
    file = parser.parse_args(arguments).file
    try:
        for line in checked(file, usual=Path(os.environ.get(VARIABLE) or USUAL_FILE), environ=os.environ):
            sys.stdout.write(f"{line}\n")
    except InvalidPolicy as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
