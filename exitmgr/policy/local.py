"""What this machine says: the file and the environment, and the last of both that was good, kept for a restart."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from exitmgr.policy.documents import as_json
from exitmgr.policy.environment import read_environment
from exitmgr.policy.exact_yaml import LARGEST_BYTES, Unreadable, read_yaml
from exitmgr.policy.layers import Partial
from exitmgr.policy.schema import InvalidPolicy
from exitmgr.policy.validation import problems_of

log = logging.getLogger(__name__)

#: Names the file when it is not config/trading.yaml.
VARIABLE: Final = "EXITMGR_TRADING_FILE"

Signature = tuple[int, int, int] | None


@dataclass(frozen=True)
class Local:
    """What the file and the environment set."""

    file: Partial = field(default_factory=dict)
    environment: Partial = field(default_factory=dict)


def signature_of(path: Path) -> Signature:
    """Return what changes whenever the file does, None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_file(path: Path) -> dict[str, Any]:
    """Return the document in a file, its single values checked.

    :raises InvalidPolicy: it cannot be read, or a value is wrong; problems are named by path, or by the file's name.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise InvalidPolicy({str(path): f"has {size} bytes; at most {LARGEST_BYTES} are read"})
        document = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidPolicy({str(path): f"cannot be read: {error.strerror or error}"}) from None
    except UnicodeDecodeError as error:
        raise InvalidPolicy({str(path): f"is not UTF-8 text: {error.reason} at byte {error.start}"}) from None
    except Unreadable as error:
        raise InvalidPolicy({str(path): str(error)}) from None
    problems = problems_of(document)
    if problems:
        raise InvalidPolicy(problems)
    return document or {}


def read_local(path: Path, environ: Mapping[str, str], *, required: bool) -> Local:
    """Return what file and environment set; a missing file sets nothing unless it is required.

    :raises InvalidPolicy: one of them is wrong.
    """
    file = read_file(path) if required or path.exists() else {}
    return Local(file=file, environment=read_environment(environ))


def keep_good(local: Local, folder: Path) -> None:
    """Write what was found good where a restart finds it; a disk that refuses costs only that."""
    text = json.dumps({"file": as_json(local.file), "environment": as_json(local.environment)}, indent=1)
    target = _kept_in(folder)
    try:
        if target.exists() and target.read_text(encoding="utf-8") == text:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        passing = target.with_suffix(f".{os.getpid()}")
        passing.write_text(text, encoding="utf-8")
        passing.replace(target)
    except OSError as error:
        log.warning("good_policy_not_kept folder=%s error=%s", folder, error)


def kept_good(folder: Path) -> Local | None:
    """Return what was last found good, None when nothing was kept or it is good no longer."""
    try:
        kept = json.loads(_kept_in(folder).read_text(encoding="utf-8"))
        local = Local(file=kept["file"], environment=kept["environment"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if problems_of(local.file) or problems_of(local.environment) else local


def _kept_in(folder: Path) -> Path:
    return folder / "last_good.json"
