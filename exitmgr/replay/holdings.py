"""Reads the positions a replay is to leave: who holds what since when, and the plan for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from exitmgr.replay.errors import InvalidInput, refuse_all
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan
from positions.values import Side

_KEYS: Final = ("id", "symbol", "side", "qty", "entry_price", "opened_at", "plan")
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_LARGEST: Final = Decimal("1e20")
_SHOWN: Final = 40

Problems = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One position to leave; `path` is its place in the file, for refusals."""

    id: str | int
    symbol: str
    side: Side
    quantity: Decimal
    entry_price: Decimal
    opened_at: datetime
    plan: Plan
    path: str


def read_holdings(path: Path) -> list[Holding]:
    """Return the positions of a file `{"positions": [...]}`.

    :raises InvalidInput: naming the path of every field that is wrong.
    """
    return _holdings(read_json(path), path)


def read_alternative(path: Path, *, basis: list[Holding]) -> list[Holding]:
    """Return the same positions, in the same order, under another plan.

    The file has the same positions with other plans, or one plan for all of them.

    :raises InvalidInput: the plan is wrong, or the file is about other positions.
    """
    given = read_json(path)
    if not isinstance(given, dict) or "positions" in given:
        held = _holdings(given, path)
        _require_same(held, basis, path)
        by_id = {holding.id: holding for holding in held}
        return [by_id[holding.id] for holding in basis]
    try:
        plan = parse_plan(given)
    except InvalidPlan as error:
        raise refuse_all(str(path), error.problems) from None
    return [replace(holding, plan=plan, path="plan") for holding in basis]


def read_json(path: Path) -> Any:
    """Return the JSON value of a file, its numbers exact.

    :raises InvalidInput: it is not the JSON we accept.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, parse_float=_decimal, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise InvalidInput(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(f"{path}: is not valid JSON: {error}") from None


def _holdings(given: Any, path: Path) -> list[Holding]:
    entries = given.get("positions") if isinstance(given, dict) else None
    if not isinstance(entries, list):
        raise InvalidInput(f'{path}: must be an object {{"positions": [...]}}; got {_shown(given)}')
    unknown = [key for key in given if key != "positions"]
    if unknown:
        raise InvalidInput(f"{path}: {unknown[0]}: is unknown; known here: positions")
    reading = _Reading()
    held = [holding for number, entry in enumerate(entries) if (holding := reading.holding(entry, number)) is not None]
    if reading.problems:
        raise refuse_all(str(path), reading.problems)
    return held


def _require_same(held: list[Holding], basis: list[Holding], path: Path) -> None:
    known = {holding.id: holding for holding in basis}
    missing = known.keys() - {holding.id for holding in held}
    if missing:
        raise InvalidInput(f"{path}: the position {sorted(map(str, missing))[0]} of the first file is missing")
    for holding in held:
        if holding.id not in known:
            raise InvalidInput(f"{path}: {holding.path}.id: is not in the first file; got {_shown(holding.id)}")
        other = known[holding.id]
        for name in ("symbol", "side", "quantity", "entry_price", "opened_at"):
            if getattr(holding, name) != getattr(other, name):
                key = "qty" if name == "quantity" else name
                raise InvalidInput(f"{path}: {holding.path}.{key}: must be as in the first file; only plans may differ")


@dataclass(slots=True)
class _Reading:
    """The entries of one file while they are read: what was wrong, and what is known already."""

    problems: Problems = field(default_factory=dict)
    ids: dict[str | int, int] = field(default_factory=dict)
    plans: dict[str, Plan | InvalidPlan] = field(default_factory=dict)

    def holding(self, entry: Any, number: int) -> Holding | None:
        path = f"positions.{number}"
        if not isinstance(entry, dict):
            self.problems[path] = f"must be an object with {', '.join(_KEYS)}; got {_shown(entry)}"
            return None
        before = len(self.problems)
        self.problems.update(_key_problems(entry, path))
        fields = {
            "id": self._identity(entry.get("id"), number),
            "symbol": self._read(entry, path, "symbol", _text),
            "side": self._read(entry, path, "side", Side.parse),
            "quantity": self._read(entry, path, "qty", _above_zero),
            "entry_price": self._read(entry, path, "entry_price", _above_zero),
            "opened_at": self._read(entry, path, "opened_at", _moment),
            "plan": self._plan(entry.get("plan"), f"{path}.plan"),
        }
        return Holding(**fields, path=path) if len(self.problems) == before else None

    def _read(self, entry: dict[str, Any], path: str, key: str, read: Any) -> Any:
        if key not in entry:
            return None  # said already
        try:
            return read(entry[key])
        except ValueError as error:
            self.problems[f"{path}.{key}"] = str(error)
            return None

    def _identity(self, given: Any, number: int) -> str | int:
        if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
            self.problems.setdefault(f"positions.{number}.id", f"must be a text or a whole number; got {_shown(given)}")
            return ""
        if given in self.ids:
            other = f"positions.{self.ids[given]}"
            self.problems[f"positions.{number}.id"] = f"must be given once; {_shown(given)} is {other} already"
        self.ids.setdefault(given, number)
        return given

    def _plan(self, given: Any, path: str) -> Plan | None:
        """Return the plan; each distinct one is parsed once."""
        key = json.dumps(given, default=str)
        if key not in self.plans:
            try:
                self.plans[key] = parse_plan(given)
            except InvalidPlan as error:
                self.plans[key] = error
        plan = self.plans[key]
        if isinstance(plan, Plan):
            return plan
        self.problems.update({path if at == "plan" else f"{path}.{at}": text for at, text in plan.problems.items()})
        return None


def _key_problems(entry: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key in entry:
        if key not in _KEYS:
            yield f"{path}.{key}", f"is unknown; known here: {', '.join(_KEYS)}"
    for key in _KEYS[:-1]:
        if key not in entry:
            yield f"{path}.{key}", "is missing"


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"must be a symbol; got {_shown(given)}")
    return given.strip()


def _above_zero(given: Any) -> Decimal:
    number = None
    if isinstance(given, int | Decimal) and not isinstance(given, bool):
        number = Decimal(given)
    elif isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
        number = Decimal(given.strip())
    if number is None or not number.is_finite() or not 0 < number < _LARGEST:
        raise ValueError(f"must be a number above 0; got {_shown(given)}")
    return number


def _moment(given: Any) -> datetime:
    try:
        at = datetime.fromisoformat(given)
    except (ValueError, TypeError):
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z; got {_shown(given)}")
    return at.astimezone(UTC)


def _shown(given: object) -> str:
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, dict):
        return "an object"
    if isinstance(given, list):
        return "a list"
    text = str(Decimal(given)) if isinstance(given, int) else str(given)  # a long int has no str
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return repr(text) if isinstance(given, str) else text


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the number {text[:_SHOWN]} is out of range") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return found
