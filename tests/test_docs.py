"""The documents name what is there: files, sections, commands, tests, alerts; and their first example prints what it says."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).parents[1]
DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = ("alerts", "exitmgr", "orders", "positions")
CODE = {
    path: path.read_text(encoding="utf-8")
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if "simulator" not in path.parts
}
WORD = r"[a-z][a-z_]*"


def text_of(name: str) -> str:
    """Return a document by its path from the top."""
    return (ROOT / name).read_text(encoding="utf-8")


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's sections, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path) -> Iterator[str]:
    """Yield the relative links of a document that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            yield target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_every_document_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)", text_of("README.md")))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def verbs_of(command: str) -> set[str]:
    """Return the sub-commands of a command of `manage.py`, none for one without."""
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {verb for action in found for verb in action.choices}


def test_every_command_that_is_named_is_one() -> None:
    named = {
        (command, verb)
        for path in DOCS
        for command, verb in re.findall(rf"manage\.py ({WORD})(?: ({WORD})\b)?", path.read_text(encoding="utf-8"))
    }
    assert {command for command, _ in named} >= {"replay", "policy", "limits", "sessions", "token"}
    assert {command for command, _ in named} - set(get_commands()) == set()
    wrong = [(command, verb) for command, verb in named if verb and verbs_of(command) and verb not in verbs_of(command)]
    assert wrong == []


def test_every_script_that_is_named_is_there() -> None:
    named = {name for path in DOCS for name in re.findall(r"\bscript/(\w+)", path.read_text(encoding="utf-8"))}
    assert {name for name in named if not (ROOT / "script" / name).is_file()} == set()


def test_every_test_that_keeps_an_invariant_is_there() -> None:
    missing, seen = [], 0
    for line in text_of("docs/invariants.md").splitlines():
        file = ""
        for named, test in re.findall(r"`([\w/]+\.py)?(?:::(test_\w+))?`", line.rpartition(" | ")[2]):
            file = named or file
            if not named and not test:
                continue
            seen += 1
            source = ROOT / "tests" / file
            if not source.is_file() or (test and f"def {test}(" not in source.read_text(encoding="utf-8")):
                missing.append(f"{file}::{test}")
    assert missing == []
    assert seen > 100


def kinds_of_alerts() -> set[str]:
    """Return the kinds of alerts that the code raises, with constants and choices spelled out."""
    found: set[str] = set()
    for path, source in CODE.items():
        if "raise_alert(" not in source:
            continue
        tree = ast.parse(source)
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "raise_alert":
                (kind,) = [word.value for word in call.keywords if word.arg == "kind"]
                found |= set(spelled(kind, constants, path))
    return found


def spelled(kind: ast.expr, constants: dict[str, object], path: Path) -> Iterator[str]:
    """Yield what an expression for a kind may come to."""
    if isinstance(kind, ast.Constant):
        yield str(kind.value)
    elif isinstance(kind, ast.Name):
        yield str(constants[kind.id])
    elif isinstance(kind, ast.IfExp):
        yield from spelled(kind.body, constants, path)
        yield from spelled(kind.orelse, constants, path)
    elif isinstance(kind, ast.JoinedStr) and ast.unparse(kind) == "f'{order.intent}_failed'":
        yield from ("exit_failed", "entry_failed")
    else:
        raise AssertionError(f"{path}: what is {ast.unparse(kind)}?")


def test_every_alert_is_explained_and_no_other() -> None:
    _, _, section = text_of("docs/operate.md").partition("## Alerts")
    explained = set(re.findall(r"^\| `(\w+)`", section.partition("\n## ")[0], flags=re.MULTILINE))
    assert explained == kinds_of_alerts()


def test_every_file_in_the_tables_of_the_architecture_is_there() -> None:
    known = [f"/{path.relative_to(ROOT)}" for room in (*ROOMS, "config") for path in (ROOT / room).rglob("*.py")]
    rows = [line for line in text_of("docs/architecture.md").splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", row)]
    ends = {name: f"/{name}" for name in named}
    missing = [
        name
        for name, end in ends.items()
        if not any(end in path if end[-1] == "/" else path.endswith(end) for path in known)
    ]
    assert missing == []
    assert len(named) > 80


def test_the_replay_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    readme = text_of("README.md")
    block = re.search(r"( {4}script/setup\n(?: {4}.*\n)+)\nprints one line an exit:\n\n((?: {4}.*\n)+)", readme)
    assert block is not None
    plan = re.search(r"<<'END'\n(.*?) {4}END\n", block[1], re.DOTALL)
    (command,) = [line.split() for line in block[1].splitlines() if "manage.py replay" in line]
    assert plan is not None
    (tmp_path / "plan.json").write_text(plan[1], encoding="utf-8")
    arguments = [str(tmp_path / "plan.json") if word == "/tmp/plan.json" else word for word in command[1:]]
    assert str(tmp_path / "plan.json") in arguments
    done = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == re.sub(r"^ {4}", "", block[2], flags=re.MULTILINE)
