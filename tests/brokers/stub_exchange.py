"""A spot exchange on loopback that speaks one venue's REST as ccxt knows it (api.binance.com, /api/v3).

Payloads have the fields, types and codes of that venue's documentation. It keeps one account and fills at the quoted
price; the test turns prices and faults by plain calls, because it runs in threads of the test itself.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

D = Decimal
KEY, SECRET, QUOTE = "stub-key", "stub-secret", "USDT"
TICK, STEP = D("0.0001"), D("0.000000001")
BASES = tuple(f"CONF{number}" for number in range(60))
_MILLISECONDS_A_DAY = 86_400_000
_STOPS = {"STOP_LOSS", "STOP_LOSS_LIMIT"}
ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]


class Sorry(Exception):
    """A refusal: status, the venue's code, and its words."""

    def __init__(self, status: int, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.body, self.headers = status, {"code": code, "msg": message}, headers


class CutOff(Exception):
    """The connection ends without an answer."""


@dataclass(slots=True)
class Placed:
    """One order at the stub."""

    order_id: int
    client_id: str
    symbol: str
    side: str
    kind: str
    quantity: Decimal
    price: Decimal
    stop: Decimal
    time_in_force: str
    at: int
    filled: Decimal = Decimal(0)
    value: Decimal = Decimal(0)
    status: str = "NEW"
    triggered: bool = False
    share: Decimal = Decimal(1)  # of what is left, taken by the next fill
    trades: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")

    @property
    def left(self) -> Decimal:
        return self.quantity - self.filled

    def payload(self) -> dict[str, Any]:
        return {
            "symbol": self.symbol, "orderId": self.order_id, "orderListId": -1, "clientOrderId": self.client_id,
            "price": f"{self.price:f}", "origQty": f"{self.quantity:f}", "executedQty": f"{self.filled:f}",
            "origQuoteOrderQty": "0.00000000", "cummulativeQuoteQty": f"{self.value:f}", "status": self.status,
            "timeInForce": self.time_in_force, "type": self.kind, "side": self.side, "stopPrice": f"{self.stop:f}",
            "icebergQty": "0.00000000", "time": self.at, "updateTime": self.at, "isWorking": not self.is_stop,
            "workingTime": self.at, "selfTradePreventionMode": "EXPIRE_MAKER",
        }  # fmt: skip

    @property
    def is_stop(self) -> bool:
        return self.kind in _STOPS and not self.triggered


class Exchange:
    """The venue's truth: balances, orders, quotes, and what is to go wrong."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Begin with money alone."""
        with self.lock:
            self.balances: dict[str, Decimal] = {QUOTE: D(1_000_000)}
            self.quotes: dict[str, tuple[Decimal, Decimal]] = {}
            self.placed: dict[int, Placed] = {}
            self.faults: list[tuple[str, str]] = []  # kind, client order id or nothing
            self.requests: list[tuple[str, str, dict[str, str]]] = []
            self.ignores_triggers = False
            self.fee: tuple[str, Decimal] = ("BNB", D(0))
        self._numbers = itertools.count(int(time.time() * 1000))

    # -- controlled by tests

    def quote(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """Move a market (by its own name: CONF1USDT) and fill what it reaches."""
        with self.lock:
            self.quotes[symbol] = (bid, ask)
            for order in list(self.placed.values()):
                if order.symbol == symbol and order.is_open:
                    self._match(order)

    def fault(self, kind: str, client_id: str = "") -> None:
        """Break the next request, the next placing of an order with this id, or the next "question"."""
        with self.lock:
            self.faults.append((kind, client_id))

    def locked(self, asset: str) -> Decimal:
        """Return how much of an asset open orders hold."""
        held = D(0)
        for order in self.placed.values():
            if order.is_open and order.side == "SELL" and order.symbol == asset + QUOTE:
                held += order.left
            if order.is_open and order.side == "BUY" and asset == QUOTE:
                held += order.left * order.price
        return held

    # -- the engine

    def take_fault(self, *kinds: str, client_id: str = "") -> str:
        """Return and forget the first fault of these kinds that is meant for this request."""
        with self.lock:
            for fault in self.faults:
                if fault[0] in kinds and fault[1] in ("", client_id):
                    self.faults.remove(fault)
                    return fault[0]
        return ""

    def place(self, asked: dict[str, str]) -> dict[str, Any]:
        """Take an order or refuse it."""
        with self.lock:
            symbol = asked["symbol"]
            self._known(symbol)
            order = Placed(
                order_id=next(self._numbers), client_id=asked["newClientOrderId"], symbol=symbol, side=asked["side"],
                kind=asked["type"], quantity=D(asked["quantity"]), price=D(asked.get("price", "0")),
                stop=D(asked.get("stopPrice", "0")), time_in_force=asked.get("timeInForce", "GTC"),
                at=int(time.time() * 1000),
            )  # fmt: skip
            if order.price % TICK or order.stop % TICK:
                raise Sorry(400, -1013, "Filter failure: PRICE_FILTER")
            if order.quantity % STEP or order.quantity <= 0:
                raise Sorry(400, -1013, "Filter failure: LOT_SIZE")
            if any(other.client_id == order.client_id and other.is_open for other in self.placed.values()):
                raise Sorry(400, -2010, "Duplicate order sent.")
            if symbol not in self.quotes:
                raise Sorry(400, -1013, "Market is closed.")
            bid, ask = self.quotes[symbol]
            if order.is_stop and (bid <= order.stop if order.side == "SELL" else ask >= order.stop):
                raise Sorry(400, -2010, "Stop price would trigger immediately.")
            base = symbol.removesuffix(QUOTE)
            asset, need = (
                (base, order.quantity) if order.side == "SELL" else (QUOTE, order.quantity * (order.price or ask))
            )
            if need > self.balances.get(asset, D(0)) - self.locked(asset):
                raise Sorry(400, -2010, "Account has insufficient balance for requested action.")
            if self.ignores_triggers and order.kind == "STOP_LOSS_LIMIT":
                order.kind, order.stop = "LIMIT", D(0)
            if self.take_fault("partial_fill", client_id=order.client_id):
                order.share = D("0.5")
            self.placed[order.order_id] = order
            self._match(order)
            if order.is_open and order.time_in_force in ("IOC", "FOK"):
                order.status = "EXPIRED"
            answer = order.payload() | {"transactTime": order.at, "fills": []}
            del answer["time"], answer["updateTime"], answer["isWorking"]
            return answer

    def _match(self, order: Placed) -> None:
        bid, ask = self.quotes[order.symbol]
        price = ask if order.side == "BUY" else bid
        if order.is_stop:
            if (price < order.stop) if order.side == "BUY" else (price > order.stop):
                return
            order.triggered = True
        if order.price and (price > order.price if order.side == "BUY" else price < order.price):
            return
        quantity = order.left * order.share
        order.share = D(1)
        order.filled += quantity
        order.value += quantity * price
        order.status = "FILLED" if not order.left else "PARTIALLY_FILLED"
        order.at = int(time.time() * 1000)
        sign = 1 if order.side == "BUY" else -1
        base = order.symbol.removesuffix(QUOTE)
        self.balances[base] = self.balances.get(base, D(0)) + sign * quantity
        self.balances[QUOTE] -= sign * quantity * price
        order.trades.append(
            {
                "symbol": order.symbol, "id": next(self._numbers), "orderId": order.order_id, "orderListId": -1,
                "price": f"{price:f}", "qty": f"{quantity:f}", "quoteQty": f"{quantity * price:f}",
                "commission": f"{self.fee[1]:f}", "commissionAsset": self.fee[0], "time": order.at,
                "isBuyer": sign > 0, "isMaker": False, "isBestMatch": True,
            }
        )  # fmt: skip

    def _known(self, symbol: str) -> None:
        if symbol.removesuffix(QUOTE) not in BASES:
            raise Sorry(400, -1121, "Invalid symbol.")

    def _one(self, asked: dict[str, str], *, code: int, message: str) -> Placed:
        self._known(asked["symbol"])
        for order in reversed(list(self.placed.values())):
            if order.symbol == asked["symbol"] and (
                str(order.order_id) == asked.get("orderId") or order.client_id == asked.get("origClientOrderId")
            ):
                return order
        raise Sorry(400, code, message)

    def cancel(self, asked: dict[str, str]) -> dict[str, Any]:
        """Take an order off the book."""
        with self.lock:
            order = self._one(asked, code=-2011, message="Unknown order sent.")
            if not order.is_open:
                raise Sorry(400, -2011, "Unknown order sent.")
            order.status, order.at = "CANCELED", int(time.time() * 1000)
            return order.payload() | {"origClientOrderId": order.client_id}

    def find(self, asked: dict[str, str]) -> dict[str, Any]:
        """Return one order."""
        return self._one(asked, code=-2013, message="Order does not exist.").payload()

    def orders(self, asked: dict[str, str], *, only_open: bool) -> list[dict[str, Any]]:
        """Return the orders of a symbol, or of all."""
        wanted = asked.get("symbol")
        return [
            order.payload()
            for order in self.placed.values()
            if wanted in (None, order.symbol) and (order.is_open or not only_open)
        ]

    def trades(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        """Return the trades of a symbol, or of one order."""
        return [
            trade
            for order in self.placed.values()
            for trade in order.trades
            if order.symbol == asked["symbol"] and asked.get("orderId") in (None, str(order.order_id))
        ]

    def account(self) -> dict[str, Any]:
        """Return the balances."""
        assets = [
            {"asset": asset, "free": f"{total - self.locked(asset):f}", "locked": f"{self.locked(asset):f}"}
            for asset, total in self.balances.items()
        ]
        return {
            "makerCommission": 10, "takerCommission": 10, "buyerCommission": 0, "sellerCommission": 0, "canTrade": True,
            "canWithdraw": False, "canDeposit": True, "updateTime": int(time.time() * 1000), "accountType": "SPOT",
            "balances": assets, "permissions": ["SPOT"], "uid": 354937868,
        }  # fmt: skip

    def tickers(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        """Return the day's figures of the wanted symbols."""
        return [
            {
                "symbol": symbol, "priceChange": "0.0", "priceChangePercent": "0.0", "weightedAvgPrice": f"{bid:f}",
                "prevClosePrice": f"{bid:f}", "lastPrice": f"{bid:f}", "lastQty": "1.0", "bidPrice": f"{bid:f}",
                "bidQty": "4.0", "askPrice": f"{ask:f}", "askQty": "4.0", "openPrice": f"{bid:f}",
                "highPrice": f"{ask:f}", "lowPrice": f"{bid:f}", "volume": "1.0", "quoteVolume": "1.0",
                "openTime": int(time.time() * 1000) - _MILLISECONDS_A_DAY, "closeTime": int(time.time() * 1000),
                "firstId": 1, "lastId": 2, "count": 2,
            }
            for symbol, (bid, ask) in self.quotes.items()
            if symbol in json.loads(asked.get("symbols", "[]"))
        ]  # fmt: skip

    def markets(self) -> dict[str, Any]:
        """Return the venue's symbols with their filters."""
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": f"{TICK:f}", "maxPrice": "1000000.0", "tickSize": f"{TICK:f}"},
            {"filterType": "LOT_SIZE", "minQty": f"{STEP:f}", "maxQty": "9000000000.0", "stepSize": f"{STEP:f}"},
            {"filterType": "NOTIONAL", "minNotional": "0.10000000", "applyMinToMarket": True, "maxNotional": "9E+12"},
        ]
        return {
            "timezone": "UTC", "serverTime": int(time.time() * 1000), "rateLimits": [], "exchangeFilters": [],
            "symbols": [
                {
                    "symbol": base + QUOTE, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 9,
                    "quoteAsset": QUOTE, "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ORDER_TYPES,
                    "icebergAllowed": True, "ocoAllowed": True, "quoteOrderQtyMarketAllowed": True,
                    "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "filters": filters,
                    "permissions": [], "permissionSets": [["SPOT"]],
                }
                for base in BASES
            ],
        }  # fmt: skip

    def candles(self, asked: dict[str, str]) -> list[list[Any]]:
        """Return made-up bars of one day from the epoch on, at most ten after the start."""
        since, most = int(asked["startTime"]), min(int(asked["limit"]), 4)
        first = -(-since // _MILLISECONDS_A_DAY)
        return [
            [day * _MILLISECONDS_A_DAY, "1.10000000", "1.30000000", "1.00000000", "1.20000000", "5.00000000",
             (day + 1) * _MILLISECONDS_A_DAY - 1, "6.0", 7, "1.0", "1.0", "0"]
            for day in range(first, first + most)
        ]  # fmt: skip

    # -- the wire

    def answer(self, method: str, path: str, asked: dict[str, str]) -> Any:
        """Return the body of one answer."""
        routes: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "/api/v3/exchangeInfo"): self.markets,
            ("GET", "/api/v3/klines"): lambda: self.candles(asked),
            ("GET", "/api/v3/ticker/24hr"): lambda: self.tickers(asked),
            ("GET", "/api/v3/account"): self.account,
            ("GET", "/api/v3/openOrders"): lambda: self.orders(asked, only_open=True),
            ("GET", "/api/v3/allOrders"): lambda: self.orders(asked, only_open=False),
            ("GET", "/api/v3/myTrades"): lambda: self.trades(asked),
            ("GET", "/api/v3/order"): lambda: self.find(asked),
            ("DELETE", "/api/v3/order"): lambda: self.cancel(asked),
            ("POST", "/api/v3/order"): lambda: self._placing(asked),
        }
        with self.lock:
            self.requests.append((method, path, asked))
        if method != "POST":
            self._break(self.take_fault("server_error", "rate_limit", client_id="question"))
        if (method, path) not in routes:
            raise Sorry(404, -1100, "no such path")
        if method == "POST":
            return routes[method, path]()
        with self.lock:
            return routes[method, path]()

    def _placing(self, asked: dict[str, str]) -> dict[str, Any]:
        client_id = asked.get("newClientOrderId", "")
        self._break(self.take_fault("lose_request", "server_error", "rate_limit", client_id=client_id))
        fault = self.take_fault("lose_answer", "server_error_after_accept", "silence", client_id=client_id)
        if fault == "silence":
            time.sleep(6.0)
        answer = self.place(asked)
        self._break(fault)
        return answer

    def _break(self, fault: str) -> None:
        if fault in ("lose_request", "lose_answer"):
            raise CutOff
        if fault == "server_error":
            raise Sorry(503, -1001, "Internal error; unable to process your request. Please try again.")
        if fault == "server_error_after_accept":
            raise Sorry(504, -1007, "Timeout waiting for response from backend server. Execution status unknown.")
        if fault == "rate_limit":
            raise Sorry(429, -1003, "Too much request weight used; current limit is 6000.", **{"Retry-After": "2"})


class StubServer:
    """Serves an `Exchange` until it is stopped."""

    def __init__(self) -> None:
        self.exchange = exchange = Exchange()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def do_DELETE(self) -> None:
                self._serve()

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                query = body or parts.query
                asked = dict(parse_qsl(query))
                try:
                    if "timestamp" in asked:
                        _check_signature(query, key=self.headers.get("X-MBX-APIKEY", ""))
                    self._say(200, exchange.answer(self.command, parts.path, asked), {})
                except Sorry as sorry:
                    self._say(sorry.status, sorry.body, sorry.headers)
                except (CutOff, BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _say(self, status: int, body: Any, headers: dict[str, str]) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json;charset=UTF-8", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _check_signature(query: str, *, key: str) -> None:
    signed, _, signature = query.rpartition("&signature=")
    expected = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
    if key != KEY or not hmac.compare_digest(expected, signature):
        raise Sorry(401, -2015, "Invalid API-key, IP, or permissions for action.")
