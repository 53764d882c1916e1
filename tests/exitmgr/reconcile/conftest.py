"""A simulated broker, an account at it, and a hand that looks at the account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exitmgr.policy.current import forget
from exitmgr.policy.environment import PREFIX
from exitmgr.reconcile.looks import Seen, reconcile_account
from orders.brokers.registry import connect
from positions.models import Account
from tests import factories as f
from tests.simulator.box import Box, start_box


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulator for the module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def box(running: Box) -> Box:
    """Return the simulator, emptied, with a price."""
    running.control("POST", "/reset")
    running.quote("AAPL", "100.00", "100.02")
    return running


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tasks that were rung for; no message leaves."""
    bells: list[str] = []
    places = ("orders.lanes", "orders.cancel", "exitmgr.brackets", "exitmgr.reconcile.looks")
    for place in places:
        monkeypatch.setattr(f"{place}.ring", lambda task, **_options: bells.append(task) or True)
    return bells


@pytest.fixture
def adopting(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that has the configuration say what to do about holdings nobody knows."""
    settings.BASE_DIR, settings.VAR = tmp_path, tmp_path / "var"

    def say(what: str) -> None:
        monkeypatch.setenv(f"{PREFIX}EXIT_MANAGER__ADOPT", what)
        forget()

    yield say
    forget()


@pytest.fixture
def account(box: Box, db: None) -> Account:
    """Return an account at the simulator."""
    return f.make_account(name="sim", url=box.url, key=box.key, secret=box.secret)


@pytest.fixture
def look(account: Account) -> Callable[..., list[Seen]]:
    """Return a function that looks at the account so many seconds from now."""

    def looked(*, later: float = 0, dry_run: bool = False) -> list[Seen]:
        def clock() -> datetime:
            return f.utc_now() + timedelta(seconds=later)

        return reconcile_account(account_id=account.pk, connect=connect, clock=clock, dry_run=dry_run)

    return looked
