"""The same positions under several plans: what each plan made of them, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from exitmgr.replay.results import Outcome, Totals, exits_as_json, spell, spell_or_none, totals_as_json, totals_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One set of plans, by the name of its file, and what came of it; the first of several is the basis."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def totals(self) -> Totals:
        """Return the totals over all positions."""
        return totals_of(self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One position under every plan: its P&L, what was realised and what the rest stands at, and its last reason."""

    position: str | int
    pnl: dict[str, Decimal]
    reason: dict[str, str | None]

    @property
    def against_first(self) -> dict[str, Decimal]:
        """Return how much more each of the other plans made than the first."""
        base = next(iter(self.pnl.values()))
        return {name: pnl - base for name, pnl in list(self.pnl.items())[1:]}

    @property
    def spread(self) -> Decimal:
        """Return how far apart the plans are."""
        return max(self.pnl.values()) - min(self.pnl.values())


def differences(scenarios: Sequence[Scenario]) -> list[Difference]:
    """Return each position under every plan; every scenario has the same positions in the same order."""
    names = [scenario.name for scenario in scenarios]
    return [
        Difference(
            position=outcomes[0].holding.id,
            pnl=dict(zip(names, (outcome.total_pnl for outcome in outcomes), strict=True)),
            reason=dict(zip(names, map(_last_reason, outcomes), strict=True)),
        )
        for outcomes in zip(*(scenario.outcomes for scenario in scenarios), strict=True)
    ]


def comparison_as_json(scenarios: Sequence[Scenario]) -> Iterator[dict[str, Any]]:
    """Yield every exit with the name of its plan, then the totals of each plan, then each position's difference."""
    for scenario in scenarios:
        for outcome in scenario.outcomes:
            for line in exits_as_json(outcome):
                yield {"plan": scenario.name, **line}
    for scenario in scenarios:
        yield {"plan": scenario.name, "totals": totals_as_json(scenario.totals)}
    for difference in differences(scenarios):
        yield {
            "position": difference.position,
            "pnl": {name: spell(pnl) for name, pnl in difference.pnl.items()},
            "last_reason": difference.reason,
            "against_first": {name: spell_or_none(pnl) for name, pnl in difference.against_first.items()},
        }


def _last_reason(outcome: Outcome) -> str | None:
    """Return why a position was closed, None while it is held."""
    return None if outcome.remaining or not outcome.exits else str(outcome.exits[-1].reason)
