"""Prints what each adapter declared, and how many cases it passed for it, when the conformance suite has run."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import fields

import pytest

pytest.register_assert_rewrite("tests.brokers.conformance")

from tests.brokers.conformance import CAPABILITY_TABLE, CONFORMANCE  # noqa: E402 - after asking for readable assertions

EVERY_VENUE = "(every venue)"
#: adapter -> capability -> outcome -> cases
_passed: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a case under each capability it needs."""
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return
    for name, value in report.user_properties:
        if name == CONFORMANCE:
            adapter, needs = value
            for need in needs or {EVERY_VENUE}:
                _passed[adapter][need][report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add both tables to the end of the run."""
    for adapter, capabilities in sorted(CAPABILITY_TABLE.items()):
        terminalreporter.section(f"capabilities of {adapter}")
        for field in fields(capabilities):
            value = getattr(capabilities, field.name)
            shown = ", ".join(sorted(value)) if isinstance(value, frozenset) else value
            terminalreporter.write_line(f"{field.name:22} {shown}")
    for adapter, by_need in sorted(_passed.items()):
        terminalreporter.section(f"conformance of {adapter}")
        for need, outcomes in sorted(by_need.items()):
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            terminalreporter.write_line(f"{need:22} {counts}")
