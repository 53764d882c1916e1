"""What control requests may say; everything else is answered with what is wrong and what would be right."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request

from .book import asset_id
from .matching import Quote
from .records import Asset


class Wrong(Exception):  # an answer to the client, not a failure of this program
    """A control request that makes no sense: says what is wrong and what would be right."""


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request."""
    try:
        body = json.loads(await request.body(), parse_float=Decimal)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Wrong("the body must be a JSON object")
    return body


def read_list(body: dict[str, Any], field: str) -> list[Any]:
    """Return a list that is not empty."""
    value = body.get(field)
    if not isinstance(value, list) or not value:
        raise Wrong(f"{field} must be a list that is not empty")
    return value


def read_decimal(value: object, field: str) -> Decimal:
    """Return a finite number."""
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            return number
    raise Wrong(f"{field} must be a number, not {value!r}")


def read_symbol(body: dict[str, Any]) -> str:
    """Return the symbol of an object."""
    symbol = body.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise Wrong("symbol must be a text such as AAPL")
    return symbol


def read_symbols(body: dict[str, Any]) -> list[str] | None:
    """Return a list of symbols, None for all."""
    symbols = body.get("symbols")
    if symbols is None:
        return None
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise Wrong("symbols must be a list of symbols, or null for all")
    return symbols


def read_session(value: object) -> str:
    """Return the date of a session."""
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise Wrong(f"a session must be a date such as 2008-09-29, not {value!r}") from None


def read_spread(body: dict[str, Any]) -> Decimal:
    """Return the spread in basis points, 5 when none is given."""
    spread = read_decimal(body.get("spread_bps", 5), "spread_bps")
    if not 0 <= spread <= 5000:
        raise Wrong(f"spread_bps must be between 0 and 5000, not {spread}")
    return spread


def read_quote(spec: object, *, at: str) -> Quote:
    """Return the quote that an object describes; without a last price it is the middle."""
    if not isinstance(spec, dict):
        raise Wrong('each quote must be an object such as {"symbol": "AAPL", "bid": "99.99", "ask": "100.01"}')
    symbol = read_symbol(spec)
    bid, ask = (
        read_decimal(spec.get("bid"), f"bid of {symbol}"),
        read_decimal(spec.get("ask"), f"ask of {symbol}"),
    )
    last = read_decimal(spec["last"], f"last of {symbol}") if spec.get("last") is not None else (bid + ask) / 2
    if not 0 < bid <= ask or last <= 0:
        raise Wrong(f"the quote of {symbol} needs 0 < bid <= ask and last > 0, not {bid}, {ask}, {last}")
    return Quote(symbol, bid, ask, last, at)


def read_asset(spec: object) -> Asset:
    """Return the asset that an object describes."""
    if not isinstance(spec, dict):
        raise Wrong('each asset must be an object such as {"symbol": "AAPL", "fractionable": true}')
    symbol = read_symbol(spec)
    flags = {}
    for name in ("tradable", "shortable", "fractionable"):
        value = spec.get(name, True)
        if not isinstance(value, bool):
            raise Wrong(f"{name} must be true or false, not {value!r}")
        flags[name] = value
    status = spec.get("status", "active")
    if status not in ("active", "inactive"):
        raise Wrong(f'status must be "active" or "inactive", not {status!r}')
    return Asset(
        symbol=symbol,
        id=asset_id(symbol),
        name=str(spec.get("name", symbol)),
        exchange=str(spec.get("exchange", "NASDAQ")),
        status=status,
        **flags,
    )
