"""`python -m benchmarks [names] [--json]`: runs benchmarks on a stack of their own and prints what they measured.

Figures are ratios taken side by side in one run wherever they can be, because machines are noisy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.secrets import load_secrets
from config.simulator import Simulator
from config.stack import Stack, StackError

#: name -> what it shows; the module of the same name has `run(bench)`.
BENCHMARKS: Final = {
    "lanes": "stops overtake what waits, and start at once while slow entries run",
    "budget": "at a broker's rate limit stops leave first, and nobody is turned away",
    "path": "from a price to the broker's acceptance, beside an empty Celery task",
    "scan": "the cost of a scan follows what fires, not what is held",
    "trails": "a new high costs one row, however many trailing stops follow it",
    "ingest": "price updates a second, from ticks to committed quotes",
    "replay": "bars a second positions are replayed over",
}
#: Limits of the risk checks that a backlog would meet.
LIMITS_LIFTED: Final = {
    "EXITMGR_TRADING__TRADE_EXIT__BRACKET_ORDERS__MAX_ACTIVE_BRACKETS": "1000000",
    "EXITMGR_TRADING__EXIT_MANAGER__RISK__DUPLICATE_SECONDS": "0",
}
#: These need no stack.
PURE: Final = {"replay"}


def main() -> int:
    """Run the named benchmarks, or all of them, and return the exit code."""
    parser = argparse.ArgumentParser(prog="script/bench", description="Measure; see docs/benchmarks.md.")
    parser.add_argument("names", nargs="*", metavar="name", help="; ".join(f"{k}: {v}" for k, v in BENCHMARKS.items()))
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--var", type=Path, default=Path("var/bench"), help="folder of the stack (emptied first)")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    if (chosen.var / "run").exists() and not Stack(chosen.var).is_up():
        shutil.rmtree(chosen.var)
    try:
        results = _measure(chosen.names or list(BENCHMARKS), var=chosen.var.absolute())
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps(results))
    return 0


def _measure(names: list[str], *, var: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in names:
        if name in PURE:
            _run(name, None, results)
    names = [name for name in names if name not in PURE]
    if not names:
        return results
    stack = Stack(var)
    stack.start(lambda text: print(f"# {text}", file=sys.stderr))
    try:
        os.environ.update(stack.environment(), DJANGO_SETTINGS_MODULE="config.settings", EXITMGR_LOG_LEVEL="WARNING")
        os.environ["EXITMGR_STATEMENT_TIMEOUT_MS"] = "120000"  # making a million rows is one statement
        os.environ.update(LIMITS_LIFTED)
        import django

        django.setup()
        logging.disable(logging.INFO)
        from benchmarks.ground import Ground

        token = load_secrets(var=var).simulator_control_token
        ground = Ground(stack, Simulator(url=stack.urls()["simulator"], control_token=token))
        for name in names:
            _run(name, ground, results)
    finally:
        stack.stop()
    return results


def _run(name: str, ground: Any, results: dict[str, Any]) -> None:
    print(f"\n{name}: {BENCHMARKS[name]}", file=sys.stderr)
    results[name] = importlib.import_module(f"benchmarks.{name}").run(ground)
    _show(name, results[name])


def _show(name: str, result: Mapping[str, Any]) -> None:
    print(name)
    width = max(map(len, result), default=0)
    for key, value in result.items():
        text = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        print(f"  {key.ljust(width)}  {text}")


if __name__ == "__main__":
    sys.exit(main())
