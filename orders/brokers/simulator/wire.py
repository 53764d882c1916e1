"""How records look in Alpaca's JSON: trading numbers are text, market data numbers keep their digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .book import Book, asset_id
from .matching import Quote
from .records import ZERO, Asset, Execution, Order, Position, text

NINE_PLACES = Decimal("0.000000001")
_encode_text = json.JSONEncoder(ensure_ascii=False).encode


def dump(value: object) -> bytes:
    """Return JSON for a value without Decimals."""
    return json.dumps(value, separators=(",", ":")).encode()


def dump_exact(value: Any) -> str:
    """Return JSON in which a Decimal is a number with its own digits."""
    if isinstance(value, Decimal):
        return text(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_encode_text(k)}:{dump_exact(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dump_exact(item) for item in value) + "]"
    return json.dumps(value)


def _money(value: Decimal | None) -> str | None:
    return None if value is None else text(value)


def _average(order: Order) -> str:
    return text((order.filled_cost / order.filled_qty).quantize(NINE_PLACES))


def render_order(order: Order, legs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return an order as Alpaca shows it."""
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": order.submitted_at,
        "updated_at": order.updated_at,
        "submitted_at": order.submitted_at,
        "filled_at": order.filled_at,
        "expired_at": order.expired_at,
        "canceled_at": order.canceled_at,
        "failed_at": order.failed_at,
        "replaced_at": order.replaced_at,
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset_id(order.symbol),
        "symbol": order.symbol,
        "asset_class": "us_equity",
        "notional": None,
        "qty": text(order.qty),
        "filled_qty": text(order.filled_qty),
        "filled_avg_price": _average(order) if order.filled_qty else None,
        "order_class": order.order_class,
        "order_type": order.type,
        "type": order.type,
        "side": order.side,
        "position_intent": order.position_intent,
        "time_in_force": order.time_in_force,
        "limit_price": _money(order.limit_price),
        "stop_price": _money(order.stop_price),
        "status": order.status,
        "extended_hours": order.extended_hours,
        "legs": legs,
        "trail_percent": _money(order.trail_percent),
        "trail_price": _money(order.trail_price),
        "hwm": _money(order.hwm),
        "subtag": None,
        "source": None,
    }


def render_with_legs(book: Book, order: Order) -> dict[str, Any]:
    """Return an order with its legs rolled up below it, where its class has any."""
    if not order.order_class or order.parent_id is not None:
        return render_order(order)
    legs = [render_order(leg) for leg in book.legs(order.id)]
    return render_order(order, legs or None)


def render_update(event: str, order: Order, *, at: str, event_id: str, execution: Execution | None) -> dict[str, Any]:
    """Return a trade update as the stream carries it."""
    data: dict[str, Any] = {
        "event": event,
        "event_id": event_id,
        "timestamp": at,
        "order": render_order(order),
    }
    if execution is not None:
        data["execution_id"] = execution.id
        data["price"] = text(execution.price)
        data["qty"] = text(execution.qty)
        data["position_qty"] = text(execution.position_qty)
    return {"stream": "trade_updates", "data": data}


def render_position(book: Book, position: Position) -> dict[str, Any]:
    """Return a position valued at the last price of its symbol."""
    quote = book.quotes.get(position.symbol)
    asset = book.assets.get(position.symbol)
    price = quote.last if quote else position.avg_entry_price
    cost, value = position.qty * position.avg_entry_price, position.qty * price
    gain = value - cost
    ratio = text((gain / abs(cost)).quantize(Decimal("1e-10"))) if cost else "0"
    sign = 1 if position.qty > 0 else -1
    available = max(abs(position.qty) - book.held_qty(position.symbol), ZERO)
    return {
        "asset_id": asset.id if asset else asset_id(position.symbol),
        "symbol": position.symbol,
        "exchange": asset.exchange if asset else "NASDAQ",
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": text(position.qty),
        "avg_entry_price": text(position.avg_entry_price.quantize(NINE_PLACES)),
        "side": "long" if sign > 0 else "short",
        "market_value": text(value),
        "cost_basis": text(cost),
        "unrealized_pl": text(gain),
        "unrealized_plpc": ratio,
        "unrealized_intraday_pl": text(gain),
        "unrealized_intraday_plpc": ratio,
        "current_price": text(price),
        "lastday_price": text(price),
        "change_today": "0",
        "qty_available": text(available * sign),
    }


def render_asset(asset: Asset) -> dict[str, Any]:
    """Return an asset as Alpaca shows it."""
    return {
        "id": asset.id,
        "class": "us_equity",
        "exchange": asset.exchange,
        "symbol": asset.symbol,
        "name": asset.name,
        "status": asset.status,
        "tradable": asset.tradable,
        "marginable": True,
        "shortable": asset.shortable,
        "easy_to_borrow": asset.shortable,
        "fractionable": asset.fractionable,
        "maintenance_margin_requirement": 30,
        "attributes": [],
    }


def render_activity(execution: Execution, *, account_id: str) -> dict[str, Any]:
    """Return an execution as an account activity; its id ends in the execution id."""
    digits = "".join(character for character in execution.at if character.isdigit())[:17]
    done = execution.order_status == "filled"
    return {
        "id": f"{digits}::{execution.id}",
        "account_id": account_id,
        "activity_type": "FILL",
        "transaction_time": execution.at,
        "type": "fill" if done else "partial_fill",
        "price": text(execution.price),
        "qty": text(execution.qty),
        "side": execution.side,
        "symbol": execution.symbol,
        "leaves_qty": text(execution.leaves_qty),
        "cum_qty": text(execution.cum_qty),
        "order_id": execution.order_id,
        "order_status": execution.order_status,
    }


def render_quote(quote: Quote, *, number: Callable[[Decimal], Any] = lambda value: value) -> dict[str, Any]:
    """Return a quote in the field names of the market data API."""
    return {
        "t": quote.at,
        "ax": "V",
        "ap": number(quote.ask),
        "as": 100,
        "bx": "V",
        "bp": number(quote.bid),
        "bs": 100,
        "c": ["R"],
        "z": "C",
    }


def render_trade(
    quote: Quote, *, trade_id: int, number: Callable[[Decimal], Any] = lambda value: value
) -> dict[str, Any]:
    """Return the last trade of a quote in the field names of the market data API."""
    return {"t": quote.at, "x": "V", "p": number(quote.last), "s": 100, "c": ["@"], "i": trade_id, "z": "C"}
