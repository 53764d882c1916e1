"""The documentation of the rules: each example compiles, each drawing is what the rules draw, each word is a real one."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from exitmgr.rules.compile import Range
from exitmgr.rules.fire import fire_trail
from exitmgr.rules.plan import Plan
from exitmgr.rules.types import Direction, ExitReason, TrailTrigger
from positions.values import Basis
from tests.exitmgr.rules.values import AT, LONG, SHORT, D, compiled, seen

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/exit_rules.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)]


def test_there_is_an_example_of_every_part_of_a_plan():
    assert {key for example in EXAMPLES for key in example} == set(Plan.model_fields)


@pytest.mark.parametrize("side", [LONG, SHORT])
@pytest.mark.parametrize("example", EXAMPLES, ids=json.dumps)
def test_every_example_compiles_for_both_sides_without_a_note(example, side):
    made = compiled(
        example, side, ranges={14: Range(D("0.6"))}, closes_at=AT + timedelta(hours=6), fee_per_unit=D("0.01")
    )
    assert made.triggers
    assert made.notes == ()


def test_every_reason_is_explained():
    named = {reason for reason in ExitReason if not reason.startswith("take_profit_")}
    assert {reason for reason in named if f"`{reason}`" not in TEXT} == set()


def test_the_parts_that_are_linked_have_a_section():
    linked = set(re.findall(r"\]\(#([a-z-]+)\)", TEXT))
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", TEXT, flags=re.MULTILINE)}
    assert linked <= sections


def test_the_table_of_trails_says_what_the_rules_say():
    trail = TrailTrigger(
        slot="trailing_1", reason="trailing_stop", basis=Basis.BID, direction=Direction.FALL, best=D(110),
        offset_pct=D(1),
    )  # fmt: skip
    rows = re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (fires at ([\d.]+)|does not fire):", TEXT, flags=re.MULTILINE
    )
    assert len(rows) == 4
    for low, high, now, _, level in rows:
        decision = fire_trail(trail, seen(now, low=low, high=high), armed_seq=1)
        assert (decision and decision.trigger_price) == (D(level) if level else None)


def test_the_drawings_are_what_the_rules_draw(tmp_path):
    drawn = subprocess.run(
        [sys.executable, ROOT / "script/draw", tmp_path], check=True, capture_output=True, text=True, timeout=60
    )
    assert drawn.stderr == ""
    kept = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/drawings").glob("*.svg")}
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == kept
    assert set(re.findall(r"\]\(drawings/(\w+\.svg)\)", TEXT)) == set(kept)


@pytest.mark.parametrize("arguments", [["--help"], ["a", "b"]])
def test_drawing_takes_a_directory_and_nothing_else(arguments, tmp_path):
    refused = subprocess.run(
        [sys.executable, ROOT / "script/draw", *arguments],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "usage: script/draw [DIRECTORY]\n"
    assert list(tmp_path.iterdir()) == []
