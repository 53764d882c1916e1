"""A whole stack of its own, and the hands to trade through it, break it, and compare what is left with the broker."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import redis

from config.demo.agreement import compare_now
from config.demo.book import Book, OrderRow
from config.demo.desk import Desk, make_token
from config.demo.scenes import Word
from config.embedded import discard_home, service_urls
from config.secrets import load_secrets
from config.simulator import Simulator
from config.stack import Stack

PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}
STOPPED = ("97.99", "98.01")  #: bid and ask at which a long entered at 100 is beyond its stop
WORKERS = ("stop", "orders", "scan", "maintenance")
#: Beyond the lease of a killed worker, with room for a machine that is busy.
RECOVERY_SECONDS = 90.0
POLL_SECONDS = 0.05
#: A crowd of equal entries in one symbol, again and again, is what these tests are made of.
UNLIMITED = {
    "EXITMGR_TRADING__EXIT_MANAGER__EXIT_COOLDOWN_SECONDS": "0",
    "EXITMGR_TRADING__TRADE_EXIT__BRACKET_ORDERS__MAX_ACTIVE_BRACKETS": "1000000",
}


class Rig:
    """One running stack; use it as a context."""

    def __init__(self, var: Path) -> None:
        given = {"DATABASE_URL", "REDIS_URL", "EXITMGR_VAR"}
        self._environ = {name: value for name, value in os.environ.items() if name not in given} | UNLIMITED
        self._var = var
        self.stack = Stack(var, environ=self._environ)

    def __enter__(self) -> Rig:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.stack.stop()
        discard_home(self._var)

    def _close(self) -> None:
        if hasattr(self, "book"):
            self.book.close()
            self.simulator.close()
            self.desk.close()

    def start(self) -> None:
        """Start the stack, or take over what a killed supervisor left of it."""
        self._close()
        self.stack.start()
        urls, secrets = self.stack.urls(), load_secrets(var=self._var, environ=self._environ)
        services = service_urls(var=self._var, environ=self._environ) or {}
        token = make_token({**self._environ, **self.stack.environment()})
        self.desk = Desk(url=urls["web"], token=token)
        self.simulator = Simulator(url=urls["simulator"], control_token=secrets.simulator_control_token)
        self.book = Book(services["DATABASE_URL"])
        self.redis_url = services["REDIS_URL"]
        if not hasattr(self, "opening_cash"):
            self.opening_cash = self.simulator.ledger().cash

    # -- trading

    def price(self, symbol: str, bid: str, ask: str) -> None:
        """Make a price, and return once the product has taken it."""

        def taken() -> bool:
            self.simulator.quote(symbol, bid, ask)  # again: a far jump counts once confirmed
            return self.book.bids().get(symbol) == Decimal(bid)

        eventually(taken, seconds=RECOVERY_SECONDS)

    def hold(
        self, count: int, symbol: str = "AAPL", *, side: Word = "long", plan: Mapping[str, Any] = PLAN
    ) -> list[int]:
        """Enter positions of 10 at about 100 through the API and return their ids once they are guarded."""
        self.price(symbol, "99.99", "100.01")

        def enter(_: int) -> int:
            return self.desk.enter(
                symbol=symbol, side=side, quantity=Decimal(10), plan=plan, request_id=uuid.uuid4().hex
            )

        with ThreadPoolExecutor(4) as pool:
            orders = set(pool.map(enter, range(count)))
        eventually(lambda: self._guarded(orders) == count, seconds=RECOVERY_SECONDS)
        return [row.position_id for row in self.book.orders() if row.id in orders and row.position_id]

    def _guarded(self, order_ids: Collection[int]) -> int:
        held = {row.position_id for row in self.book.orders() if row.id in order_ids}
        return sum(row.bracket == "active" for row in self.book.positions() if row.id in held)

    def breach(self, symbol: str = "AAPL") -> None:
        """Push a price beyond every stop, once, and do not wait for anything."""
        self.simulator.quote(symbol, *STOPPED)

    def slow_broker(self, seconds: float) -> None:
        """Let every order take this long to be accepted, so that a burst is a while under way."""
        self.simulator.fault(kind="latency", seconds=str(seconds), match={"method": "POST", "path": "/v2/orders"})

    # -- looking

    def exits(self, position_ids: Collection[int]) -> list[OrderRow]:
        """Return the exit orders of positions."""
        return [row for row in self.book.orders() if row.intent == "exit" and row.position_id in position_ids]

    def await_exits_under_way(self, position_ids: Collection[int], *, filled: int = 1) -> None:
        """Return as soon as some exits are filled, when others should still be on their way."""
        eventually(
            lambda: sum(row.state == "filled" for row in self.exits(position_ids)) >= filled,
            seconds=RECOVERY_SECONDS,
            poll=0.005,
        )

    def await_closed(self, position_ids: Collection[int], *, seconds: float = RECOVERY_SECONDS) -> None:
        """Return once the positions are closed and nothing is under way."""

        def closed() -> bool:
            states = {row.id: row.status for row in self.book.positions()}
            return all(states[id_] == "closed" for id_ in position_ids) and self.is_quiet()

        eventually(closed, seconds=seconds)

    def await_scanned(self, symbol: str = "AAPL") -> None:
        """Return once the latest price of a symbol was looked at."""

        def scanned() -> bool:
            rows = self.book.query(
                "SELECT i.symbol, q.dirty FROM positions_quote q JOIN positions_instrument i ON i.id = q.instrument_id"
            )
            return not next(row["dirty"] for row in rows if row["symbol"] == symbol)

        eventually(scanned, seconds=20)

    def is_quiet(self) -> bool:
        """Say whether every order has ended and every end was looked at."""
        return not self.book.query(
            "SELECT 1 FROM orders_order"
            " WHERE news OR state NOT IN ('filled', 'cancelled', 'rejected', 'expired') LIMIT 1"
        )

    def differences(self) -> list[str]:
        """Return how broker and database differ."""
        return compare_now(simulator=self.simulator, book=self.book, opening_cash=self.opening_cash)

    def reasons(self, position_ids: Sequence[int]) -> dict[int, list[str]]:
        """Return the reasons of the filled exits by position."""
        found: dict[int, list[str]] = {id_: [] for id_ in position_ids}
        for row in self.exits(position_ids):
            if row.state == "filled" and row.position_id is not None:
                found[row.position_id].append(row.reason)
        return found

    def alerts(self, kind: str) -> list[dict[str, Any]]:
        """Return the alerts of a kind."""
        return [row for row in self.book.query("SELECT * FROM alerts_alert ORDER BY id") if row["kind"] == kind]

    def assert_left_once(self, position_ids: Sequence[int], reason: str = "stop_loss") -> None:
        """Every position has one exit order, filled for this reason, and broker and database agree on all of it."""
        exits = self.exits(position_ids)
        assert {row.reason for row in exits} == {reason}
        assert Counter(row.state for row in exits) == {"filled": len(position_ids)}
        assert Counter(row.position_id for row in exits) == Counter(position_ids)
        assert self.differences() == []

    # -- breaking

    def kill(self, *names: str) -> None:
        """Kill processes with their children at once; the supervisor replaces them."""
        for name in names:
            self.stack.kill(name, signal.SIGKILL, group=True)

    def await_running(self) -> None:
        """Return once every process runs."""
        eventually(lambda: {row["state"] for row in self.stack.status()} == {"RUNNING"}, seconds=RECOVERY_SECONDS)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Freeze a process with its children for a while: it lives, holds what it holds, and does nothing."""
        group = os.getpgid(next(row["pid"] for row in self.stack.status() if row["name"] == name))
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def forget_all_messages(self) -> None:
        """Empty Redis."""
        with redis.Redis.from_url(self.redis_url) as connection:
            connection.flushall()


def eventually(check: Callable[[], bool], *, seconds: float, poll: float = POLL_SECONDS) -> None:
    """Return once `check` holds; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {check.__qualname__}"
        time.sleep(poll)
