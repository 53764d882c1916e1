"""The feed process against the simulated broker: prices arrive, through outages too, and it stops when told."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote as escape

import pytest
import redis
from django.conf import settings
from django.db import connection, transaction

from positions.follow import Bell, PriceFollower
from positions.models import Account, Instrument, Quote
from positions.queries import followed_symbols
from tests.simulator.box import Box, eventually, start_box

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Run one simulated broker for the module."""
    box = start_box(tmp_path_factory.mktemp("box"))
    yield box
    box.stop()


@pytest.fixture
def account(transactional_db: None, box: Box) -> Account:
    """Return an account at the simulated broker, which quotes AAPL and MSFT."""
    now = datetime.now(UTC)
    Instrument.objects.create(symbol="AAPL")
    Instrument.objects.create(symbol="MSFT")
    return Account.objects.create(
        name="paper", broker="paper", base_url=box.url, credentials={"key": box.key, "secret": box.secret},
        created_at=now, updated_at=now,
    )  # fmt: skip


class Running:
    """A follower in a thread of its own."""

    def __init__(self) -> None:
        self.rings = 0
        self.follower = PriceFollower(clock=lambda: datetime.now(UTC), ring=self._ring)
        self.thread = threading.Thread(target=self.follower.run)
        self.thread.start()

    def _ring(self) -> None:
        self.rings += 1

    def stop(self) -> None:
        self.follower.stop()
        self.thread.join(timeout=15)
        assert not self.thread.is_alive()


@pytest.fixture
def running(account: Account) -> Iterator[Running]:
    """Run the follower during a test."""
    running = Running()
    yield running
    running.stop()


def becomes(box: Box, symbol: str, bid: str, *, within: float = 10) -> Quote:
    """Quote a price until it has reached the database: a stream that just connects may miss the first."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        box.quote(symbol, bid, str(Decimal(bid) + Decimal("0.1")))
        time.sleep(0.1)
        found = Quote.objects.filter(instrument__symbol=symbol, bid=Decimal(bid)).first()
        if found is not None:
            return found
    raise AssertionError(f"{symbol} never became {bid}")


def test_prices_reach_the_quotes_and_ring_the_scan(box: Box, running: Running) -> None:
    quote = becomes(box, "AAPL", "150.25")

    assert (quote.ask, quote.source, quote.dirty) == (Decimal("150.35"), "paper:paper", True)
    assert quote.source_at <= quote.received_at
    assert eventually(lambda: running.rings) >= 1
    assert not Quote.objects.filter(instrument__symbol="MSFT").exists()


def test_an_instrument_that_is_added_is_followed(box: Box, running: Running) -> None:
    becomes(box, "AAPL", "150")
    Instrument.objects.create(symbol="IBM")

    assert becomes(box, "IBM", "190").bid == 190


def test_prices_go_on_after_the_database_dropped_every_session(box: Box, running: Running) -> None:
    becomes(box, "AAPL", "150")
    for price in ("151", "152"):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
            )
            assert cursor.rowcount > 0
        assert becomes(box, "AAPL", price).bid == Decimal(price)


def test_what_could_not_be_written_is_kept(box: Box, running: Running, caplog: pytest.LogCaptureFixture) -> None:
    becomes(box, "AAPL", "150")
    with caplog.at_level(logging.WARNING), transaction.atomic():
        Quote.objects.select_for_update().get()  # held for longer than the writer waits for a lock
        box.quote("AAPL", "140", "140.1")
        box.quote("AAPL", "148", "148.1")
        eventually(lambda: "quotes_wait source=paper:paper" in caplog.text, within=10)

    def written() -> bool:
        return Quote.objects.get().bid == 148

    eventually(written, within=10)
    assert Quote.objects.get().bid_low == 140


def test_a_changed_address_is_followed(box: Box, account: Account, running: Running, tmp_path: Path) -> None:
    becomes(box, "AAPL", "150")
    other = start_box(tmp_path)
    try:
        account.base_url, account.updated_at = other.url, datetime.now(UTC)
        account.credentials = {"key": other.key, "secret": other.secret}
        account.save()

        assert becomes(other, "AAPL", "155").bid == 155
    finally:
        other.stop()


@pytest.mark.parametrize("_case", ["a broker nobody knows", "credentials no key opens"])
def test_an_account_that_cannot_be_followed_does_not_stop_the_others(
    box: Box, account: Account, caplog: pytest.LogCaptureFixture, _case: str
) -> None:
    now = datetime.now(UTC)
    bad = Account.objects.create(name="bad", broker="paper", base_url=box.url, created_at=now, updated_at=now)
    if _case == "a broker nobody knows":
        Account.objects.filter(pk=bad.pk).update(broker="robinson")
    else:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE positions_account SET credentials = %s WHERE id = %s", [os.urandom(64), bad.pk])
    running = Running()
    try:
        assert becomes(box, "AAPL", "151").bid == 151
        time.sleep(2.2)  # one more look at the accounts
    finally:
        running.stop()

    assert caplog.text.count("account_not_followed account=bad") == 1


@pytest.mark.django_db
def test_held_symbols_are_followed_even_if_they_cannot_be_traded_any_more() -> None:
    now = datetime.now(UTC)
    account = Account.objects.create(name="a", broker="paper", created_at=now, updated_at=now)
    for symbol, tradable in (("FREE", True), ("HELD", False), ("SOLD", False), ("NEVER", False)):
        instrument = Instrument.objects.create(symbol=symbol, tradable=tradable)
        if symbol in ("HELD", "SOLD"):
            account.positions.create(
                instrument=instrument, side=1, quantity=1, entry_cost=1, opened_at=now,
                status="open" if symbol == "HELD" else "closed", closed_at=None if symbol == "HELD" else now,
            )  # fmt: skip

    assert followed_symbols() == {"FREE", "HELD"}


def test_a_bell_that_hangs_holds_nobody_up_and_many_rings_become_one() -> None:
    started, going_on = threading.Event(), threading.Event()
    rings: list[int] = []

    def ring() -> None:
        rings.append(1)
        started.set()
        going_on.wait(5)

    bell = Bell(ring)
    bell.ring()
    assert started.wait(2)
    began = time.monotonic()
    for _ in range(1_000):
        bell.ring()
    assert time.monotonic() - began < 1
    going_on.set()
    eventually(lambda: len(rings) == 2)
    bell.close()

    assert len(rings) == 3  # closing rings a last time


def test_a_bell_survives_a_failing_ring(caplog: pytest.LogCaptureFixture) -> None:
    rings: list[int] = []

    def ring() -> None:
        rings.append(1)
        if len(rings) == 1:
            raise ConnectionError("no Redis")

    bell = Bell(ring)
    bell.ring()
    eventually(lambda: rings)
    bell.ring()
    eventually(lambda: len(rings) == 2)
    bell.close()

    assert "bell_failed" in caplog.text


@pytest.fixture
def quiet_redis() -> Iterator[redis.Redis]:
    """Return a Redis database that no worker listens to."""
    client = redis.Redis.from_url(settings.REDIS_URL.rpartition("/")[0] + "/15")
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


def test_the_command_rings_the_scan_and_ends_cleanly_on_sigterm(
    box: Box, account: Account, quiet_redis: redis.Redis
) -> None:
    database = connection.settings_dict
    address = f"{escape(database['HOST'], safe='')}:{database['PORT']}/{database['NAME']}"
    environment = {
        **os.environ,
        "DATABASE_URL": f"postgres://{escape(database['USER'])}:{escape(database['PASSWORD'])}@{address}",
        "REDIS_URL": settings.REDIS_URL.rpartition("/")[0] + "/15",
    }
    process = subprocess.Popen(
        [sys.executable, "manage.py", "feed"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        becomes(box, "AAPL", "152", within=20)
        eventually(lambda: quiet_redis.llen("exitmgr:scan"))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0, log
    assert "prices source=paper:paper symbols=2 ticks=" in log
    assert "Traceback" not in log
