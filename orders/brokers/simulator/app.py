"""Puts the parts of the simulator together into one ASGI application."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from .account_api import Account
from .book import Book
from .control_api import Control
from .data_api import MarketDataApi
from .exchange import Exchange
from .faults import Faults
from .gate import Gate, RateLimit
from .ledger import Ledger
from .market_stream import MarketData
from .records import Execution, Order, Refusal, stamp
from .replay import Replay
from .replay_path import read_bars
from .streams import Message, TradeUpdates, update_facts
from .trading_api import Orders, reply
from .wire import dump, render_update


@dataclass(frozen=True, slots=True)
class Setup:
    """What one simulator is started with."""

    ledger: Path
    bars: Path
    cash: Decimal
    key: str
    secret: str
    control_token: str
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class Publisher:
    """Collects trade updates while the book changes and publishes them after the commit."""

    def __init__(self, *, ledger: Ledger, updates: TradeUpdates) -> None:
        self._ledger = ledger
        self._updates = updates
        self._batch: list[Message] = []
        self._commit = -1

    def emit(self, event: str, order: Order, *, at: str, execution: Execution | None = None) -> None:
        """Render an update of the order as it is now."""
        if not self._updates.has_listeners():
            return
        update = render_update(event, order, at=at, event_id=new_id(), execution=execution)
        if self._commit != self._ledger.commits:
            # what is said after a commit waits for the next one
            self._commit, self._batch = self._ledger.commits, []
            self._ledger.after_commit(partial(self._updates.publish, self._batch))
        self._batch.append((dump(update), update_facts(event, order)))


def new_id() -> str:
    """Return a fresh UUID as text."""
    return str(uuid.uuid4())


def build(setup: Setup) -> ASGIApp:
    """Return the application.

    :raises ValueError: the CSV of bars is malformed.
    :raises sqlite3.Error: the ledger cannot be opened.
    """
    bars = read_bars(setup.bars)
    ledger = Ledger(setup.ledger)
    book = Book(ledger=ledger, cash=setup.cash)
    faults, limit = Faults(), RateLimit()
    updates = TradeUpdates(key=setup.key, secret=setup.secret, faults=faults)
    market = MarketData(key=setup.key, secret=setup.secret, faults=faults)
    exchange = Exchange(
        book=book,
        faults=faults,
        emit=Publisher(ledger=ledger, updates=updates).emit,
        new_id=new_id,
        clock=setup.clock,
        later=lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
    )
    replay = Replay(bars=bars, exchange=exchange, market=market, clock=setup.clock)
    orders = Orders(exchange=exchange, clock=setup.clock)
    account = Account(exchange=exchange, clock=setup.clock, started_at=stamp(setup.clock()))
    control = Control(
        token=setup.control_token,
        exchange=exchange,
        replay=replay,
        market=market,
        updates=updates,
        limit=limit,
        clock=setup.clock,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        book.start(symbols=sorted({bar.symbol for bar in bars}), account_id=new_id())
        exchange.resume()
        yield
        await replay.stop()
        ledger.close()

    app = Starlette(
        routes=[
            *orders.routes(),
            *account.routes(),
            *MarketDataApi(book=book, bars=bars).routes(),
            *control.routes(),
            Route("/healthz", _healthz, methods=["GET"]),
            WebSocketRoute("/stream", updates.serve),
            *(WebSocketRoute(f"/v2/{feed}", market.serve) for feed in ("iex", "sip", "test")),
        ],
        exception_handlers={Refusal: _show_refusal, HTTPException: _show_http_error},
        lifespan=lifespan,
    )
    return Gate(app, key=setup.key, secret=setup.secret, book=book, faults=faults, limit=limit)


async def _healthz(_request: Request) -> Response:
    return reply({"status": "ok"})


async def _show_refusal(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        raise error
    return reply(error.body, error.status)


async def _show_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if request.url.path.startswith("/control"):
        return reply({"error": f"{request.method} {request.url.path}: {error.detail}"}, error.status_code)
    body = {"code": error.status_code * 100_000 + 10_000, "message": error.detail.lower()}
    return reply(body, error.status_code)
