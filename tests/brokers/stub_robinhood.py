"""A server of our own that speaks as Robinhood's was seen to speak, for tests: orders match against set prices.

Field names, words of refusals and the shape of pages are those that users of its interface published; nobody documents
them. It keeps its own books, so that what an adapter says can be compared with what truly happened.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from urllib.parse import urlencode

from orders.brokers.robinhood_payloads import ref_id
from tests.brokers.stub_robinhood_http import Refusal, serve

D = Decimal
ACCOUNT = "5RY82436"
PAGE = 10
WORKING = {"unconfirmed", "confirmed", "partially_filled"}


@dataclass
class Fault:
    """A way to break the next request, or the next of one order."""

    kind: str
    ref: str = ""


@dataclass
class Order:
    """One order, as the server keeps it."""

    id: str
    ref_id: str
    symbol: str
    side: str
    type: str
    trigger: str
    quantity: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    created_at: str
    updated_at: str
    extended_hours: bool = False
    state: str = "confirmed"
    triggered: bool = False
    half_only: bool = False
    executions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum((fill["quantity"] for fill in self.executions), D(0))

    @property
    def left(self) -> Decimal:
        return self.quantity - self.filled


class StubRobinhood:
    """The server and its books."""

    def __init__(self, *, token: str, symbols: tuple[str, ...], silence_seconds: float = 6.0) -> None:
        self.token = token
        self.silence_seconds = silence_seconds
        self.symbols = {symbol: str(uuid.uuid5(uuid.NAMESPACE_DNS, symbol)) for symbol in symbols}
        self._symbol_of = {instrument_id: symbol for symbol, instrument_id in self.symbols.items()}
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.RLock()
        self.reset()
        self._server = serve(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    # -- the test's side

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self.orders: dict[str, Order] = {}
            self.held: dict[str, tuple[Decimal, Decimal]] = {}
            self.quotes: dict[str, tuple[Decimal, Decimal]] = {}
            self.cash = D(1_000_000)
            self.faults: list[Fault] = []
            self.requests.clear()
            self.bodies.clear()

    def set_price(self, symbol: str, *, bid: Decimal, ask: Decimal) -> None:
        """Move the market and match what it reaches."""
        with self.lock:
            self.quotes[symbol] = (bid, ask)
            for order in list(self.orders.values()):
                if order.symbol == symbol:
                    self._match(order)

    def inject(self, kind: str, *, client_order_id: str = "") -> None:
        """Break the next request."""
        self.faults.append(Fault(kind, ref_id(client_order_id) if client_order_id else ""))

    def of_client(self, client_order_id: str) -> list[Order]:
        """Return the orders that are truly there under an id of ours."""
        with self.lock:
            return [order for order in self.orders.values() if order.ref_id == ref_id(client_order_id)]

    # -- its own side

    def take_fault(self, *, kinds: set[str], ref: str = "") -> str:
        """Return and end the fault that breaks this request, or nothing."""
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and fault.ref in ("", ref):
                    self.faults.remove(fault)
                    return fault.kind
        return ""

    def place(self, body: dict[str, Any]) -> Order:
        """Accept an order and match it at once.

        :raises Refusal: as it may be.
        """
        with self.lock:
            self._check(body)
            now = _now()
            order = Order(
                id=str(uuid.uuid4()),
                created_at=now,
                updated_at=now,
                quantity=D(body["quantity"]),
                price=D(body["price"]) if body.get("price") else None,
                stop_price=D(body["stop_price"]) if body.get("stop_price") else None,
                **{name: body[name] for name in _COPIED},
            )
            order.half_only = bool(self.take_fault(kinds={"partial_fill"}, ref=order.ref_id))
            self.orders[order.id] = order
            self._match(order)
            return order

    def _check(self, body: dict[str, Any]) -> None:
        needed = [name for name in (*_COPIED, "account", "instrument", "quantity") if name not in body]
        if needed:
            raise Refusal(400, {name: ["This field is required."] for name in needed})
        if any(order.ref_id == body["ref_id"] for order in self.orders.values()):
            raise Refusal(400, {"ref_id": ["Order with this ref_id already exists."]})
        quantity, is_buy = D(body["quantity"]), body["side"] == "buy"
        for name in ("price", "stop_price"):
            price = D(body.get(name) or 1)
            if price != round(price, 2 if price >= 1 else 4):
                raise Refusal(400, {name: ["Invalid price increment."]})
        if body["type"] == "market" and body["trigger"] == "immediate" and body["time_in_force"] == "gtc":
            raise Refusal(400, {"non_field_errors": ["Invalid Good Til Canceled order."]})
        if is_buy and body["type"] == "market":
            said = "Your app version is missing important stock trading updates. You can still place orders on the web."
            raise Refusal(400, {"non_field_errors": [said]})
        by_market = "preset_percent_limit" in body or (body["type"], body["trigger"]) == ("market", "immediate")
        if quantity != int(quantity) and not by_market:
            raise Refusal(400, {"non_field_errors": ["Limit order quantity cannot include fractional shares."]})
        if is_buy and quantity * D(body["price"]) > self.cash:
            raise Refusal(400, {"detail": f"You can only purchase 0 shares of {body['symbol']}."})
        if not is_buy and quantity > self.available(body["symbol"]):
            raise Refusal(400, {"detail": "Not enough shares to sell."})

    def available(self, symbol: str) -> Decimal:
        """Return the shares that no open sale holds."""
        sales = (o.left for o in self.orders.values() if o.symbol == symbol and o.side == "sell" and o.state in WORKING)
        return self.held.get(symbol, (D(0), D(0)))[0] - sum(sales, D(0))

    def cancel(self, order: Order) -> None:
        """End an order.

        :raises Refusal: it has ended.
        """
        with self.lock:
            if order.state not in WORKING:
                raise Refusal(400, {"detail": "Order cannot be cancelled at this time."})
            order.state, order.updated_at = "cancelled", _now()

    def _match(self, order: Order) -> None:
        if order.state not in WORKING or order.symbol not in self.quotes:
            return
        bid, ask = self.quotes[order.symbol]
        at, sign = (ask, 1) if order.side == "buy" else (bid, -1)
        if order.trigger == "stop" and not order.triggered:
            if order.stop_price is None or sign * (at - order.stop_price) < 0:
                return
            order.triggered = True
        if order.price is not None and sign * (at - order.price) > 0:
            return
        quantity = order.left / 2 if order.half_only else order.left
        if order.half_only and order.executions:
            return
        held, cost = self.held.get(order.symbol, (D(0), D(0)))
        paid = held * cost + (quantity * at if sign > 0 else -quantity * cost)
        total = held + sign * quantity
        self.held[order.symbol] = (total, paid / total if total else D(0))
        self.cash -= sign * quantity * at
        order.executions.append(
            {"id": str(uuid.uuid4()), "quantity": quantity, "price": at, "timestamp": _now(), "settlement_date": None}
        )
        order.state = "partially_filled" if order.left else "filled"
        order.updated_at = _now()

    # -- as it shows itself

    def show(self, order: Order) -> dict[str, Any]:
        """Return an order as the interface shows it: by the link of its instrument, numbers as text."""
        average = (
            sum((f["price"] * f["quantity"] for f in order.executions), D(0)) / order.filled if order.filled else 0
        )
        return {
            "id": order.id,
            "ref_id": order.ref_id,
            "url": f"{self.url}/orders/{order.id}/",
            "account": f"{self.url}/accounts/{ACCOUNT}/",
            "cancel": f"{self.url}/orders/{order.id}/cancel/" if order.state in WORKING else None,
            "instrument": f"https://api.robinhood.com/instruments/{self.symbols[order.symbol]}/",
            "cumulative_quantity": _text(order.filled, 8),
            "average_price": _text(D(average), 8) if order.filled else None,
            "fees": "0.00",
            "state": order.state,
            "type": order.type,
            "side": order.side,
            "time_in_force": order.time_in_force,
            "trigger": order.trigger,
            "price": None if order.price is None else _text(order.price, 8),
            "stop_price": None if order.stop_price is None else _text(order.stop_price, 8),
            "quantity": _text(order.quantity, 8),
            "reject_reason": None,
            "created_at": order.created_at,
            "updated_at": order.updated_at,
            "last_transaction_at": order.updated_at,
            "executions": [
                fill | {"quantity": _text(fill["quantity"], 8), "price": _text(fill["price"], 8)}
                for fill in order.executions
            ],
            "extended_hours": order.extended_hours,
        }

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """Return the body of a question.

        :raises Refusal: there is no such thing.
        """
        kind, *rest = [part for part in path.split("/") if part]
        shows: dict[tuple[str, int], Callable[..., Any]] = {
            ("accounts", 0): lambda: _page([self._account()]),
            ("portfolios", 1): self._portfolio,
            ("instruments", 0): lambda: _page([self._instrument(s) for s in self.symbols if s == query["symbol"]]),
            ("instruments", 1): lambda wanted: self._instrument(self._symbol_of[wanted]),
            ("quotes", 1): lambda symbol: self._bars(query) if symbol == "historicals" else self._quote(symbol),
            ("positions", 0): lambda: _page([self._position(symbol) for symbol in self.held if self.held[symbol][0]]),
            ("orders", 0): lambda: self._orders(query),
            ("orders", 1): lambda order_id: self.show(self.orders[order_id]),
        }
        with self.lock:
            try:
                return shows[kind, len(rest)](*rest)
            except KeyError:
                raise Refusal(404, {"detail": "Not found."}) from None

    def _portfolio(self, number: str) -> dict[str, Any]:
        worth = sum((quantity * cost for quantity, cost in self.held.values()), D(0))
        return {"account": f"{self.url}/accounts/{number}/", "equity": _text(self.cash + worth, 4)}

    def _quote(self, symbol: str) -> dict[str, Any]:
        bid, ask = self.quotes[symbol]
        return {"symbol": symbol, "bid_price": _text(bid, 6), "ask_price": _text(ask, 6)}

    def _bars(self, query: dict[str, str]) -> dict[str, Any]:
        symbol = query["symbols"]
        return _page([{"symbol": symbol, "interval": query["interval"], "historicals": self.bars.get(symbol, [])}])

    def _orders(self, query: dict[str, str]) -> dict[str, Any]:
        since = datetime.fromisoformat(query.get("updated_at[gte]", "1970-01-01T00:00:00Z"))
        rows = [o for o in reversed(self.orders.values()) if datetime.fromisoformat(o.updated_at) >= since]
        begin = int(query.get("cursor", "0"))
        page = _page([self.show(order) for order in rows[begin : begin + PAGE]])
        if len(rows) > begin + PAGE:
            page["next"] = f"https://api.robinhood.com/orders/?{urlencode(query | {'cursor': str(begin + PAGE)})}"
        return page

    def _account(self) -> dict[str, Any]:
        return {
            "url": f"{self.url}/accounts/{ACCOUNT}/",
            "account_number": ACCOUNT,
            "cash": _text(self.cash, 4),
            "buying_power": _text(self.cash, 4),
            "deactivated": False,
            "locked": False,
            "only_position_closing_trades": False,
            "type": "margin",
        }

    def _instrument(self, symbol: str) -> dict[str, Any]:
        return {
            "id": self.symbols[symbol],
            "url": f"https://api.robinhood.com/instruments/{self.symbols[symbol]}/",
            "symbol": symbol,
            "state": "active",
            "tradeable": True,
            "tradability": "tradable",
            "fractional_tradability": "tradable",
            "min_tick_size": None,
            "type": "stock",
        }

    def _position(self, symbol: str) -> dict[str, Any]:
        quantity, cost = self.held[symbol]
        return {
            "instrument": f"https://api.robinhood.com/instruments/{self.symbols[symbol]}/",
            "account_number": ACCOUNT,
            "quantity": _text(quantity, 8),
            "average_buy_price": _text(cost, 4),
            "shares_held_for_sells": _text(quantity - self.available(symbol), 8),
            "shares_held_for_buys": "0.00000000",
        }


_COPIED = ("ref_id", "symbol", "side", "type", "trigger", "time_in_force", "extended_hours")


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _text(number: Decimal, places: int) -> str:
    return str(number.quantize(D(1).scaleb(-places), rounding=ROUND_HALF_UP))


def _page(rows: list[Any]) -> dict[str, Any]:
    return {"next": None, "previous": None, "results": rows}
