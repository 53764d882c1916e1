"""Alpaca's market data REST for stocks: bars of the CSV, latest quotes and trades of the book."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .book import Book
from .market_stream import render_bar
from .records import Refusal
from .replay_path import Bar
from .trading_api import read_choice, read_count, read_time
from .wire import dump_exact, render_quote, render_trade

MAX_BARS = 10_000


def reply_exact(body: object) -> Response:
    """Return a JSON response in which prices are numbers with their own digits."""
    return Response(dump_exact(body), media_type="application/json")


class MarketDataApi:
    """The endpoints; daily bars are history as it was, quotes and trades are what happens now."""

    def __init__(self, *, book: Book, bars: list[Bar]) -> None:
        self._book = book
        self._bars: dict[str, list[Bar]] = {}
        for bar in bars:
            self._bars.setdefault(bar.symbol, []).append(bar)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v2/stocks/bars", self.bars, methods=["GET"]),
            Route("/v2/stocks/bars/latest", self.latest_bars, methods=["GET"]),
            Route("/v2/stocks/quotes/latest", self.latest_quotes, methods=["GET"]),
            Route("/v2/stocks/trades/latest", self.latest_trades, methods=["GET"]),
            Route("/v2/stocks/{symbol}/bars", self.bars, methods=["GET"]),
            Route("/v2/stocks/{symbol}/quotes/latest", self.latest_quote, methods=["GET"]),
            Route("/v2/stocks/{symbol}/trades/latest", self.latest_trade, methods=["GET"]),
        ]

    async def bars(self, request: Request) -> Response:
        """Return daily bars, by symbol then time, in pages."""
        query = request.query_params
        single = request.path_params.get("symbol")
        symbols = [single] if single else _symbols(request)
        timeframe = query.get("timeframe", "")
        if timeframe not in ("1Day", "1D"):
            raise Refusal(400, 40010001, f"timeframe must be 1Day, not {timeframe!r}: only daily bars are stored here")
        start, end = read_time(query.get("start"), "start"), read_time(query.get("end"), "end")
        limit = read_count(query.get("limit"), "limit", default=1000, highest=MAX_BARS)
        newest_first = read_choice(query.get("sort"), "sort", "asc", "desc") == "desc"
        rows = [
            bar
            for symbol in sorted(symbols)
            for bar in sorted(self._bars.get(symbol, ()), key=lambda bar: bar.ts, reverse=newest_first)
            if (start is None or _moment(bar.ts) >= _moment(start)) and (end is None or _moment(bar.ts) <= _moment(end))
        ]
        token = query.get("page_token") or "0"
        if not token.isdecimal():
            raise Refusal(400, 40010001, "page_token must be the next_page_token of an earlier answer")
        page = rows[int(token) : int(token) + limit]
        following = int(token) + limit
        body: dict[str, Any] = {"next_page_token": str(following) if following < len(rows) else None}
        if single:
            body = {"symbol": single, "bars": [render_bar(bar, at=bar.ts) for bar in page], **body}
        else:
            grouped: dict[str, list[dict[str, Any]]] = {}
            for bar in page:
                grouped.setdefault(bar.symbol, []).append(render_bar(bar, at=bar.ts))
            body = {"bars": grouped, **body}
        return reply_exact(body)

    async def latest_bars(self, request: Request) -> Response:
        """Return the last daily bar of each symbol."""
        known = {symbol: self._bars[symbol][-1] for symbol in _symbols(request) if symbol in self._bars}
        return reply_exact({"bars": {symbol: render_bar(bar, at=bar.ts) for symbol, bar in known.items()}})

    async def latest_quotes(self, request: Request) -> Response:
        """Return the quote of each symbol that has one."""
        quotes = [self._book.quotes[symbol] for symbol in _symbols(request) if symbol in self._book.quotes]
        return reply_exact({"quotes": {quote.symbol: render_quote(quote) for quote in quotes}})

    async def latest_trades(self, request: Request) -> Response:
        """Return the last trade of each symbol that has one."""
        quotes = [self._book.quotes[symbol] for symbol in _symbols(request) if symbol in self._book.quotes]
        return reply_exact({"trades": {quote.symbol: render_trade(quote, trade_id=0) for quote in quotes}})

    async def latest_quote(self, request: Request) -> Response:
        """Return the quote of one symbol."""
        symbol = self._require_quoted(request)
        return reply_exact({"symbol": symbol, "quote": render_quote(self._book.quotes[symbol])})

    async def latest_trade(self, request: Request) -> Response:
        """Return the last trade of one symbol."""
        symbol = self._require_quoted(request)
        return reply_exact({"symbol": symbol, "trade": render_trade(self._book.quotes[symbol], trade_id=0)})

    def _require_quoted(self, request: Request) -> str:
        symbol = str(request.path_params["symbol"])
        if symbol not in self._book.quotes:
            raise Refusal(404, 40410000, f"no quote for {symbol}")
        return symbol


def _symbols(request: Request) -> list[str]:
    symbols = [symbol for symbol in request.query_params.get("symbols", "").split(",") if symbol]
    if not symbols:
        raise Refusal(400, 40010001, "symbols is required")
    return symbols


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)
