"""The replay as a program: what it prints, that it needs nothing that runs, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from exitmgr.replay.command import main

ROOT = Path(__file__).parents[3]
DAILY = ROOT / "orders/brokers/simulator/bars/us_daily.csv"
BARS = """ts,symbol,open,high,low,close,volume
2008-09-29T13:30:00Z,AAPL,100,100.5,99.5,100,5
2008-09-29T13:31:00Z,AAPL,100,102,98,101,5
2008-09-29T13:32:00Z,AAPL,101,104,100,103,5
"""
OPENED = {"symbol": "AAPL", "qty": "10", "entry_price": "100", "opened_at": "2008-09-29T13:30:00Z"}
POSITIONS = [
    {"id": "tight", "side": "long", "plan": {"stop_loss": {"pct": 1}}, **OPENED},
    {"id": 2, "side": "short", "plan": {"take_profits": [{"pct": 1, "fraction_pct": 30}]}, **OPENED},
    {"id": "later", "side": "long", **OPENED, "opened_at": "2009-01-01T00:00:00Z"},
]
LINES = [
    {
        "position": "tight", "reason": "stop_loss", "ts": "2008-09-29T13:31:00Z", "trigger_price": "99",
        "exit_price": "99", "qty": "10", "realized_pnl": "-10", "realized_pct": "-1",
    },
    {
        "position": 2, "reason": "take_profit_1", "ts": "2008-09-29T13:31:00Z", "trigger_price": "99",
        "exit_price": "99", "qty": "3", "realized_pnl": "3", "realized_pct": "1",
    },
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Write the bars and three positions, and return the options that name them."""
    (tmp_path / "bars.csv").write_text(BARS)
    (tmp_path / "plan.json").write_text(json.dumps({"positions": POSITIONS}))
    return ["--plan", str(tmp_path / "plan.json"), "--bars", str(tmp_path / "bars.csv")]


def printed(capsys, *arguments):
    """Run the command and return exit code, stdout and stderr."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


def json_lines(text):
    """Return the JSON value of each line."""
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_and_nothing_else(files, capsys):
    code, out, err = printed(capsys, *files, "--json")
    assert (code, json_lines(out)) == (0, LINES)
    notes, summary = err.splitlines()
    assert notes == "note: position later: no bar starts at or after its entry"
    assert re.fullmatch(
        r"3 positions over 5 position-bars in \d.\d\d s(, [\d,]+/s)?: 2 exits, 2 still held at the end", summary
    )


def test_the_other_path_and_the_other_options(files, capsys):
    options = ("--path", "favourable-first", "--lot", "2", "--fee-bps", "10", "--json")
    code, out, _ = printed(capsys, *files, *options)
    assert code == 0
    assert [(line["qty"], line["realized_pnl"]) for line in json_lines(out)] == [("10", "-11.99"), ("2", "1.602")]


def test_tables_for_the_eye(files, capsys, monkeypatch):
    code, out, _ = printed(capsys, *files)
    rows = [" ".join(re.sub("[│┃]", " ", line).split()) for line in out.splitlines() if line[:1] in "│┃"]
    assert code == 0
    assert rows == [
        "position symbol side reason ts level exit qty P&L %",
        "tight AAPL long stop_loss 2008-09-29T13:31:00Z 99 99 10 -10.00 -1.00",
        "2 AAPL short take_profit_1 2008-09-29T13:31:00Z 99 99 3 3.00 1.00",
        "position symbol side qty last price open P&L",
        "2 AAPL short 7 103 -21.00",
        "later AAPL long 10 no bars 0.00",
        "reason exits P&L",
        "stop_loss 1 -10.00",
        "take_profit_1 1 3.00",
        "all 2 -7.00",
    ]
    assert out.splitlines()[-1] == (
        "3 positions, 1 closed, 0.00 % of these won, -1.00 R on average, worst -18.00 (2), "
        "what is still held stands at -21.00."
    )


def test_out_takes_what_would_be_printed(files, capsys, tmp_path):
    code, out, _ = printed(capsys, *files, "--json", "--out", tmp_path / "exits.jsonl")
    assert (code, out) == (0, "")
    assert json_lines((tmp_path / "exits.jsonl").read_text()) == LINES


def test_plans_side_by_side(files, capsys, tmp_path):
    (tmp_path / "wide.json").write_text(json.dumps({"stop_loss": {"pct": 5}, "time_limit_seconds": 120}))
    code, out, _ = printed(capsys, *files, "--compare", tmp_path / "wide.json", "--json")
    assert code == 0
    exits, totals, apart = json_lines(out)[:4], json_lines(out)[4:6], json_lines(out)[6:]
    assert [(line["plan"], line["position"], line["reason"]) for line in exits] == [
        ("plan", "tight", "stop_loss"), ("plan", 2, "take_profit_1"), ("wide", "tight", "time_limit"), ("wide", 2, "time_limit"),
    ]  # fmt: skip
    assert totals[0] == {
        "plan": "plan",
        "totals": {
            "positions": 3, "closed": 1, "exits": 2, "realized_pnl": "-7", "open_pnl": "-21", "win_rate_pct": "0",
            "average_r": "-1", "worst_pnl": "-18", "worst_position": 2,
            "by_reason": {
                "stop_loss": {"exits": 1, "realized_pnl": "-10"}, "take_profit_1": {"exits": 1, "realized_pnl": "3"},
            },
        },
    }  # fmt: skip
    assert totals[1]["totals"]["by_reason"] == {"time_limit": {"exits": 2, "realized_pnl": "0"}}
    assert apart[0] == {
        "position": "tight", "pnl": {"plan": "-10", "wide": "10"}, "last_reason": {"plan": "stop_loss", "wide": "time_limit"},
        "against_first": {"wide": "20"},
    }  # fmt: skip
    assert (apart[1]["last_reason"], apart[1]["against_first"]) == ({"plan": None, "wide": "time_limit"}, {"wide": "8"})
    code, out, _ = printed(capsys, *files, "--compare", tmp_path / "wide.json")
    assert code == 0
    assert re.search(r"tight +│ +-10.00 +stop_loss +│ +10.00 +time_limit", out)


def test_a_report_in_one_file_that_ends_no_script_early(files, capsys, tmp_path):
    evil = "</script><script>alert(1)</script>"
    (tmp_path / "plan.json").write_text(json.dumps({"positions": [POSITIONS[0] | {"id": evil}, POSITIONS[1]]}))
    code, _, _ = printed(capsys, *files, "--json", "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert code == 0
    assert evil not in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", page)
    figures = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)[1])
    assert list(figures) == [evil, "2"]
    by_name = {trace["name"]: trace for trace in figures[evil]["data"]}
    assert by_name["price"]["low"] == [99.5, 98.0, 100.0]
    assert by_name["stop_loss"]["y"] == [99.0, 99.0, None]
    assert by_name["exits"]["y"] == [99.0]
    printed(capsys, *files, "--json", "--html", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_the_report_draws_what_is_named(files, capsys, tmp_path):
    code, _, _ = printed(capsys, *files, "--html", tmp_path / "report.html", "--chart", "2")
    assert code == 0
    assert re.findall(r'<option value="([^"]*)">', (tmp_path / "report.html").read_text()) == ["2"]
    code, _, err = printed(capsys, *files, "--html", tmp_path / "report.html", "--chart", "3")
    assert (code, err) == (2, "error: --chart: there is no position '3'\n")


@pytest.mark.parametrize(
    ("_case", "arguments", "why"),
    [
        ("no options", [], "the following arguments are required: --plan, --bars; see --help"),
        ("an unknown path", ["--path", "up"], "argument --path: invalid choice: 'up' (choose from 'adverse-first', 'favourable-first'); see --help"),
        ("a lot that is none", ["--lot", "x"], "--lot: must be a number at least 0; got 'x'"),
        ("a negative fee", ["--fee-bps", "-1"], "--fee-bps: must be a number at least 0; got '-1'"),
        ("an unknown calendar", ["--calendar", "NYSE"], "--calendar: there is no exchange calendar 'NYSE'; did you mean XNYS? Around the clock is 24/7"),
        ("a folder that is not there", ["--out", "/nowhere/x"], "--out: /nowhere/x: No such file or directory"),
        ("a plan that is not there", ["--plan", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        ("bars that are not there", ["--bars", "/nowhere/x"], "/nowhere/x: No such file or directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(_case, files, arguments, why, capsys):
    code, out, err = printed(capsys, *(files if arguments else []), *arguments)
    assert (code, out, err) == (2, "", f"error: {why}\n")


def test_it_runs_where_nothing_is_installed_or_started(files, tmp_path):
    bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "EXITMGR_VAR": str(tmp_path / "var")}
    command = [sys.executable, str(ROOT / "manage.py"), "replay", *files, "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=60, check=True)
    assert json_lines(done.stdout) == LINES
    assert not (tmp_path / "var").exists()


def test_it_loads_neither_django_nor_pandas_unless_asked(files):
    script = (
        "import sys; from exitmgr.replay.command import main; main(sys.argv[1:]);"
        "print([name for name in ('django', 'pandas', 'plotly', 'rich', 'celery') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, *files, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_error(files):
    command = f"{sys.executable} {ROOT}/manage.py replay {' '.join(files)} --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_it_is_a_command_of_django_too(files, capsys):
    call_command("replay", *files, "--json")
    assert json_lines(capsys.readouterr().out) == LINES
    with pytest.raises(CommandError, match="--lot: must be a number at least 0; got 'x'") as refusal:
        call_command("replay", *files, "--lot", "x")
    assert refusal.value.returncode == 2


def test_the_example_of_the_documentation_is_what_it_prints(capsys, tmp_path):
    text = (ROOT / "docs/replay.md").read_text()
    (tmp_path / "plan.json").write_text(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    code, out, _ = printed(capsys, "--plan", tmp_path / "plan.json", "--bars", DAILY, "--json")
    assert code == 0
    assert out == re.search(r"## What comes out\n\n```\n(.*?)```", text, re.DOTALL)[1]
