"""One stack a module: what a test breaks, the next one finds healed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.rig import Rig


@pytest.fixture(scope="module")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("flow") / "var") as running:
        yield running


@pytest.fixture
def rig(_stack: Rig) -> Iterator[Rig]:
    """A stack in which everything runs and nothing is held."""
    _stack.await_running()
    yield _stack
    _stack.simulator.clear_faults()
