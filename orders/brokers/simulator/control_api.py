"""The control endpoints: the hand that moves this market, breaks this broker, and reads its whole truth."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .book import DEDUPE_MODES, asset_id
from .control_fields import (
    Wrong,
    read_asset,
    read_decimal,
    read_list,
    read_object,
    read_quote,
    read_session,
    read_spread,
    read_symbol,
    read_symbols,
)
from .exchange import Exchange
from .gate import RateLimit
from .market_stream import MarketData
from .matching import Quote
from .records import EXECUTION_COLUMNS, Asset, Execution, stamp, text
from .replay import Plan, Replay
from .replay_path import MIN_STEPS
from .sessions import close_session, open_session
from .streams import TradeUpdates
from .trading_api import reply
from .wire import render_order

MAX_SESSIONS = 1000


class Control:
    """The endpoints below /control, each guarded by the control token."""

    def __init__(
        self,
        *,
        token: str,
        exchange: Exchange,
        replay: Replay,
        market: MarketData,
        updates: TradeUpdates,
        limit: RateLimit,
        clock: Callable[[], datetime],
    ) -> None:
        self._token = token.encode()
        self._exchange = exchange
        self._book = exchange.book
        self._faults = exchange.faults
        self._replay = replay
        self._market = market
        self._updates = updates
        self._limit = limit
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the routes."""
        table: list[tuple[str, str, Callable[[Request], Any]]] = [
            ("/control/quotes", "POST", self.push_quotes),
            ("/control/replay", "POST", self.start_replay),
            ("/control/replay", "GET", self.show_replay),
            ("/control/replay", "DELETE", self.stop_replay),
            ("/control/replay/prime", "POST", self.prime),
            ("/control/faults", "POST", self.add_faults),
            ("/control/faults", "GET", self.show_faults),
            ("/control/faults", "DELETE", self.clear_faults),
            ("/control/faults/{fault_id}", "DELETE", self.remove_fault),
            ("/control/ledger", "GET", self.show_ledger),
            ("/control/streams", "GET", self.show_streams),
            ("/control/clock", "POST", self.set_clock),
            ("/control/positions", "POST", self.set_position),
            ("/control/assets", "POST", self.set_assets),
            ("/control/fees", "POST", self.set_fees),
            ("/control/rate_limit", "GET", self.rate_limit),
            ("/control/rate_limit", "POST", self.set_rate_limit),
            ("/control/dedupe", "POST", self.set_dedupe),
            ("/control/reset", "POST", self.reset),
        ]
        return [Route(path, self._guard(call), methods=[method]) for path, method, call in table]

    def _guard(self, call: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("x-control-token", "").encode()
            if not hmac.compare_digest(given, self._token):
                return reply({"error": "the X-Control-Token header must carry the control token"}, 401)
            try:
                response: Response = await call(request)
            except (Wrong, ValueError) as problem:
                return reply({"error": str(problem)}, 422)
            await self._book.ledger.committed()
            return response

        return guarded

    # -- the market

    async def push_quotes(self, request: Request) -> Response:
        """Take quotes, as if they happened now."""
        body = await read_object(request)
        at = stamp(self._clock())
        quotes = [read_quote(spec, at=at) for spec in read_list(body, "quotes")]
        self._market.publish_quotes(quotes)
        self._exchange.take_quotes(quotes)
        return reply({"quotes": len(quotes)})

    async def start_replay(self, request: Request) -> Response:
        """Play sessions of the CSV."""
        body = await read_object(request)
        sessions = [read_session(value) for value in read_list(body, "sessions")]
        if not 1 <= len(sessions) <= MAX_SESSIONS:
            raise Wrong(f"sessions must name 1 to {MAX_SESSIONS} dates")
        steps = body.get("steps_per_session", 300)
        if isinstance(steps, bool) or not isinstance(steps, int) or not MIN_STEPS <= steps <= 100_000:
            raise Wrong(f"steps_per_session must be a whole number from {MIN_STEPS} to 100000, not {steps!r}")
        seconds = read_decimal(body.get("seconds_per_session", 6), "seconds_per_session")
        if not 0 <= seconds <= 86400:
            raise Wrong(f"seconds_per_session must be between 0 and 86400, not {seconds}")
        self._replay.start(
            Plan(
                sessions=sessions,
                symbols=read_symbols(body),
                seconds_per_session=float(seconds),
                steps_per_session=steps,
                spread_bps=read_spread(body),
            )
        )
        return reply(self._replay.describe(), 202)

    async def show_replay(self, _request: Request) -> Response:
        """Return the state of the replay."""
        return reply(self._replay.describe())

    async def stop_replay(self, _request: Request) -> Response:
        """Stop the replay."""
        await self._replay.stop()
        return reply(self._replay.describe())

    async def prime(self, request: Request) -> Response:
        """Set quotes to a session's open or close."""
        body = await read_object(request)
        at = body.get("at", "close")
        if at not in ("open", "close"):
            raise Wrong(f'at must be "open" or "close", not {at!r}')
        quotes = self._replay.prime(
            session=read_session(body.get("session")),
            symbols=read_symbols(body),
            at=at,
            spread_bps=read_spread(body),
        )
        return reply({"quotes": [_show_quote(quote) for quote in quotes]})

    async def set_clock(self, request: Request) -> Response:
        """Open or close the session."""
        is_open = (await read_object(request)).get("is_open")
        if not isinstance(is_open, bool):
            raise Wrong(f"is_open must be true or false, not {is_open!r}")
        if is_open:
            open_session(self._exchange, now=self._clock())
        else:
            close_session(self._exchange, now=self._clock())
        return reply({"is_open": self._book.is_open})

    # -- faults

    async def add_faults(self, request: Request) -> Response:
        """Add fault rules: one rule, or {"faults": [...], "seed": n}."""
        body = await read_object(request)
        if "seed" in body and (isinstance(body["seed"], bool) or not isinstance(body["seed"], int)):
            raise Wrong(f"seed must be a whole number, not {body['seed']!r}")
        specs = [body] if "kind" in body else read_list(body, "faults")
        rules = self._faults.install(specs)
        if "seed" in body and "kind" not in body:
            self._faults.reseed(body["seed"])
        for rule in rules:
            if rule.kind != "cut_stream" or rule.match or not self._faults.take_rule(rule):
                continue
            # without a match there is nothing to wait for
            for stream, name in ((self._updates, "trading"), (self._market, "data")):
                if rule.options["stream"] in (name, "both"):
                    stream.stream_faults.refuse_for(rule.seconds or 0)
                    stream.cut()
            rule.count = 0
        return reply({"faults": [rule.describe() for rule in rules]})

    async def show_faults(self, _request: Request) -> Response:
        """List the fault rules and how often they struck."""
        return reply(self._faults.describe())

    async def clear_faults(self, _request: Request) -> Response:
        """Remove all fault rules."""
        self._faults.clear()
        return reply(self._faults.describe())

    async def remove_fault(self, request: Request) -> Response:
        """Remove one fault rule."""
        if not self._faults.remove(request.path_params["fault_id"]):
            return reply({"error": "no such fault; GET /control/faults lists them"}, 404)
        return reply(self._faults.describe())

    async def show_streams(self, _request: Request) -> Response:
        """Count the clients that listen to each stream."""
        return reply({"trading": self._updates.count_listeners(), "data": self._market.count_readers()})

    # -- the truth, and changes from outside

    async def show_ledger(self, request: Request) -> Response:
        """Return every order, execution and position."""
        self._book.ledger.write()
        symbol = request.query_params.get("symbol")
        orders = self._book.ledger.list_orders(
            status="all",
            after=None,
            until=None,
            symbols=[symbol] if symbol else [],
            side=None,
            newest_first=False,
            top_level=False,
            limit=-1,
        )
        executions = self._book.ledger.list_executions(symbol=symbol)
        positions = [p for p in self._book.ledger.load_positions() if symbol in (None, p.symbol)]
        return reply(
            {
                "orders": [
                    {**render_order(order), "parent_id": order.parent_id, "role": order.role} for order in orders
                ],
                "executions": [_show_execution(execution) for execution in executions],
                "positions": [
                    {"symbol": p.symbol, "qty": text(p.qty), "avg_entry_price": text(p.avg_entry_price)}
                    for p in positions
                ],
                "cash": text(self._book.cash),
            }
        )

    async def set_position(self, request: Request) -> Response:
        """Set what is held of a symbol, with no order: a split, or a trade by hand at the broker."""
        body = await read_object(request)
        symbol = read_symbol(body)
        qty = read_decimal(body.get("qty"), "qty")
        price = read_decimal(body.get("avg_entry_price", 0), "avg_entry_price")
        if price < 0 or (qty != 0 and price == 0):
            raise Wrong("avg_entry_price must be above 0 for a position")
        if symbol not in self._book.assets:
            self._book.set_asset(Asset(symbol, asset_id(symbol), symbol))
        self._book.set_position(symbol=symbol, qty=qty, avg_entry_price=price)
        return reply({"symbol": symbol, "qty": text(qty), "avg_entry_price": text(price)})

    async def set_assets(self, request: Request) -> Response:
        """Add or change assets."""
        assets = [read_asset(spec) for spec in read_list(await read_object(request), "assets")]
        for asset in assets:
            self._book.set_asset(asset)
        return reply({"assets": [asset.symbol for asset in assets]})

    async def set_fees(self, request: Request) -> Response:
        """Set the fee of each executed share."""
        fee = read_decimal((await read_object(request)).get("per_share"), "per_share")
        if fee < 0:
            raise Wrong(f"per_share must not be negative, not {fee}")
        self._book.fee_per_share = fee
        self._book.set_setting("fee_per_share", str(fee))
        return reply({"per_share": text(fee)})

    async def rate_limit(self, _request: Request) -> Response:
        """Return the limit and how many requests were turned away since it was set."""
        return reply({"per_minute": self._limit.per_minute, "turned_away": self._limit.turned_away})

    async def set_rate_limit(self, request: Request) -> Response:
        """Set the requests allowed in a minute; null lifts the limit."""
        body = await read_object(request)
        limit = body.get("per_minute")
        if "per_minute" not in body or isinstance(limit, bool) or not (limit is None or isinstance(limit, int)):
            raise Wrong('per_minute must be a whole number or null, for example {"per_minute": 200}')
        if limit is not None and limit < 1:
            raise Wrong(f"per_minute must be at least 1, not {limit}; null lifts the limit")
        self._limit.set_limit(limit)
        return reply({"per_minute": limit})

    async def set_dedupe(self, request: Request) -> Response:
        """Set how long a client order id stays taken."""
        mode = (await read_object(request)).get("mode")
        if mode not in DEDUPE_MODES:
            raise Wrong(f"mode must be one of {', '.join(DEDUPE_MODES)}, not {mode!r}")
        self._book.dedupe = mode
        self._book.set_setting("dedupe", mode)
        return reply({"mode": mode})

    async def reset(self, _request: Request) -> Response:
        """Start from nothing: no orders, quotes, positions, faults; connections stay."""
        await self._replay.stop()
        self._faults.clear()
        self._limit.set_limit(None)
        self._exchange.reset()
        return reply({"reset": True})


def _show_quote(quote: Quote) -> dict[str, str]:
    return {
        "symbol": quote.symbol,
        "bid": text(quote.bid),
        "ask": text(quote.ask),
        "last": text(quote.last),
        "at": quote.at,
    }


def _show_execution(execution: Execution) -> dict[str, object]:
    values = ((name, getattr(execution, name)) for name in EXECUTION_COLUMNS)
    return {name: text(value) if isinstance(value, Decimal) else value for name, value in values}
