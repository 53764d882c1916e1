"""The replay from a command line: options in, exits out; every mistake is one line and exit code 2.

It needs no running service, no settings and no Django, so `manage.py` comes here before it loads any of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from exitmgr.replay.bar_files import read_bars
from exitmgr.replay.charts import choose, figure_of
from exitmgr.replay.compare import Scenario, comparison_as_json
from exitmgr.replay.engine import Ready, Settings, prepare, replay
from exitmgr.replay.errors import InvalidInput
from exitmgr.replay.holdings import read_alternative, read_holdings
from exitmgr.replay.report import write_report
from exitmgr.replay.results import exits_as_json
from positions.calendars import UnknownCalendar, require_calendar

ADVERSE_FIRST: Final = "adverse-first"
FAVOURABLE_FIRST: Final = "favourable-first"
_ROWS_ON_SCREEN: Final = 100
_NOTES_SHOWN: Final = 5
_LONG: Final = 2_000  #: positions from which on progress is shown


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}; see --help")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--plan", required=True, type=Path, metavar="FILE", help="the positions and their plans, JSON")
    parser.add_argument("--bars", required=True, type=Path, metavar="FILE", help="CSV or Parquet")
    parser.add_argument(
        "--path",
        choices=(ADVERSE_FIRST, FAVOURABLE_FIRST),
        default=ADVERSE_FIRST,
        help="which extreme of a bar comes first (default: %(default)s)",
    )
    parser.add_argument("--lot", default="0", help="partial exits are multiples of it (default: 0, none)")
    parser.add_argument("--fee-bps", default="0", help="paid on the traded value, in and out (default: 0)")
    parser.add_argument("--calendar", default="XNYS", help="whose session closes count (default: %(default)s)")
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="the same positions under other plans, or one plan for all of them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report with charts")
    parser.add_argument("--chart", nargs="+", default=[], metavar="ID", help="which positions the report draws")
    parser.add_argument("--charts", type=int, default=20, metavar="N", help="how many it draws if none is named")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = _OneLineParser(prog="manage.py replay", description="Run exit plans over historical bars.")
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments), stdout=sys.stdout, stderr=sys.stderr)
        sys.stdout.flush()
    except InvalidInput as error:
        sys.stderr.write(f"error: {_in_one_line(error)}\n")
        return 2
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def run(options: argparse.Namespace, *, stdout: IO[str], stderr: IO[str]) -> None:
    """Replay and write what came of it.

    :raises InvalidInput: an option or a file was refused.
    """
    settings = _settings(options)
    held = read_holdings(options.plan)
    sources = [options.plan, *options.compare]
    versions = [held, *(read_alternative(path, basis=held) for path in options.compare)]
    series = read_bars(options.bars)
    names = _names(sources)
    ready = [
        prepare(version, series, settings=settings, source=str(source))
        for version, source in zip(versions, sources, strict=True)
    ]
    began = time.perf_counter()
    with _progress(sum(map(len, ready)), stderr) as step:
        scenarios = [
            Scenario(name=name, outcomes=tuple(replay(each, settings=settings, progress=step)))
            for name, each in zip(names, ready, strict=True)
        ]
    elapsed = time.perf_counter() - began
    _write(scenarios, options, stdout=stdout)
    if options.html is not None:
        _write_html(scenarios, ready, options, settings)
    _say(scenarios, stderr=stderr, elapsed=elapsed)


def _settings(options: argparse.Namespace) -> Settings:
    try:
        require_calendar(options.calendar)
    except UnknownCalendar as error:
        raise InvalidInput(f"--calendar: {error}") from None
    return Settings(
        adverse_first=options.path == ADVERSE_FIRST,
        lot=_number(options.lot, "--lot"),
        fee_bps=_number(options.fee_bps, "--fee-bps"),
        calendar=options.calendar,
    )


def _number(text: str, option: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise InvalidInput(f"{option}: must be a number at least 0; got {text!r}")
    return number


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what to call the plans: the names of their files, with the whole path where that is not enough."""
    stems = [path.stem for path in paths]
    names = [str(path) if stems.count(path.stem) > 1 else path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"--compare: {name} is given twice")
    return names


def _write(scenarios: Sequence[Scenario], options: argparse.Namespace, *, stdout: IO[str]) -> None:
    with _opened(options.out, "--out") if options.out is not None else contextlib.nullcontext(stdout) as to:
        if options.json:
            for line in _lines(scenarios):
                to.write(json.dumps(line, ensure_ascii=False) + "\n")
            return
        from exitmgr.replay.tables import print_comparison, print_replay

        most = None if options.out is not None else _ROWS_ON_SCREEN
        if len(scenarios) > 1:
            print_comparison(scenarios, to=to, most=most)
        else:
            print_replay(scenarios[0].outcomes, scenarios[0].totals, to=to, most=most)


def _lines(scenarios: Sequence[Scenario]) -> Iterator[dict[str, Any]]:
    if len(scenarios) > 1:
        return comparison_as_json(scenarios)
    return (line for outcome in scenarios[0].outcomes for line in exits_as_json(outcome))


def _write_html(
    scenarios: Sequence[Scenario], ready: Sequence[Sequence[Ready]], options: argparse.Namespace, settings: Settings
) -> None:
    try:
        chosen = choose(scenarios[0], wanted=options.chart, most=max(0, options.charts))
    except KeyError as error:
        raise InvalidInput(f"--chart: there is no position {error}") from None
    figures = {
        _title(scenarios, scenario, place): figure_of(each[place], scenario.outcomes[place], settings=settings)
        for place in chosen
        for scenario, each in zip(scenarios, ready, strict=True)
    }
    facts = {
        "plans": ", ".join(scenario.name for scenario in scenarios),
        "bars": options.bars.name,
        "path inside a bar": options.path,
        "fee": f"{settings.fee_bps} basis points",
    }
    with _opened(options.html, "--html") as file:
        file.write(write_report(scenarios, figures=figures, facts=facts))


def _title(scenarios: Sequence[Scenario], scenario: Scenario, place: int) -> str:
    name = str(scenario.outcomes[place].holding.id)
    return name if len(scenarios) == 1 else f"{name}, {scenario.name}"


@contextlib.contextmanager
def _opened(path: Path, option: str) -> Iterator[IO[str]]:
    try:
        file = path.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InvalidInput(f"{option}: {path}: {error.strerror or error}") from None
    with file:
        yield file


@contextlib.contextmanager
def _progress(positions: int, stderr: IO[str]) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal when there is much to do."""
    if positions < _LONG or not stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=stderr), transient=True) as bars:
        task = bars.add_task("replaying", total=positions)
        yield lambda: bars.advance(task)


def _say(scenarios: Sequence[Scenario], *, stderr: IO[str], elapsed: float) -> None:
    """Tell what a person should know besides the exits."""
    notes = [
        f"{outcome.holding.id}: {note}"
        for scenario in scenarios
        for outcome in scenario.outcomes
        for note in (*outcome.notes, *(["no bar starts at or after its entry"] if outcome.last_price is None else []))
    ]
    for note in notes[:_NOTES_SHOWN]:
        stderr.write(f"note: position {note}\n")
    if len(notes) > _NOTES_SHOWN:
        stderr.write(f"note: {len(notes) - _NOTES_SHOWN:,} more remarks like these\n")
    outcomes = [outcome for scenario in scenarios for outcome in scenario.outcomes]
    bars = sum(outcome.end - outcome.first for outcome in outcomes)
    held = sum(bool(outcome.remaining) for outcome in outcomes)
    exits = sum(len(outcome.exits) for outcome in outcomes)
    rate = f", {bars / elapsed:,.0f}/s" if elapsed > 0.001 else ""
    stderr.write(
        f"{len(outcomes):,} positions over {bars:,} position-bars in {elapsed:.2f} s{rate}: "
        f"{exits:,} exits, {held:,} still held at the end\n"
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
