"""Which layer wins: defaults, file, environment, version, account, symbol, position, each over those before it. Pure.

Where the file and the version both have a section for an account or a symbol, the version's goes over the file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from exitmgr.policy.schema import DEFAULTS, LENIENT, SECTIONS, InvalidPolicy, Policy, Section
from exitmgr.policy.wording import models_in, problems_in, unknown_among

Partial = Mapping[str, Any]
NOTHING: Final[Partial] = {}
#: Keys whose values merge by name though the names are free.
_BY_NAME: Final = frozenset({"symbol_specific_ratios"})


@dataclass(frozen=True)
class Layer:
    """What one place sets, under the name it is explained by."""

    name: str
    partial: Partial


@dataclass(frozen=True)
class Sources:
    """The three places a configuration comes from; `version` is called by its number."""

    file: Partial = field(default_factory=dict)
    environment: Partial = field(default_factory=dict)
    version: Partial = field(default_factory=dict)
    number: int | None = None

    def layers(self, *, account: str = "", symbol: str = "", overrides: Partial = NOTHING) -> list[Layer]:
        """Return what applies, the weakest first."""
        version = f"version {self.number}"
        found = [
            Layer("file", sections_of(self.file)),
            Layer("environment", sections_of(self.environment)),
            Layer(version, sections_of(self.version)),
        ]
        for kind, word, name in (("accounts", "account", account), ("symbols", "symbol", symbol)):
            if name:
                found.append(Layer(f"file, {word} {name}", override_in(self.file, kind, name)))
                found.append(Layer(f"{version}, {word} {name}", override_in(self.version, kind, name)))
        found.append(Layer("position", overrides))
        return [layer for layer in found if layer.partial]


@dataclass(frozen=True)
class Explanation:
    """The value of one key, the layer that gave it, and what every layer says, the weakest first."""

    path: str
    value: Any
    source: str
    says: tuple[tuple[str, Any], ...]


def sections_of(document: Partial) -> Partial:
    """Return the part of a document that holds for everybody."""
    return {name: document[name] for name in SECTIONS if document.get(name) is not None}


def override_in(document: Partial, kind: str, name: str) -> Partial:
    """Return what a document says of one account or symbol alone."""
    found: Partial = ((document.get(kind) or {}).get(name)) or {}
    return found


def merge(below: Partial, above: Partial, *, model: type[BaseModel] = Policy) -> dict[str, Any]:
    """Return what holds when one layer lies over another."""
    merged = dict(below)
    for name, value in above.items():
        section = section_at(name, model)
        if section is not None and value is None:
            continue  # a heading with nothing below it
        if section is not None and isinstance(value, Mapping):
            merged[name] = merge(_mapping(below.get(name)), value, model=section)
        elif name in _BY_NAME and isinstance(value, Mapping):
            merged[name] = {**_mapping(below.get(name)), **value}
        else:
            merged[name] = value
    return merged


def section_at(name: str, model: type[BaseModel]) -> type[Section] | None:
    """Return the section a key of a model opens, or None where it is a value."""
    found = model.model_fields.get(name)
    kinds = models_in(found.annotation) if found else ()
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


def stack(partials: Sequence[Partial]) -> dict[str, Any]:
    """Return the defaults with these layers over them, the weakest first."""
    merged: dict[str, Any] = DEFAULTS
    for partial in partials:
        merged = merge(merged, partial)
    return merged


def effective(layers: Sequence[Layer], *, lenient: bool = False) -> Policy:
    """Return the configuration that layers come to.

    With `lenient` values that were checked one by one are taken even where they do not fit together.

    :raises InvalidPolicy: with the path of every offending key.
    """
    merged = stack([layer.partial for layer in layers])
    try:
        return Policy.model_validate(merged, context=LENIENT if lenient else None)
    except ValidationError as error:
        found = problems_in(error.errors(), root=Policy)
        if isinstance(merged["trade_exit"], Mapping) and isinstance(merged["trade_exit"].get("trailing"), Mapping):
            # a single trail may be written without a list
            found = {path.replace("trade_exit.trailing.0", "trade_exit.trailing"): text for path, text in found.items()}
        raise InvalidPolicy(found) from None


def explain(path: str, layers: Sequence[Layer], *, policy: Policy) -> list[Explanation]:
    """Return where the value of a key comes from; for a section, of every key below it.

    :raises InvalidPolicy: there is no such key.
    """
    values = flat(policy.model_dump())
    paths = [one for one in values if one == path or one.startswith(f"{path}.")] if path else list(values)
    if not paths:
        raise InvalidPolicy({path: _unknown(path)})
    said = [("default", flat(DEFAULTS)), *((layer.name, flat(layer.partial)) for layer in layers)]
    found = []
    for one in paths:
        says = tuple((name, known[one]) for name, known in said if one in known)
        found.append(Explanation(path=one, value=values[one], source=says[-1][0] if says else "default", says=says))
    return found


def flat(partial: Partial, *, model: type[BaseModel] = Policy, prefix: str = "") -> dict[str, Any]:
    """Return every value of a layer by its path."""
    return dict(_leaves(partial, model, prefix))


def _leaves(partial: Partial, model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in partial.items():
        section = section_at(name, model)
        if section is not None and isinstance(value, Mapping):
            yield from _leaves(value, section, f"{prefix}{name}.")
        elif name in _BY_NAME and isinstance(value, Mapping):
            yield from ((f"{prefix}{name}.{inner}", one) for inner, one in value.items())
        elif section is None or value is not None:
            yield f"{prefix}{name}", value


def _unknown(path: str) -> str:
    model: type[BaseModel] = Policy
    for name in path.split("."):
        if name not in model.model_fields:
            return unknown_among(name, list(model.model_fields))
        section = section_at(name, model)
        if section is None:
            break
        model = section
    return "has no value"


def _mapping(value: Any) -> Partial:
    return value if isinstance(value, Mapping) else {}
