"""A replay as one HTML file that needs no network: totals, every exit, and charts of chosen positions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from html import escape
from typing import Any, Final

from exitmgr.replay.compare import Scenario, differences
from exitmgr.replay.results import Totals, exits_as_json, rounded, spell, totals_as_json

_ROWS_SHOWN: Final = 2_000
_CENT: Final = Decimal("0.01")
_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e3e6ea; }
td.number, th.number { text-align: right; } .loss { color: #a93226; } .gain { color: #1e8449; }
.wide { overflow-x: auto; } #chart { width: 100%; height: 34rem; } select { font: inherit; padding: .2rem; }
"""
_SCRIPT: Final = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const choice = document.getElementById("choice");
const draw = () => Plotly.react("chart", figures[choice.value].data, figures[choice.value].layout, {responsive: true});
choice.addEventListener("change", draw);
draw();
"""


def write_report(scenarios: Sequence[Scenario], *, figures: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """Return the page; `figures` are charts by their title, `facts` say what was replayed and how."""
    body = [
        "<h1>Replay</h1>",
        _table(("", ""), [(name, text) for name, text in facts.items()]),
        "<h2>Totals</h2>",
        _totals(scenarios),
        "<h2>Exits by reason</h2>",
        _reasons(scenarios),
    ]
    if figures:
        options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in figures)
        body += [
            "<h2>Positions</h2>",
            f'<label>Chart of <select id="choice">{options}</select></label><div id="chart"></div>',
        ]
    if len(scenarios) > 1:
        body += ["<h2>Positions under each plan</h2>", _differences(scenarios)]
    for scenario in scenarios:
        body += [f"<h2>Exits{f' under {escape(scenario.name)}' if len(scenarios) > 1 else ''}</h2>", _exits(scenario)]
    return "".join(_page("\n".join(body), figures))


def _page(body: str, figures: Mapping[str, Any]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Replay</title>'
    yield f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n<body>\n{body}\n'
    if figures:
        from plotly.offline import get_plotlyjs

        data = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")  # no text may end the script element
        yield f'<script type="application/json" id="figures">{data}</script>\n'
        yield f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script>\n"
    yield "</body></html>\n"


def _totals(scenarios: Sequence[Scenario]) -> str:
    totals = [scenario.totals for scenario in scenarios]
    rows: list[tuple[object, ...]] = [
        ("positions", *(each.positions for each in totals)),
        ("closed", *(each.closed for each in totals)),
        ("P&L realised", *(each.realized_pnl for each in totals)),
        ("P&L of what is still held", *(each.open_pnl for each in totals)),
        ("won, % of closed", *(_or_dash(each.win_rate_pct) for each in totals)),
        ("R on average", *(_or_dash(each.average_r) for each in totals)),
        ("worst position", *(_worst(each) for each in totals)),
    ]
    return _table(("", *(scenario.name for scenario in scenarios)), rows)


def _worst(totals: Totals) -> str:
    if totals.worst_pnl is None:
        return "-"
    return f"{rounded(totals.worst_pnl, to=_CENT):,} ({totals.worst_position})"


def _reasons(scenarios: Sequence[Scenario]) -> str:
    known = [totals_as_json(scenario.totals)["by_reason"] for scenario in scenarios]
    nothing = {"exits": 0, "realized_pnl": "0"}
    rows = []
    for reason in sorted({reason for by_reason in known for reason in by_reason}):
        cells = [by_reason.get(reason, nothing) for by_reason in known]
        rows.append((reason, *(value for cell in cells for value in (cell["exits"], Decimal(cell["realized_pnl"])))))
    header = ("reason", *(text for one in scenarios for text in (f"exits, {one.name}", f"P&L, {one.name}")))
    return _table(header, rows)


def _differences(scenarios: Sequence[Scenario]) -> str:
    found = sorted(differences(scenarios), key=lambda difference: -difference.spread)
    names = [scenario.name for scenario in scenarios]
    rows = [(str(one.position), *(one.pnl[name] for name in names), one.spread) for one in found[:_ROWS_SHOWN]]
    return _table(("position", *names, "apart by"), rows) + _cut(len(found))


def _exits(scenario: Scenario) -> str:
    rows = [line for outcome in scenario.outcomes for line in exits_as_json(outcome)]
    keys = ("position", "reason", "ts", "trigger_price", "exit_price", "qty")
    shown = [
        (
            *("" if line[key] is None else str(line[key]) for key in keys),
            Decimal(line["realized_pnl"]),
            Decimal(line["realized_pct"]),
        )
        for line in rows[:_ROWS_SHOWN]
    ]
    return _table(("position", "reason", "ts", "level", "exit", "qty", "P&L", "%"), shown) + _cut(len(rows))


def _cut(count: int) -> str:
    return f"<p>The first {_ROWS_SHOWN:,} of {count:,}; --json has them all.</p>" if count > _ROWS_SHOWN else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    if isinstance(value, Decimal):
        kind = " loss" if value < 0 else " gain" if value > 0 else ""
        return f'<td class="number{kind}">{rounded(value, to=_CENT):,}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(_text(value))}</td>"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _or_dash(number: Decimal | None) -> str:
    return "-" if number is None else spell(rounded(number, to=_CENT))
