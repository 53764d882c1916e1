"""Command line of the demonstration: a fresh stack, three market days, a verdict; the exit code is the verdict."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psycopg
import requests
from rich.console import Console
from websockets.exceptions import WebSocketException

from config.demo.book import Book
from config.demo.desk import Desk, DeskRefused, make_token
from config.demo.display import Display
from config.demo.home import DIRECTORY, NotOurs, empty_home
from config.demo.outcomes import Untold, as_json, total
from config.demo.run import Course, Run, Stuck
from config.demo.scenes import SCENES
from config.demo.tape import Tape
from config.embedded import EmbeddedError, service_urls
from config.ports import PortsError
from config.secrets import SecretsError, load_secrets
from config.simulator import ControlRefused, Simulator
from config.stack import Stack, StackError
from config.stack.supervision import SupervisionError

#: The demonstration brings its own servers, whatever the environment says of others.
FOREIGN = {"DATABASE_URL", "REDIS_URL", "EXITMGR_VAR", "EXITMGR_STACK", "DEMO_BEGAN"}
#: Years lie between two scenes and seconds between their replays, so the clock is no measure of haste here.
UNHURRIED = {
    "EXITMGR_TRADING__EXIT_MANAGER__EXIT_COOLDOWN_SECONDS": "0",
    "EXITMGR_TRADING__EXIT_MANAGER__RISK__MAX_AUTOMATIC_ENTRIES_PER_MINUTE": "null",
}
MISTAKES = (StackError, SupervisionError, EmbeddedError, PortsError, SecretsError, NotOurs)
OUTSIDE = (requests.RequestException, psycopg.Error, WebSocketException, OSError)
FAILURES = (Stuck, Untold, DeskRefused, ControlRefused, *OUTSIDE)
NARROW = 100  #: characters a line has where there is no terminal to ask


def main() -> int:
    """Run the demonstration: 0 when every check passed, 1 when one did not, 2 when it could not be run."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last, everything else to stderr")
    parser.add_argument("--var", type=Path, default=DIRECTORY, help="folder of data, emptied first (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end, to look around")
    asked = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(stderr=asked.json, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = NARROW
    started = time.monotonic() - _seconds_already_spent()
    try:
        return _run(console, var=asked.var.absolute(), keep=asked.keep, as_object=asked.json, started=started)
    except MISTAKES as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except FAILURES as error:
        sys.stderr.write(f"error: {error}\n")
        if asked.json:
            sys.stdout.write(json.dumps({"passed": False, "error": str(error)}) + "\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


def _run(console: Console, *, var: Path, keep: bool, as_object: bool, started: float) -> int:
    environ = {name: value for name, value in os.environ.items() if name not in FOREIGN} | UNHURRIED
    display = Display(console, began=started)
    empty_home(var, environ=environ)
    stack = Stack(var, environ=environ)
    kept = False
    try:
        stack.start(display.say, attached=not keep)
        ready_at = time.monotonic()
        display.say("Ready")
        course = _play(stack, display, environ=environ)
        memory = stack.pss()
        timings = {
            "seconds_to_ready": ready_at - started,
            "seconds_to_first_exit": None if course.first_exit_at is None else course.first_exit_at - started,
            "seconds_in_all": time.monotonic() - started,
        }
        display.see_verdict(course.outcomes, course.checks, _figures(course, timings, memory))
        kept = keep
    finally:
        if not kept:
            _stop(stack, display)
    _say_where_next(console, stack if kept else None)
    if as_object:
        sys.stdout.write(json.dumps(as_json(_report(course, timings, memory))) + "\n")
    return 0 if all(check.passed for check in course.checks) else 1


def _play(stack: Stack, display: Display, *, environ: Mapping[str, str]) -> Course:
    urls = stack.urls()
    secrets = load_secrets(var=stack.var, environ=environ)
    database_url = (service_urls(var=stack.var, environ=environ) or {})["DATABASE_URL"]
    desk = Desk(url=urls["web"], token=make_token({**environ, **stack.environment()}))
    simulator = Simulator(url=urls["simulator"], control_token=secrets.simulator_control_token)
    book = Book(database_url)
    login = {"key": secrets.simulator_key, "secret": secrets.simulator_secret}
    try:
        with Tape(url=urls["simulator"], **login) as tape, display:
            run = Run(desk=desk, simulator=simulator, book=book, tape=tape, spectator=display)
            return run.play(SCENES)
    finally:
        book.close()


def _stop(stack: Stack, display: Display) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
    display.say("Stopping")
    stack.stop()


def _figures(course: Course, timings: Mapping[str, float | None], memory: Mapping[str, int]) -> dict[str, str]:
    first = timings["seconds_to_first_exit"]
    return {
        "orders, fills, retries": f"{course.orders}, {course.fills}, {total(course.outcomes).retries}",
        "time": f"ready after {timings['seconds_to_ready']:.1f} s"
        + (f", first exit after {first:.1f} s" if first is not None else "")
        + f", {timings['seconds_in_all']:.1f} s in all",
        "memory": f"{sum(memory.values()) / 2**20:.0f} MB in {len(memory)} programs",
    }


def _report(course: Course, timings: Mapping[str, float | None], memory: Mapping[str, int]) -> dict[str, object]:
    sums = total(course.outcomes)
    by_scene = {scene.name: [o for o in course.outcomes if o.scene == scene.name] for scene in SCENES}
    return {
        "passed": all(check.passed for check in course.checks),
        "positions": [_fields(outcome) | {"exits": [_fields(e) for e in outcome.exits]} for outcome in course.outcomes],
        "scenes": {name: _fields(total(outcomes)) for name, outcomes in by_scene.items()},
        "totals": _fields(sums) | {"orders": course.orders, "fills": course.fills},
        "latencies": {"price_to_accepted_ms": sums.accepted_ms, "market_to_broker_ms": sums.market_ms},
        "checks": [_fields(check) | {"passed": check.passed} for check in course.checks],
        "timings": timings,
        "memory_bytes": memory,
    }


def _fields(record: object) -> dict[str, object]:
    """Return a slotted record as a dictionary, nested records left as they are."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


def _say_where_next(console: Console, kept: Stack | None) -> None:
    if kept is None:
        console.print("Next: [bold]script/up[/bold] keeps the same stack running, with its admin, API docs and Flower.")
        return
    secrets = load_secrets(var=kept.var)
    urls = kept.urls()
    console.print(f"  admin     {urls['admin']}   admin / {secrets.admin_password}", soft_wrap=True)
    console.print(f"  API docs  {urls['api_docs']}", soft_wrap=True)
    console.print(f"  Flower    {urls['flower']}   admin / {secrets.flower_password}", soft_wrap=True)
    console.print(f"Still running; stop it with: [bold]script/up down --var {kept.var}[/bold]", soft_wrap=True)


def _seconds_already_spent() -> float:
    """Return how long script/demo had been at work before this process, by the wall clock it noted."""
    try:
        return max(time.time() - float(os.environ["DEMO_BEGAN"]), 0)
    except (KeyError, ValueError):
        return 0


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
