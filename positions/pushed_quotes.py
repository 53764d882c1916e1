"""Prices somebody pushes: a batch is read item by item, and what is malformed is reported by its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.utils.dateparse import parse_datetime

from positions.feeds.protocol import Tick
from positions.wire import exact_number, shown

MOST_QUOTES: Final = 5_000
_PRICES: Final = ("bid", "ask", "last")
_KNOWN: Final = ("symbol", *_PRICES, "at")
_LONGEST_SYMBOL: Final = 32


def read_quotes(given: Sequence[Any], *, now: datetime) -> tuple[list[Tick], dict[str, str]]:
    """Return the well-formed items as ticks, in their order, and what is wrong with the others by path.

    An item without `at` is taken as of `now`. Whether a price is believed is decided where it is written.
    """
    ticks: list[Tick] = []
    problems: dict[str, str] = {}
    for index, item in enumerate(given):
        wrong: dict[str, str] = {}
        tick = _read(item, now=now, wrong=wrong)
        if wrong:
            problems.update({f"quotes.{index}{path}": text for path, text in wrong.items()})
        elif tick is not None:
            ticks.append(tick)
    return ticks, problems


def _read(item: Any, *, now: datetime, wrong: dict[str, str]) -> Tick | None:
    if not isinstance(item, Mapping):
        wrong[""] = f"must be an object with symbol and any of {', '.join(_PRICES)}; got {shown(item)}"
        return None
    for name in item:
        if name not in _KNOWN:
            wrong[f".{name}"] = f"is unknown; known here: {', '.join(_KNOWN)}"
    symbol = item.get("symbol")
    if not isinstance(symbol, str) or not 0 < len(symbol) <= _LONGEST_SYMBOL or "\0" in symbol:
        wrong[".symbol"] = f"must be a symbol of 1 to {_LONGEST_SYMBOL} characters; got {shown(symbol)}"
        symbol = ""
    bid, ask, last = (_price(item, name, wrong=wrong) for name in _PRICES)
    if bid is None and ask is None and last is None and not wrong:
        wrong[""] = f"must have at least one of {', '.join(_PRICES)}"
    return Tick(symbol, bid, ask, last, _at(item.get("at"), now=now, wrong=wrong))


def _price(item: Mapping[str, Any], name: str, *, wrong: dict[str, str]) -> Decimal | None:
    given = item.get(name)
    if given is None:
        return None
    number = exact_number(given)
    if number is None or number <= 0:
        wrong[f".{name}"] = f"must be a number above 0; got {shown(given)}"
    return number


def _at(given: Any, *, now: datetime, wrong: dict[str, str]) -> datetime:
    if given is None:
        return now
    try:
        at = parse_datetime(given) if isinstance(given, str) else None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    wrong[".at"] = f"must be a time with its offset, as in 2026-03-02T15:30:00.5Z; got {shown(given)}"
    return now
