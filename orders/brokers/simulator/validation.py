"""What a body of POST or PATCH /v2/orders must look like; pure, knows no account and no price.

Refusals carry Alpaca's statuses, codes and, where they are known, its words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from .records import BUY, SELL, Refusal, text

TYPES = frozenset({"market", "limit", "stop", "stop_limit", "trailing_stop"})
TIMES_IN_FORCE = frozenset({"day", "gtc", "opg", "cls", "ioc", "fok"})
CLASSES = frozenset({"", "simple", "bracket", "oco", "oto"})
MAX_CLIENT_ID = 128
MAX_DIGITS = 24
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A well-formed order; whether the account may place it is the exchange's question."""

    symbol: str
    side: str
    type: str
    time_in_force: str
    order_class: str
    qty: Decimal
    client_order_id: str | None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    extended_hours: bool = False
    target_price: Decimal | None = None  # take_profit.limit_price
    protect_price: Decimal | None = None  # stop_loss.stop_price
    protect_limit: Decimal | None = None  # stop_loss.limit_price


@dataclass(frozen=True, slots=True)
class Amendment:
    """The fields of an order that a PATCH changes."""

    qty: Decimal | None
    time_in_force: str | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail: Decimal | None
    client_order_id: str | None


def refuse(message: str, code: int = 42210000) -> NoReturn:
    """Refuse with 422."""
    raise Refusal(422, code, message)


def read_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body, its numbers as Decimal.

    :raises Refusal: 400, the body is not a JSON object.
    """
    try:
        body = json.loads(raw, parse_float=Decimal, parse_constant=_no_constant)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, 40010000, "request body format is invalid")
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def read_number(body: dict[str, Any], field: str, *, name: str | None = None) -> Decimal | None:
    """Return a positive number given as number or text, or None where the field is absent."""
    value = body.get(field)
    if value is None or value == "":
        return None
    label = name or field
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        refuse(f"{label} must be a number", 40010001)
    try:
        number = Decimal(value)
    except InvalidOperation:
        refuse(f"{label} must be a number", 40010001)
    if not number.is_finite() or len(number.as_tuple().digits) > MAX_DIGITS:
        refuse(f"{label} must be a number", 40010001)
    if number <= 0:
        refuse(f"{label} must be > 0")
    return number.normalize()


def read_price(body: dict[str, Any], field: str, *, name: str | None = None) -> Decimal | None:
    """Return a price on the tick: two decimals from one dollar, four below."""
    price = read_number(body, field, name=name)
    if price is None:
        return None
    exponent = price.as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) else 0
    if decimals > (2 if price >= 1 else 4):
        refuse(f"invalid {name or field} {text(price)}. sub-penny increment does not fulfill minimum pricing criteria")
    return price


def _read_word(body: dict[str, Any], field: str, allowed: frozenset[str]) -> str:
    value = body.get(field)
    if value is None or value == "":
        refuse(f"{field} is required", 40010001)
    if value not in allowed:
        refuse(f"invalid {field}: {value}", 40010001)
    return str(value)


def _read_qty(body: dict[str, Any]) -> Decimal:
    if body.get("notional") not in (None, ""):
        refuse("notional orders are not supported here: send qty instead of notional")
    qty = read_number(body, "qty")
    if qty is None:
        refuse("qty is required", 40010001)
    exponent = qty.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -9:
        refuse("qty can have at most 9 decimal places")
    return qty


def _read_client_id(body: dict[str, Any]) -> str | None:
    client_order_id = body.get("client_order_id")
    if client_order_id is None or client_order_id == "":
        return None
    if not isinstance(client_order_id, str):
        refuse("client_order_id must be a string", 40010001)
    if len(client_order_id) > MAX_CLIENT_ID:
        refuse(f"client_order_id must be no more than {MAX_CLIENT_ID} characters", 40010001)
    return client_order_id


def _read_leg(body: dict[str, Any], field: str) -> dict[str, Any]:
    leg = body.get(field)
    if leg is None:
        return {}
    if not isinstance(leg, dict):
        refuse(f"{field} must be an object", 40010001)
    return leg


def read_order(body: dict[str, Any]) -> OrderRequest:
    """Return the order that a body asks for.

    :raises Refusal: a field is missing, malformed, or does not go with the others.
    """
    symbol = body.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        refuse("symbol is required", 40010001)
    order_class = body.get("order_class") or ""
    if order_class not in CLASSES:
        refuse(f"invalid order_class: {order_class}", 40010001)
    target, protect = _read_leg(body, "take_profit"), _read_leg(body, "stop_loss")
    request = OrderRequest(
        symbol=symbol,
        side=_read_word(body, "side", frozenset({BUY, SELL})),
        type=_read_word(body, "type", TYPES),
        time_in_force=_read_word(body, "time_in_force", TIMES_IN_FORCE),
        order_class="" if order_class == "simple" else order_class,
        qty=_read_qty(body),
        client_order_id=_read_client_id(body),
        limit_price=read_price(body, "limit_price"),
        stop_price=read_price(body, "stop_price"),
        trail_price=read_price(body, "trail_price"),
        trail_percent=read_number(body, "trail_percent"),
        extended_hours=body.get("extended_hours") is True,
        target_price=read_price(target, "limit_price", name="take_profit.limit_price"),
        protect_price=read_price(protect, "stop_price", name="stop_loss.stop_price"),
        protect_limit=read_price(protect, "limit_price", name="stop_loss.limit_price"),
    )
    check_type(request)
    check_time_in_force(request)
    check_class(request)
    return request


def check_type(request: OrderRequest) -> None:
    """Refuse prices that do not go with the order type."""
    limit, stop = request.limit_price is not None, request.stop_price is not None
    trails = (request.trail_price is not None) + (request.trail_percent is not None)
    kind = request.type
    if kind == "market" and (limit or stop):
        refuse("market orders require no stop or limit price")
    if kind == "limit" and (stop or not limit) and request.order_class != "oco":
        refuse("limit orders require only limit price")
    if kind == "stop" and (limit or not stop):
        refuse("stop orders require only stop price")
    if kind == "stop_limit" and not (limit and stop):
        refuse("stop limit orders require both stop and limit price")
    if kind == "trailing_stop" and (trails != 1 or limit or stop):
        refuse("trailing stop orders must specify one of trail_price or trail_percent")
    if kind != "trailing_stop" and trails:
        refuse(f"{kind} orders require no trail_price or trail_percent")
    if request.trail_percent is not None and request.trail_percent >= 100:
        refuse("trail_percent must be less than 100")


def check_time_in_force(request: OrderRequest) -> None:
    """Refuse times in force that do not go with the order."""
    kind, tif = request.type, request.time_in_force
    if tif in ("opg", "cls", "ioc", "fok") and kind not in ("market", "limit"):
        refuse(f"{tif} time in force is only for market and limit orders")
    if request.order_class and tif not in ("day", "gtc"):
        refuse("complex orders are only supported for day or gtc time in force")
    if request.qty != request.qty.to_integral_value():
        if tif != "day":
            refuse("fractional orders must be DAY orders")
        if request.order_class or kind == "trailing_stop":
            refuse("fractional orders must be simple orders")
    if request.extended_hours and (kind != "limit" or tif not in ("day", "gtc") or request.order_class):
        refuse("extended hours order must be DAY limit orders")


def check_class(request: OrderRequest) -> None:
    """Refuse legs that do not go with the order class."""
    kind = request.order_class
    has_target, has_stop = request.target_price is not None, request.protect_price is not None
    if request.protect_limit is not None and not has_stop:
        refuse("stop_loss.stop_price is required", 40010001)
    if not kind:
        if has_target or has_stop:
            refuse("take_profit and stop_loss need order_class bracket, oco or oto")
        return
    if request.type == "trailing_stop":
        refuse("trailing stop orders must be simple orders")
    if kind in ("bracket", "oco"):
        target = request.target_price if kind == "bracket" else request.target_price or request.limit_price
        if target is None:
            refuse(f"{kind} orders require take_profit.limit_price")
        if not has_stop:
            refuse(f"{kind} orders require stop_loss.stop_price")
        if kind == "oco" and request.type != "limit":
            refuse("oco orders must be limit orders")
    elif has_target == has_stop:
        refuse("oto orders require exactly one of take_profit and stop_loss")


def read_amendment(body: dict[str, Any]) -> Amendment:
    """Return the changes that a PATCH asks for.

    :raises Refusal: a field is malformed, or nothing is asked for.
    """
    qty = read_number(body, "qty")
    if qty is not None and qty != qty.to_integral_value():
        refuse("qty must be integer")
    tif = body.get("time_in_force")
    if tif is not None and tif not in TIMES_IN_FORCE:
        refuse(f"invalid time_in_force: {tif}", 40010001)
    amendment = Amendment(
        qty=qty,
        time_in_force=tif,
        limit_price=read_price(body, "limit_price"),
        stop_price=read_price(body, "stop_price"),
        trail=read_number(body, "trail"),
        client_order_id=_read_client_id(body),
    )
    if all(value is None for value in (qty, tif, amendment.limit_price, amendment.stop_price, amendment.trail)):
        refuse("at least one of qty, time_in_force, limit_price, stop_price, trail is required", 40010001)
    return amendment
