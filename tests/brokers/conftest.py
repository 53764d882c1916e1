"""Prints what each adapter declared while it proved the conformance suite."""

from __future__ import annotations

from dataclasses import fields

import pytest

pytest.register_assert_rewrite("tests.brokers.conformance")

from tests.brokers.conformance import CAPABILITY_TABLE  # noqa: E402 - after asking for readable assertions


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add the capability table to the end of the run."""
    for adapter, capabilities in sorted(CAPABILITY_TABLE.items()):
        terminalreporter.section(f"capabilities of {adapter}")
        for field in fields(capabilities):
            value = getattr(capabilities, field.name)
            shown = ", ".join(sorted(value)) if isinstance(value, frozenset) else value
            terminalreporter.write_line(f"{field.name:22} {shown}")
