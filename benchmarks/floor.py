"""An empty Celery task on a worker of its own: the floor that the path is compared with."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.empty import TASK
from benchmarks.ground import percentile
from config.celery import app
from config.embedded import ROOT

PACED = 300
FLOOD = 4_000


def measure() -> dict[str, Any]:
    """Return publish-to-start latency in milliseconds and tasks per second of an empty task on two processes."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "benchmarks.empty", "worker", "-n", "bench@%h", "-Q", "maintenance",
         "-c", "2", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"],
        cwd=ROOT,
    )  # fmt: skip
    try:
        sent: dict[str, float] = {}
        started: dict[str, float] = {}
        listening = threading.Event()
        done = threading.Event()

        def hear() -> None:
            with app.connection_for_read() as connection:
                receiver = app.events.Receiver(
                    connection,
                    handlers={"task-started": lambda event: started.setdefault(event["uuid"], event["timestamp"])},
                )
                listening.set()
                while not done.is_set():
                    try:
                        for _ in receiver.itercapture(limit=None, timeout=1.0):
                            pass
                    except TimeoutError:
                        continue

        threading.Thread(target=hear, daemon=True).start()
        listening.wait(10)
        _ring(sent, 1)
        _await(sent, started)
        for _ in range(PACED):
            _ring(sent, 1)
            time.sleep(0.01)
        _await(sent, started)
        latencies = [1000 * (started[uuid] - at) for uuid, at in list(sent.items())[1:]]
        flood: dict[str, float] = {}
        begin = time.time()
        _ring(flood, FLOOD)
        published = time.time() - begin
        _await(flood, started)
        rate = FLOOD / (max(started[uuid] for uuid in flood) - begin)
        done.set()
    finally:
        worker.terminate()
        worker.wait()
    return {
        "empty_task_ms_p50": percentile(latencies, 50),
        "empty_task_ms_p99": percentile(latencies, 99),
        "empty_tasks_per_second": rate,
        "published_per_second": FLOOD / published,
    }


def _ring(sent: dict[str, float], count: int) -> None:
    for _ in range(count):
        at = time.time()
        sent[app.send_task(TASK, queue="maintenance").id] = at


def _await(sent: dict[str, float], started: dict[str, float]) -> None:
    deadline = time.monotonic() + 60
    while not started.keys() >= sent.keys():
        if time.monotonic() > deadline:
            raise TimeoutError("empty tasks did not start within a minute")
        time.sleep(0.01)
