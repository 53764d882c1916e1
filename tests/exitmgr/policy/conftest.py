"""Each test has a file, a folder and an environment of its own, and looks everything up anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exitmgr.policy.current import forget, look_again
from exitmgr.policy.environment import PREFIX


@pytest.fixture(autouse=True)
def _own_place(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.BASE_DIR, settings.VAR = tmp_path, tmp_path / "var"
    for name in [name for name in os.environ if name.startswith((PREFIX, "EXITMGR_TRADING_FILE"))]:
        monkeypatch.delenv(name)
    forget()
    yield
    forget()


@pytest.fixture
def trading_yaml(tmp_path: Path) -> Path:
    """Return where the file is looked for; there is none yet."""
    (tmp_path / "config").mkdir()
    return tmp_path / "config" / "trading.yaml"


@pytest.fixture
def write_file(trading_yaml: Path) -> Callable[[str], None]:
    """Return a function that replaces the file as an editor does, and has it seen at once."""

    def write(text: str) -> None:
        passing = trading_yaml.with_suffix(".new")
        passing.write_text(text)
        passing.replace(trading_yaml)
        look_again()

    return write
