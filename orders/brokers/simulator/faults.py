"""The faults that a control client may ask for: which rules stand, and whether one strikes now.

Every rule is counted and seeded, so that a run can be told again. What a fault does is done where it strikes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Final

#: Each kind and the options it understands beside match, probability and count.
KINDS: Final[dict[str, frozenset[str]]] = {
    "latency": frozenset({"seconds"}),
    "drop_before_accept": frozenset(),
    "drop_after_accept": frozenset(),
    "status": frozenset({"status", "code", "message", "retry_after", "after_accept"}),
    "partial_fill": frozenset({"fraction", "seconds"}),
    "duplicate_updates": frozenset({"times"}),
    "reorder_updates": frozenset({"seconds"}),
    "cut_stream": frozenset({"stream", "seconds"}),
    "mute_stream": frozenset({"stream", "seconds"}),
    "stuck_pending_cancel": frozenset({"seconds"}),
    "reject": frozenset({"message"}),
}
FACTS: Final = ("method", "path", "symbol", "side", "type", "client_order_id", "event")
STREAMS: Final = frozenset({"trading", "data", "both"})


@dataclass(slots=True)
class Fault:
    """One rule: the kind of fault, the facts it wants, how often it strikes, and its options."""

    id: str
    kind: str
    match: dict[str, str] = field(default_factory=dict)
    probability: float = 1.0
    count: int | None = None  # how many strikes are left; None is without end
    options: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    @property
    def seconds(self) -> float | None:
        """Return the duration option in seconds, None where it was not given."""
        value = self.options.get("seconds")
        return None if value is None else float(value)

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "match": self.match,
            "probability": self.probability,
            "count": self.count,
            "hits": self.hits,
            **{name: str(v) if isinstance(v, Decimal) else v for name, v in self.options.items()},
        }


def _number(spec: dict[str, Any], name: str, *, low: float, high: float) -> float:
    value = spec[name]
    try:
        number = float(Decimal(str(value)))
    except InvalidOperation:
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, not {value}")
    return number


def read_fault(spec: object, *, fault_id: str) -> Fault:
    """Return the rule that a JSON object describes.

    :raises ValueError: with what is wrong and what would be right.
    """
    if not isinstance(spec, dict):
        raise ValueError('each fault must be an object such as {"kind": "latency", "seconds": 0.2}')
    kind = spec.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
    unknown = set(spec) - {"kind", "match", "probability", "count"} - KINDS[kind]
    if unknown:
        allowed = ", ".join(["match", "probability", "count", *sorted(KINDS[kind])])
        raise ValueError(f"{kind} does not know {', '.join(sorted(unknown))}; it knows {allowed}")
    match = spec.get("match") or {}
    if not isinstance(match, dict) or set(match) - set(FACTS):
        raise ValueError(f"match must be an object with some of {', '.join(FACTS)}")
    probability = _number({"probability": 1, **spec}, "probability", low=0, high=1)
    count = spec.get("count")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError("count must be a whole number of at least 1, or left out for no end")
    return Fault(
        id=fault_id,
        kind=kind,
        match={name: str(value) for name, value in match.items()},
        probability=probability,
        count=count,
        options=_read_options(kind, spec),
    )


def _read_options(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    options = {name: spec[name] for name in KINDS[kind] if spec.get(name) is not None}
    if "seconds" in options:
        _number(options, "seconds", low=0, high=3600)
    if kind == "latency" and "seconds" not in options:
        raise ValueError('latency needs seconds, for example {"kind": "latency", "seconds": 0.2}')
    if kind == "status":
        if "status" not in options:
            raise ValueError('status needs the HTTP status, for example {"kind": "status", "status": 503}')
        _number(options, "status", low=400, high=599)
        _number({"code": 0, **options}, "code", low=0, high=99_999_999)
    if kind == "partial_fill":
        options.setdefault("fraction", "0.5")
        _number(options, "fraction", low=0, high=1)
        options["fraction"] = Decimal(str(options["fraction"]))
        if not 0 < options["fraction"] < 1:
            raise ValueError("fraction must be above 0 and below 1")
    if kind == "duplicate_updates":
        _number({"times": 2, **options}, "times", low=2, high=100)
    if kind in ("cut_stream", "mute_stream") and options.setdefault("stream", "both") not in STREAMS:
        raise ValueError(f"stream must be one of {', '.join(sorted(STREAMS))}")
    return options


class Faults:
    """The rules that stand, in the order of their arrival."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._random = random.Random(seed)
        self._rules: dict[str, list[Fault]] = {}
        self._issued = 0

    def __bool__(self) -> bool:
        return bool(self._rules)

    def reseed(self, seed: int) -> None:
        """Start the draws of probabilities anew."""
        self.seed = seed
        self._random = random.Random(seed)

    def install(self, specs: list[object]) -> list[Fault]:
        """Add rules, all or none.

        :raises ValueError: one of them is malformed.
        """
        rules = [read_fault(spec, fault_id=str(self._issued + n)) for n, spec in enumerate(specs, 1)]
        self._issued += len(rules)
        for rule in rules:
            self._rules.setdefault(rule.kind, []).append(rule)
        return rules

    def take(self, kind: str, **facts: str | None) -> Fault | None:
        """Return the first rule of this kind that strikes these facts, and count the strike."""
        if not self._rules:
            return None
        return next((rule for rule in self._rules.get(kind, ()) if self.take_rule(rule, **facts)), None)

    def take_rule(self, rule: Fault, **facts: str | None) -> bool:
        """Return whether this rule strikes these facts, and count the strike."""
        if rule.count == 0:
            return False
        if not all(fnmatchcase(facts.get(name) or "", wanted) for name, wanted in rule.match.items()):
            return False
        if rule.probability < 1 and self._random.random() >= rule.probability:
            return False
        rule.hits += 1
        if rule.count is not None:
            rule.count -= 1
        return True

    def standing(self, kind: str) -> list[Fault]:
        """Return the rules of a kind that may still strike."""
        return [rule for rule in self._rules.get(kind, ()) if rule.count != 0]

    def remove(self, fault_id: str) -> bool:
        """Remove one rule; return whether it was there."""
        for kind, rules in self._rules.items():
            for rule in rules:
                if rule.id == fault_id:
                    rules.remove(rule)
                    if not rules:
                        del self._rules[kind]
                    return True
        return False

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def describe(self) -> dict[str, Any]:
        """Return all rules as JSON, spent ones too."""
        rules = sorted((rule for rules in self._rules.values() for rule in rules), key=lambda r: int(r.id))
        return {"seed": self.seed, "faults": [rule.describe() for rule in rules]}
