"""Owns the one declaration of the processes an installation consists of; supervision derives from it.

A worker's -Q order is its priority, so stops always come before targets, and both before entries.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from config.ports import LOOPBACK
from config.secrets import Secrets

PROGRAM_PORTS = ("simulator", "web", "flower")  #: programs that listen, besides the services
FLOWER_USER = "admin"


class Phase(StrEnum):
    """When a process starts: the programs wait until services answer and the database is migrated."""

    SERVICES = "services"
    PROGRAMS = "programs"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    phase: Phase = Phase.PROGRAMS
    environment: Mapping[str, str] = field(default_factory=dict)  #: beyond what all processes get
    stop_signal: str = "TERM"
    stop_seconds: int = 10  #: then it is killed with its children, which is safe by design
    ready_line: str = ""  #: what it logs once it works; empty when to run is enough


def declare_processes(
    *, var: Path, ports: Mapping[str, int], secrets: Secrets, services: Sequence[str]
) -> list[Process]:
    """Return every process of the installation, services first.

    :param services: the embedded servers to run: "postgres", "redis", both or none.
    """
    python = sys.executable
    serve = [python, "-m", "config.embedded"]
    # interrupting Postgres means: end sessions and save now, rather than wait for clients to leave
    signals = {"postgres": "INT", "redis": "TERM"}
    return [
        *(
            Process(
                name=name,
                argv=[*serve, name, "--keep-port", "--var", str(var)],
                phase=Phase.SERVICES,
                stop_signal=signals[name],
                stop_seconds=20,
            )
            for name in services
        ),
        Process(
            name="simulator",
            argv=[
                *(python, "-m", "orders.brokers.simulator", "--port", str(ports["simulator"])),
                *("--ledger", str(var / "simulator" / "ledger.sqlite3")),
            ],
            environment={
                "SIMULATOR_KEY": secrets.simulator_key,
                "SIMULATOR_SECRET": secrets.simulator_secret,
                "SIMULATOR_CONTROL_TOKEN": secrets.simulator_control_token,
            },
        ),
        Process(
            name="web",
            argv=[
                *(python, "-m", "granian", "--interface", "wsgi", "--workers", "1", "--no-ws"),
                *("--blocking-threads", "4", "--host", LOOPBACK, "--port", str(ports["web"])),
                "config.wsgi:application",
            ],
        ),
        # reserved for stops: a full queue of entries, or a slow target, never delays it
        _worker("stop", queues=("emergency", "stop_loss"), children=2),
        _worker("orders", queues=("emergency", "stop_loss", "take_profit", "entry"), children=2),
        # one task at a time in the worker's own process: no pipe to cross, and no child to pay for
        _worker("scan", queues=("scan",)),
        _worker("maintenance", queues=("maintenance",)),
        Process(name="beat", argv=_celery("beat", app="config.bare")),
        Process(name="feed", argv=[python, "manage.py", "feed", "--skip-checks"]),
        Process(name="updates", argv=[python, "manage.py", "order_updates", "--skip-checks"]),
        Process(
            name="flower",
            argv=[
                *_celery("flower", app="config.bare"),
                f"--address={LOOPBACK}",
                f"--port={ports['flower']}",
                "--read-only",
            ],
            # in the environment, because anyone on the machine may read a command line
            environment={"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{secrets.flower_password}"},
        ),
    ]


def _celery(verb: str, *, app: str = "config") -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, verb]


def _worker(name: str, *, queues: Sequence[str], children: int = 0) -> Process:
    pool = ("--pool", "prefork", "--concurrency", str(children)) if children else ("--pool", "solo")
    return Process(
        name=name,
        argv=[
            *_celery("worker"),
            *("--hostname", f"{name}@%h", "--queues", ",".join(queues), *pool),
            # neither is needed to take tasks, and both have kept workers from resuming after an outage
            *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
        ],
        stop_seconds=35,  # longer than the longest task
        ready_line="ready.",
    )
