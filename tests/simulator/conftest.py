"""One simulator for the tests of a module, emptied before each; and a fresh one for tests that kill it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.box import Box, start_box
from tests.simulator.sdk import TradingClient


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for a module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def box(shared_box: Box) -> Box:
    """Return the module's simulator, emptied."""
    shared_box.control("POST", "/reset")
    return shared_box


@pytest.fixture
def own_box(tmp_path: Path) -> Iterator[Box]:
    """Return a simulator that a test may kill."""
    box = start_box(tmp_path)
    yield box
    box.stop()


@pytest.fixture
def client(box: Box) -> Iterator[TradingClient]:
    """Return alpaca-py's client of the module's simulator, as it comes."""
    trading = TradingClient(box.key, box.secret, url_override=box.url)
    yield trading
    trading._session.close()
