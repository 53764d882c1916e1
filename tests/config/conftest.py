"""Fixtures of the installation's tests: awkward folders, and an environment that gives no servers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded import discard_home

GIVEN = {"DATABASE_URL", "REDIS_URL", "EXITMGR_VAR"}


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """An environment in which all servers are ours to run; the suite itself is given some."""
    return {name: value for name, value in os.environ.items() if name not in GIVEN}


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    """A folder of data whose path has a space, in a folder other users cannot enter."""
    folder = tmp_path / "with space" / "var"
    folder.parent.mkdir(mode=0o700)
    yield folder
    discard_home(folder)
