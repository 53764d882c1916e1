"""Owns how the demonstration looks: a live picture on a terminal, plain lines elsewhere, tables in both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from config.demo.book import OrderRow, PositionRow
from config.demo.outcomes import Exit, Outcome, Totals, total
from config.demo.run import Check, Moment
from config.demo.scenes import Scene
from config.demo.verdict import MANUAL

NEW_YORK = ZoneInfo("America/New_York")
LATEST = 8  #: exits that the live picture lists
WIDE = 130  #: characters from which the tables show more
#: Name, alignment, and the width of the console from which the column is shown.
COLUMNS: tuple[tuple[str, JustifyMethod, int], ...] = (
    ("#", "right", 0), ("position", "left", 0), ("qty", "right", 90), ("entry", "right", 0), ("stop", "right", 0),
    ("target", "right", 90), ("further targets", "left", WIDE), ("left by", "left", 0), ("sold", "right", 0),
    ("level", "right", 0), ("fill", "right", 0), ("slip bps", "right", 0), ("P&L", "right", 0), ("ms", "right", 0),
    ("market ms", "right", WIDE), ("order", "right", WIDE),
)  # fmt: skip
LEGEND = (
    "level: the price the plan named; slip: fill against level, positive is worse; ms: from the receipt of the price "
    "to the broker's acceptance of the order. A price more than 20 % away counts once a second one confirms it."
)
WIDE_LEGEND = f"{LEGEND} market ms: from the emission of the price to the order's arrival, on the broker's clock."
GAIN, LOSS, FAINT = "green", "red", "bright_black"


class Display:
    """The spectator that writes to a console."""

    def __init__(self, console: Console, *, began: float) -> None:
        self._console = console
        self._began = began
        self._live: Live | None = None
        self._told: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_live()

    def say(self, text: str) -> None:
        """Write one line, with the seconds since the beginning."""
        self._console.print(Text.assemble((f"{time.monotonic() - self._began:6.1f} s  ", FAINT), text), soft_wrap=True)

    def see(self, moment: Moment) -> None:
        """Show a moment: the live picture, or on no terminal a line for each new exit."""
        if not self._console.is_terminal:
            self._tell_new_exits(moment)
            return
        picture = _picture(moment)
        if self._live is None:
            self._live = Live(picture, console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        else:
            self._live.update(picture)

    def see_scene(self, scene: Scene, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write the table of a scene."""
        self._end_live()
        self._console.print()
        self._console.print(_scene_table(scene, number, outcomes, width=self._console.width))
        self._console.print(Padding(_summary(total(outcomes)), (0, 0, 1, 1)))

    def see_verdict(self, outcomes: Sequence[Outcome], checks: Sequence[Check], figures: Mapping[str, str]) -> None:
        """Write the totals and the checks."""
        legend = WIDE_LEGEND if self._console.width >= WIDE else LEGEND
        self._console.print(Padding(Text(legend, style=FAINT), (0, 0, 1, 1)))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        sums = total(outcomes)
        grid.add_row("exits", _reasons(sums))
        grid.add_row("realised P&L", _money(sums.realized_pnl))
        grid.add_row("receipt to acceptance", _quantiles(sums.accepted_ms))
        grid.add_row("emission to broker", _quantiles(sums.market_ms))
        for name, value in figures.items():
            grid.add_row(name, value)
        self._console.rule("[bold]Totals", style=FAINT, align="left")
        self._console.print(Padding(grid, (0, 0, 1, 1)))
        self._console.rule("[bold]Checks", style=FAINT, align="left")
        for check in checks:
            mark = ("  ok      ", GAIN) if check.passed else ("  FAILED  ", f"bold {LOSS}")
            self._console.print(Text.assemble(mark, check.name))
            for difference in check.differences:
                self._console.print(Padding(Text(difference, style=LOSS), (0, 0, 0, 10)))
        self._console.print()

    def _tell_new_exits(self, moment: Moment) -> None:
        held = {row.id: row for row in moment.positions}
        for order in moment.exits:
            if order.state == "filled" and order.id not in self._told and order.position_id in held:
                self._told.add(order.id)
                self.say(f"{_clock(moment.market_time)}  {_told(order, held[order.position_id]).plain}")

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _picture(moment: Moment) -> RenderableType:
    head = Text.assemble(
        (f"Scene {moment.number}  ", FAINT),
        (moment.scene.session, "bold"),
        f"  {moment.scene.title}",
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text("09:30", style=FAINT),
        ProgressBar(total=1, completed=moment.progress, width=48, complete_style="cyan", finished_style="cyan"),
        Text("16:00", style=FAINT),
        Text(_clock(moment.market_time), style="bold"),
    )
    held = {row.id: row for row in moment.positions}
    filled = [order for order in moment.exits if order.state == "filled"]
    latest = [_told(order, held[order.position_id]) for order in filled[-LATEST:] if order.position_id in held]
    still_open = sum(row.status != "closed" for row in moment.positions)
    realized = sum((row.realized_pnl for row in moment.positions), Decimal(0))
    state = Text.assemble(
        ("open ", FAINT),
        f"{still_open:<4}",
        ("exits ", FAINT),
        f"{len(filled):<4}",
        ("realised ", FAINT),
        _money(realized),
    )
    lines: list[RenderableType] = [head, bar, Text(""), _prices(moment), state, Text("")]
    lines += [Padding(line, (0, 0, 0, 2)) for line in latest]
    lines += [Text("")] * (LATEST - len(latest))  # a picture of one height does not jump
    return Group(Text(""), *lines)


def _prices(moment: Moment) -> Text:
    parts: list[Any] = []
    for symbol, price in sorted(moment.prices.items()):
        moved = (price / moment.closes[symbol] - 1) * 100
        parts += [
            (f"{symbol} ", "bold"),
            f"{price:,.2f} ",
            (f"{moved:+.1f} %", GAIN if moved >= 0 else LOSS),
            "    ",
        ]
    return Text.assemble(*parts)


def _told(order: OrderRow, position: PositionRow) -> Text:
    level = f"at {order.trigger_price:,.2f}" if order.trigger_price is not None else ""
    filled = f"filled at {order.fill_price:,.2f}" if order.fill_price is not None else order.state
    return Text.assemble(
        (f"#{position.id:<3}", FAINT),
        f" {position.symbol:<5}{position.word:<6}",
        _reason(order.reason, width=10),
        f" {level:<12} {order.quantity:>4f} {filled}",
    )


def _scene_table(scene: Scene, number: int, outcomes: Sequence[Outcome], *, width: int) -> Table:
    table = Table(
        title=Text.assemble((f" {number}  ", FAINT), (f"{scene.session}  ", "bold"), scene.title),
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 2 if width >= WIDE else 1, 0, 0),
        header_style=FAINT,
    )
    for name, justify, least_width in COLUMNS:
        if width >= least_width:
            table.add_column(name, justify=justify, no_wrap=True)
    for outcome in outcomes:
        for place, leaving in enumerate(outcome.exits or [None]):
            last = place == max(len(outcome.exits) - 1, 0)
            head = _position_cells(outcome) if place == 0 else {}
            cells = {**head, **_exit_cells(leaving), "P&L": _money(outcome.realized_pnl) if last else ""}
            table.add_row(*(cells.get(str(column.header), "") for column in table.columns))
    return table


def _position_cells(outcome: Outcome) -> dict[str, RenderableType]:
    return {
        "#": Text(str(outcome.position_id), style=FAINT),
        "position": f"{outcome.symbol:<5}{outcome.side}",
        "qty": f"{outcome.quantity:f}",
        "entry": _price(outcome.entry_price),
        "stop": _price(outcome.stop_price),
        "target": _price(outcome.target_prices[0] if outcome.target_prices else None),
        "further targets": "  ".join(map(_price, outcome.target_prices[1:])),
    }


def _exit_cells(leaving: Exit | None) -> dict[str, RenderableType]:
    if leaving is None:
        return {"left by": Text("still open", style=LOSS)}
    by_hand = leaving.reason == MANUAL
    return {
        "left by": _reason(leaving.reason),
        "sold": f"{leaving.quantity:f}",
        "level": _price(leaving.trigger_price),
        "fill": _price(leaving.fill_price),
        "slip bps": "" if by_hand or leaving.slippage_bps is None else _whole(leaving.slippage_bps),
        "ms": "" if leaving.accepted_ms is None else f"{leaving.accepted_ms:,.0f}",
        "market ms": "" if leaving.market_ms is None else f"{leaving.market_ms:,.0f}",
        "order": Text(str(leaving.order_id), style=FAINT),
    }


def _summary(sums: Totals) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        Text.assemble((f"{sums.positions} positions, {sums.exits} exits  ", FAINT), _reasons(sums)),
    )
    grid.add_row(
        Text.assemble(
            ("P&L ", FAINT), _money(sums.realized_pnl), ("   price to acceptance ", FAINT), _quantiles(sums.accepted_ms)
        )
    )
    return grid


def _reasons(sums: Totals) -> Text:
    parts = [Text.assemble(f"{count} ", _reason(reason)) for reason, count in sums.by_reason.items()]
    return Text(", ").join(parts)


def _reason(reason: str, *, width: int = 0) -> Text:
    words = reason.replace("take_profit_", "target ").replace("stop_loss", "stop").replace("_", " ")
    style = GAIN if reason.startswith("take_profit") else FAINT if reason == MANUAL else LOSS
    return Text(f"{words:<{width}}", style=style)


def _quantiles(values: Mapping[str, float | None], *, unit: str = " ms") -> str:
    return "  ".join(f"{name} {value:,.0f}{unit}" for name, value in values.items() if value is not None)


def _whole(value: Decimal) -> str:
    return f"{value.quantize(Decimal(1)) + 0:,}"  # adding nothing takes the sign off a zero


def _price(value: Decimal | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _money(value: Decimal) -> Text:
    return Text(f"{value:+,.2f}", style=GAIN if value >= 0 else LOSS)


def _clock(at: datetime | None) -> str:
    return at.astimezone(NEW_YORK).strftime("%H:%M") if at else "     "
