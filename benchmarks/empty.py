"""The empty task itself, in a module that a bare worker can load."""

from __future__ import annotations

from config.celery import app

TASK = "bench.empty"


@app.task(name=TASK)
def empty(**_later: object) -> None:
    """Do nothing."""
