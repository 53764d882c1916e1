"""Following the order update streams of every account: one thread each, a snapshot after each connect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from django.db import Error, close_old_connections

from orders.brokers.protocol import OrderReport
from orders.errors import BrokerError
from orders.submit import Connect
from orders.sync import distrust_account
from orders.updates import apply_reports
from positions.doorbells import ring
from positions.models import Account

log = logging.getLogger(__name__)

ACCOUNTS_LOOK_SECONDS = 2.0
RESTART_SECONDS = 1.0


class Follower:
    """Keeps one thread per account with a stream until it is told to stop."""

    def __init__(self, *, connect: Connect, clock: Callable[[], datetime]) -> None:
        self._connect = connect
        self._clock = clock
        self._stopping = threading.Event()
        self._threads: dict[int, threading.Thread] = {}

    def stop(self) -> None:
        """Let every thread end at its next look."""
        self._stopping.set()

    def run(self) -> None:
        """Follow until stopped, taking up accounts that are added later; a database that is away is waited for."""
        while not self._stopping.is_set():
            try:
                close_old_connections()
                self._take_up_new_accounts()
            except Error as error:
                log.warning("follow_lost_database error=%s", error)
            self._stopping.wait(ACCOUNTS_LOOK_SECONDS)
        for thread in self._threads.values():
            thread.join(timeout=5)

    def _take_up_new_accounts(self) -> None:
        for account_id in Account.objects.values_list("pk", flat=True):
            held = self._threads.get(account_id)
            if held is None or not held.is_alive():
                thread = threading.Thread(
                    target=self._follow, args=(account_id,), name=f"account-{account_id}", daemon=True
                )
                self._threads[account_id] = thread
                thread.start()

    def _follow(self, account_id: int) -> None:
        while not self._stopping.is_set():
            try:
                broker = self._connect([account_id])(account_id)
                if not broker.capabilities.update_stream:
                    self._stopping.wait()
                    return
                broker.watch_orders(
                    on_reports=lambda reports: self._hear(account_id, reports),
                    on_connected=lambda: self._catch_up(account_id),
                    until=self._stopping.is_set,
                )
            except (BrokerError, Error) as error:
                log.warning("stream_lost account_id=%s error=%s", account_id, error)
            self._stopping.wait(RESTART_SECONDS)

    def _hear(self, account_id: int, reports: Sequence[OrderReport]) -> None:
        """Book reports; while the database is away they are kept, because nobody says them twice."""
        while not self._stopping.is_set():
            try:
                close_old_connections()
                applied = apply_reports(account_id=account_id, reports=reports, now=self._clock())
            except Error as error:
                log.warning("updates_wait account_id=%s reports=%s error=%s", account_id, len(reports), error)
                self._stopping.wait(RESTART_SECONDS)
                continue
            for report in applied.unmatched:
                log.info("order_of_somebody_else account_id=%s broker_order_id=%s", account_id, report.broker_order_id)
            return

    def _catch_up(self, account_id: int) -> None:
        """Nothing said while we were away is repeated: have every working order asked about."""
        close_old_connections()
        try:
            quiet = distrust_account(account_id=account_id)
        except Error as error:
            log.warning("catch_up_failed account_id=%s error=%s", account_id, error)
            return
        log.info("stream_connected account_id=%s asking_about=%s", account_id, quiet)
        ring("exitmgr.reconcile", queue="maintenance", kwargs={"account_id": account_id}, expires=60)
        if quiet:
            ring("orders.sync", queue="maintenance")
