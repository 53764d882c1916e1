"""The list of what failed elsewhere is whole, and names constraints, functions and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "field_failures.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in LINES if re.match(r"\| \d+ \|", line)]
NOT_YET = LINES.index("## Not yet")


def numbers(rows):
    return [int(row.split("|")[1]) for row in rows]


def test_every_failure_is_on_the_list_once():
    answered = [row for row in LINES[:NOT_YET] if row in ROWS]
    assert numbers(answered) == list(range(1, 64))


def test_what_is_not_there_yet_is_pointed_at():
    open_ones = [row for row in LINES[NOT_YET:] if row in ROWS]
    pointed = [row for row in LINES[:NOT_YET] if row in ROWS and "see below" in row]
    assert set(numbers(pointed)) <= set(numbers(open_ones))
    assert numbers(open_ones) == sorted(set(numbers(open_ones)))


def test_every_row_names_something_that_can_be_looked_up():
    assert [row for row in LINES[:NOT_YET] if row in ROWS and "`" not in row.split(" | ")[-1]] == []


def test_every_constraint_function_and_test_that_is_named_is_there():
    missing, seen = [], 0
    kept = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*/models.py"))
    kept += "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*/migrations/*.py"))
    for row in ROWS:
        file = ""
        for path, name, word in re.findall(r"`(?:([\w/]+\.py)?::(\w+)|(\w+_\w+))`", row):
            seen += 1
            file = path or file
            if word and f'"{word}"' not in kept:
                missing.append(word)
            elif name and not _has(file, name):
                missing.append(f"{file}::{name}")
    assert missing == []
    assert seen > 100


def _has(file, name):
    source = ROOT / ("tests" if not (ROOT / file).is_file() else "") / file
    if not source.is_file():
        return False
    return re.search(rf"^ *(?:def|class) {name}\b", source.read_text(encoding="utf-8"), re.MULTILINE) is not None
