"""A replay as tables for the eye: exits, totals by reason, and plans side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import IO, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exitmgr.replay.compare import Difference, Scenario, differences
from exitmgr.replay.results import Exit, Outcome, Totals, rounded, spell

_WIDTH: Final = 132  #: of what is no terminal
_DIFFERENCES_SHOWN: Final = 20
_CENT: Final = Decimal("0.01")
_SATOSHI: Final = Decimal("1e-8")


def print_replay(outcomes: Sequence[Outcome], totals: Totals, *, to: IO[str], most: int | None) -> None:
    """Print the exits, at most so many of them, what is still held, and the totals."""
    console = _console(to)
    rows = [(outcome, exit_) for outcome in outcomes for exit_ in outcome.exits]
    console.print(_exits(rows[:most]))
    if most is not None and len(rows) > most:
        console.print(Text(f"... and {len(rows) - most:,} more exits; --json and --out FILE have them all"))
    held = [outcome for outcome in outcomes if outcome.remaining]
    if held:
        console.print(_held(held[:most]))
    console.print(_totals(totals))
    console.print(Text(_sentence(totals)))


def print_comparison(scenarios: Sequence[Scenario], *, to: IO[str], most: int | None) -> None:
    """Print the totals of each plan, and the positions on which they differ most."""
    console = _console(to)
    totals = {scenario.name: scenario.totals for scenario in scenarios}
    console.print(_side_by_side(totals))
    console.print(_reasons_side_by_side(totals))
    apart = sorted(
        (difference for difference in differences(scenarios) if difference.spread),
        key=lambda difference: -difference.spread,
    )
    if not apart:
        console.print(Text("Every position ends the same under each plan."))
        return
    shown = apart[: _DIFFERENCES_SHOWN if most is not None else None]
    console.print(_differences(shown, [scenario.name for scenario in scenarios]))
    if len(apart) > len(shown):
        console.print(Text(f"... and {len(apart) - len(shown):,} more differ; --json and --out FILE have them all"))


def _console(to: IO[str]) -> Console:
    narrow = to.isatty() and "COLUMNS" not in os.environ
    return Console(file=to, width=None if narrow else _WIDTH, highlight=False, markup=False, emoji=False)


def _exits(rows: Sequence[tuple[Outcome, Exit]]) -> Table:
    table = _table("Exits", "position", "symbol", "side", "reason", "ts", numbers=_EXIT_NUMBERS)
    for outcome, exit_ in rows:
        holding = outcome.holding
        level = "" if exit_.trigger_price is None else _price(exit_.trigger_price)
        table.add_row(
            *_plain(holding.id, holding.symbol, holding.side.word, exit_.reason, exit_.ts),
            level,
            _price(exit_.exit_price),
            spell(exit_.quantity),
            *_coloured(exit_.realized_pnl, exit_.realized_pct),
        )
    return table


_EXIT_NUMBERS: Final = ("level", "exit", "qty", "P&L", "%")


def _held(outcomes: Sequence[Outcome]) -> Table:
    table = _table("Still held at the end", "position", "symbol", "side", numbers=("qty", "last price", "open P&L"))
    for outcome in outcomes:
        holding = outcome.holding
        last = "no bars" if outcome.last_price is None else _price(outcome.last_price)
        table.add_row(
            *_plain(holding.id, holding.symbol, holding.side.word),
            spell(outcome.remaining),
            last,
            *_coloured(outcome.open_pnl),
        )
    return table


def _totals(totals: Totals) -> Table:
    table = _table("Exits by reason", "reason", numbers=("exits", "P&L"))
    for reason, (count, earned) in totals.by_reason.items():
        table.add_row(*_plain(reason), f"{count:,}", *_coloured(earned))
    table.add_section()
    table.add_row("all", f"{totals.exits:,}", *_coloured(totals.realized_pnl))
    return table


def _sentence(totals: Totals) -> str:
    parts = [f"{totals.positions:,} positions, {totals.closed:,} closed"]
    if totals.win_rate_pct is not None:
        parts.append(f"{_two(totals.win_rate_pct)} % of these won")
    if totals.average_r is not None:
        parts.append(f"{_two(totals.average_r)} R on average")
    if totals.worst_pnl is not None:
        parts.append(f"worst {_two(totals.worst_pnl)} ({totals.worst_position})")
    if totals.positions > totals.closed:
        parts.append(f"what is still held stands at {_two(totals.open_pnl)}")
    return ", ".join(parts) + "."


def _side_by_side(totals: dict[str, Totals]) -> Table:
    table = _table("Plans", "", numbers=tuple(totals))
    known = totals.values()
    table.add_row("P&L realised", *(_coloured(each.realized_pnl)[0] for each in known))
    table.add_row("P&L open", *(_coloured(each.open_pnl)[0] for each in known))
    table.add_row("closed", *(f"{each.closed:,} of {each.positions:,}" for each in known))
    table.add_row("won, %", *(_two_or_dash(each.win_rate_pct) for each in known))
    table.add_row("R on average", *(_two_or_dash(each.average_r) for each in known))
    table.add_row("worst position", *(_two_or_dash(each.worst_pnl) for each in known))
    return table


def _reasons_side_by_side(totals: dict[str, Totals]) -> Table:
    table = _table("Exits by reason", "reason", numbers=tuple(totals))
    for reason in sorted({reason for each in totals.values() for reason in each.by_reason}):
        counts = [each.by_reason.get(reason, (0, Decimal(0)))[0] for each in totals.values()]
        table.add_row(*_plain(reason), *(f"{count:,}" for count in counts))
    return table


def _differences(found: Sequence[Difference], names: Sequence[str]) -> Table:
    table = _table("Positions on which the plans differ most", "position", numbers=tuple(names))
    for difference in found:
        cells = []
        for name in names:
            cell = _coloured(difference.pnl[name])[0]
            cell.append(f"  {difference.reason[name] or 'held'}", style="dim")
            cells.append(cell)
        table.add_row(*_plain(difference.position), *cells)
    return table


def _table(title: str, *words: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for word in words:
        table.add_column(Text(word), overflow="fold")
    for number in numbers:
        table.add_column(Text(number), justify="right", overflow="fold")
    return table


def _plain(*values: object) -> Iterator[Text]:
    return (Text(str(value)) for value in values)


def _coloured(*numbers: Decimal) -> list[Text]:
    return [Text(_two(number), style="red" if number < 0 else "green" if number > 0 else "") for number in numbers]


def _two(number: Decimal) -> str:
    return f"{rounded(number, to=_CENT):,}"


def _two_or_dash(number: Decimal | None) -> str:
    return "-" if number is None else _two(number)


def _price(number: Decimal) -> str:
    """Return a price with what a market shows; the exact one is in the JSON lines."""
    return spell(rounded(number, to=_SATOSHI))
