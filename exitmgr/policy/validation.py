"""Whether a document may go live: each value by itself, and what it comes to with the other layers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from exitmgr.policy.layers import Layer, Sources, effective, override_in
from exitmgr.policy.schema import OVERRIDING, SECTIONS, InvalidPolicy
from exitmgr.policy.wording import shown, unknown_among

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9./_-]{0,31}", re.ASCII)
_NAMES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "accounts": (_ACCOUNT, "must be the name of an account: letters, digits, - and _"),
    "symbols": (_SYMBOL, "must be a symbol: capital letters, digits and any of . / _ -"),
}
#: Values of an account and of a symbol that have to fit each other are all in these places.
_FITTING: Final = (
    "trade_exit.risk_reward.min_ratio",
    "trade_exit.risk_reward.max_ratio",
    "trade_exit.break_even",
    "exit_manager.profit_taking.enabled",
    "exit_manager.max_slippage_bps",
    "exit_manager.retry_slippage_bps",
    "exit_manager.prices",
)


def problems_of(document: Any) -> dict[str, str]:
    """Return what is wrong with the values of a document, by path, whatever the other layers say."""
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        return {
            "document": f"must be an object with any of {', '.join((*SECTIONS, *OVERRIDING))}; got {shown(document)}"
        }
    found = {
        str(name): unknown_among(name, (*SECTIONS, *OVERRIDING))
        for name in document
        if name not in SECTIONS and name not in OVERRIDING
    }
    found |= _values({name: document[name] for name in SECTIONS if name in document})
    for kind in OVERRIDING:
        given = document.get(kind)
        if given is not None and not isinstance(given, Mapping):
            found[kind] = f"must be an object of {kind}; got {shown(given)}"
            continue
        for name, partial in (given or {}).items():
            found |= _override(kind, name, partial)
    return found


def override_problems(partial: Any) -> dict[str, str]:
    """Return what is wrong with the settings of one position."""
    if not isinstance(partial, Mapping):
        return {"overrides": f"must be an object with any of {', '.join(SECTIONS)}; got {shown(partial)}"}
    return _values(partial)


def conflicts_in(sources: Sources) -> dict[str, str]:
    """Return where checked values contradict each other once the layers lie over one another, by path."""
    found = _conflicts(sources)
    if found:
        return found
    accounts, symbols = (_named(sources, kind) for kind in OVERRIDING)
    for kind, names in (("account", accounts), ("symbol", symbols)):
        for name in names:
            found |= _prefixed(f"{kind}s.{name}", _conflicts(sources, **{kind: name}))
    if not found:
        # only those that both say something in one of these places can contradict each other
        pairs = product(_sensitive(sources, "accounts", accounts), _sensitive(sources, "symbols", symbols))
        for account, symbol in pairs:
            here = _conflicts(sources, account=account, symbol=symbol)
            found |= _prefixed(
                f"symbols.{symbol}", {path: f"{text} (with account {account})" for path, text in here.items()}
            )
    return found


def require_valid(document: Any, *, file: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Refuse a document that may not become the active version.

    :raises InvalidPolicy: with the path of every offending key.
    """
    found = problems_of(document) or conflicts_in(
        Sources(file=file, environment=environment, version=document or {}, number=0)
    )
    if found:
        raise InvalidPolicy(found)


def _values(partial: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with single values and with values that are given together."""
    try:
        effective([Layer("document", partial)], lenient=True)
    except InvalidPolicy as error:
        return error.problems
    return {}


def _override(kind: str, name: Any, partial: Any) -> dict[str, str]:
    pattern, wanted = _NAMES[kind]
    if not isinstance(name, str) or not pattern.fullmatch(name):
        return {f"{kind}.{name}": f"{wanted}; got {shown(name)}"}
    if partial is None:
        return {}
    if not isinstance(partial, Mapping):
        return {f"{kind}.{name}": f"must be an object with any of {', '.join(SECTIONS)}; got {shown(partial)}"}
    return _prefixed(f"{kind}.{name}", _values(partial))


def _conflicts(sources: Sources, *, account: str = "", symbol: str = "") -> dict[str, str]:
    try:
        effective(sources.layers(account=account, symbol=symbol))
    except InvalidPolicy as error:
        return error.problems
    return {}


def _named(sources: Sources, kind: str) -> list[str]:
    return list(dict.fromkeys([*(sources.file.get(kind) or {}), *(sources.version.get(kind) or {})]))


def _sensitive(sources: Sources, kind: str, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if any(
            _says_something_at(place, override_in(document, kind, name))
            for document in (sources.file, sources.version)
            for place in _FITTING
        ):
            yield name


def _says_something_at(place: str, partial: Any) -> bool:
    for part in place.split("."):
        partial = partial.get(part) if isinstance(partial, Mapping) else None
    return partial is not None


def _prefixed(prefix: str, problems: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{path}": text for path, text in problems.items()}
