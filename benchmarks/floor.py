"""An empty Celery task on a worker of its own: the floor that the path is compared with."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.empty import TASK
from benchmarks.ground import percentile
from config.celery import app
from config.embedded import ROOT

PACED = 300
FLOOD = 4_000

#: When each task began, by its id; filled from the worker's own events.
Started = dict[str, float]


def measure(*, log: Path) -> dict[str, Any]:
    """Return publish-to-start latency in milliseconds and tasks per second of an empty task on two processes."""
    with _worker(log), _listening() as started:
        _await([_ring()], started)  # the worker is up
        paced = []
        for _ in range(PACED):
            paced.append(_ring())
            time.sleep(0.01)
        _await(paced, started)
        begin = time.time()
        flood = [_ring() for _ in range(FLOOD)]
        published = time.time() - begin
        _await(flood, started)
    latencies = [1000 * (started[task] - sent) for task, sent in paced]
    return {
        "empty_task_ms_p50": percentile(latencies, 50),
        "empty_task_ms_p99": percentile(latencies, 99),
        "empty_tasks_per_second": FLOOD / (max(started[task] for task, _ in flood) - begin),
        "published_per_second": FLOOD / published,
    }


@contextmanager
def _worker(log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.empty", "worker", "-n", "bench@%h"]
    command += ["-Q", "maintenance", "-c", "2", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]
    with log.open("wb") as output:
        worker = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


@contextmanager
def _listening() -> Iterator[Started]:
    started: Started = {}
    ready, done = threading.Event(), threading.Event()

    def hear() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(
                connection, handlers={"task-started": lambda event: started.update({event["uuid"]: event["timestamp"]})}
            )
            ready.set()
            while not done.is_set():
                try:
                    for _ in receiver.itercapture(limit=None, timeout=0.5):
                        pass
                except TimeoutError:
                    continue

    listener = threading.Thread(target=hear, daemon=True)
    listener.start()
    ready.wait(10)
    try:
        yield started
    finally:
        done.set()
        listener.join(timeout=5)


def _ring() -> tuple[str, float]:
    """Send one empty task and return its id and when it was sent."""
    sent = time.time()
    return app.send_task(TASK, queue="maintenance").id, sent


def _await(tasks: list[tuple[str, float]], started: Started) -> None:
    deadline = time.monotonic() + 60
    while not all(task in started for task, _ in tasks):
        if time.monotonic() > deadline:
            raise TimeoutError("empty tasks did not start within a minute; see the log of the bench worker")
        time.sleep(0.01)
