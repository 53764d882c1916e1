"""Owns the demonstration's folder of data: emptied before each run, and never a folder that is somebody's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from config.embedded import ROOT, discard_home
from config.stack import AlreadyRunning, Stack
from config.stack.ownership import clear_leftovers, owner_lives

DIRECTORY = ROOT / "var" / "demo"
MARK = ".demo"  #: this file says that a demonstration made the folder, so the next one may empty it


class NotOurs(RuntimeError):
    """The folder holds something that no demonstration left there."""


def empty_home(var: Path, *, environ: Mapping[str, str]) -> None:
    """Leave an empty folder, and nothing running of a run that was killed.

    :raises NotOurs: the folder is not empty and no demonstration made it.
    :raises AlreadyRunning: a demonstration runs there, or was told to stay.
    """
    if var.is_symlink() or (var.exists() and not var.is_dir()):
        raise NotOurs(f"{var} is not a plain folder; name another one with --var")
    if var.exists() and any(var.iterdir()):
        if not (var / MARK).is_file():
            raise NotOurs(f"{var} is not empty and not a demonstration's; name another folder with --var")
        _clear_processes(var, environ=environ)
        discard_home(var)
        shutil.rmtree(var)
    var.mkdir(mode=0o711, parents=True, exist_ok=True)
    (var / MARK).touch()


def _clear_processes(var: Path, *, environ: Mapping[str, str]) -> None:
    stack = Stack(var, environ=environ)
    if stack.is_up():
        if owner_lives(var):
            raise AlreadyRunning(f"a demonstration runs in {var}; stop it with: script/up down --var {var}")
        stack.stop()
    clear_leftovers(var, services=stack.services)
