"""Account, positions, assets, clock, calendar and activities of Alpaca's trading API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .checks import MARGIN_MULTIPLIER
from .exchange import Exchange
from .records import BUY, SELL, ZERO, Position, Refusal, text
from .replay import NEW_YORK
from .trading_api import cancel_everything, read_choice, read_count, read_time, reply
from .validation import OrderRequest
from .wire import render_activity, render_asset, render_order, render_position

OPENS, CLOSES = time(9, 30), time(16)
MAX_PAGE = 100
NINE_PLACES = Decimal("0.000000001")


class Account:
    """The endpoints about what the account has and what happened to it."""

    def __init__(self, *, exchange: Exchange, clock: Callable[[], datetime], started_at: str) -> None:
        self._exchange = exchange
        self._book = exchange.book
        self._clock = clock
        self._started_at = started_at

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v2/account", self.account, methods=["GET"]),
            Route("/v2/account/activities", self.activities, methods=["GET"]),
            Route("/v2/account/activities/{kind}", self.activities, methods=["GET"]),
            Route("/v2/positions", self.positions, methods=["GET"]),
            Route("/v2/positions", self.close_all, methods=["DELETE"]),
            Route("/v2/positions/{symbol}", self.position, methods=["GET"]),
            Route("/v2/positions/{symbol}", self.close, methods=["DELETE"]),
            Route("/v2/assets", self.assets, methods=["GET"]),
            Route("/v2/assets/{symbol}", self.asset, methods=["GET"]),
            Route("/v2/clock", self.clock, methods=["GET"]),
            Route("/v2/calendar", self.calendar, methods=["GET"]),
        ]

    async def account(self, _request: Request) -> Response:
        """Return the account, positions valued at their last price."""
        book = self._book
        longs = shorts = ZERO
        for position in book.positions.values():
            quote = book.quotes.get(position.symbol)
            value = position.qty * (quote.last if quote else position.avg_entry_price)
            if value > 0:
                longs += value
            else:
                shorts += value
        equity = book.cash + longs + shorts
        power = max(book.cash, ZERO) * MARGIN_MULTIPLIER
        await book.ledger.committed()
        return reply(
            {
                "id": book.account_id,
                "account_number": "SIM000000001",
                "status": "ACTIVE",
                "crypto_status": "INACTIVE",
                "currency": "USD",
                "cash": text(book.cash),
                "buying_power": text(power),
                "regt_buying_power": text(power),
                "non_marginable_buying_power": text(max(book.cash, ZERO)),
                "portfolio_value": text(equity),
                "equity": text(equity),
                "last_equity": text(equity),
                "long_market_value": text(longs),
                "short_market_value": text(shorts),
                "initial_margin": "0",
                "maintenance_margin": "0",
                "last_maintenance_margin": "0",
                "sma": "0",
                "accrued_fees": "0",
                "multiplier": text(MARGIN_MULTIPLIER),
                "trading_blocked": False,
                "transfers_blocked": False,
                "account_blocked": False,
                "trade_suspended_by_user": False,
                "shorting_enabled": True,
                "created_at": self._started_at,
            }
        )

    async def activities(self, request: Request) -> Response:
        """Return account activities; this broker has fills only."""
        query = request.query_params
        kind = request.path_params.get("kind")
        wanted = [kind] if kind else [k for k in query.get("activity_types", "").split(",") if k]
        if wanted and "FILL" not in wanted:
            return reply([])
        after, until = read_time(query.get("after"), "after"), read_time(query.get("until"), "until")
        if day := query.get("date"):
            after = read_time(day, "date")
            until = read_time((datetime.fromisoformat(day) + timedelta(days=1)).isoformat(), "date")
        token = (query.get("page_token") or "").rpartition("::")[2]
        if token and not self._book.ledger.has_execution(token):
            raise Refusal(422, 40010001, "page_token must be the id of an activity")
        self._book.ledger.write()
        executions = self._book.ledger.list_executions(
            after=after,
            until=until,
            page_token=token or None,
            newest_first=read_choice(query.get("direction"), "direction", "desc", "asc") == "desc",
            limit=read_count(query.get("page_size"), "page_size", default=MAX_PAGE, highest=MAX_PAGE),
        )
        return reply([render_activity(one, account_id=self._book.account_id) for one in executions])

    # -- positions

    async def positions(self, _request: Request) -> Response:
        """List positions."""
        body = [render_position(self._book, p) for p in sorted(self._book.positions.values(), key=_by_symbol)]
        await self._book.ledger.committed()
        return reply(body)

    def _require_position(self, request: Request) -> Position:
        symbol = self._book.symbol_of(request.path_params["symbol"])
        position = self._book.positions.get(symbol)
        if position is None:
            raise Refusal(404, 40410000, "position does not exist")
        return position

    async def position(self, request: Request) -> Response:
        """Return one position, by symbol or asset id."""
        body = render_position(self._book, self._require_position(request))
        await self._book.ledger.committed()
        return reply(body)

    async def close(self, request: Request) -> Response:
        """Close a position, or a part of it, by a market order."""
        position = self._require_position(request)
        query = request.query_params
        qty, percentage = _number(query.get("qty"), "qty"), _number(query.get("percentage"), "percentage")
        if qty is not None and percentage is not None:
            raise Refusal(422, 40010001, "only one of qty and percentage can be given")
        wanted = abs(position.qty)
        if percentage is not None:
            if percentage > 100:
                raise Refusal(422, 40010001, "percentage must be between 0 and 100")
            wanted = (wanted * percentage / 100).quantize(NINE_PLACES, rounding=ROUND_DOWN).normalize()
            if wanted == 0:
                raise Refusal(422, 42210000, "qty must be > 0")
        body = self._close(position, wanted if qty is None else qty)
        await self._book.ledger.committed()
        return reply(body)

    def _close(self, position: Position, qty: Decimal) -> dict[str, Any]:
        request = OrderRequest(
            symbol=position.symbol,
            side=SELL if position.qty > 0 else BUY,
            type="market",
            time_in_force="day",
            order_class="",
            qty=qty,
            client_order_id=None,
        )
        return render_order(self._exchange.submit(request, now=self._clock()))

    async def close_all(self, request: Request) -> Response:
        """Close every position; with cancel_orders, after the end of every open order."""
        if read_choice(request.query_params.get("cancel_orders"), "cancel_orders", "false", "true") == "true":
            cancel_everything(self._exchange, now=self._clock())
            await self._exchange.settled()
        answers = []
        for position in sorted(self._book.positions.values(), key=_by_symbol):
            try:
                body = self._close(position, abs(position.qty))
            except Refusal as refusal:
                answers.append({"symbol": position.symbol, "status": refusal.status, "body": refusal.body})
            else:
                answers.append({"symbol": position.symbol, "order_id": body["id"], "status": 200, "body": body})
        await self._book.ledger.committed()
        return reply(answers, 207)

    # -- reference data

    async def assets(self, request: Request) -> Response:
        """List assets."""
        status = read_choice(request.query_params.get("status"), "status", "all", "active", "inactive")
        assets = sorted(self._book.assets.values(), key=lambda asset: asset.symbol)
        return reply([render_asset(a) for a in assets if status in ("all", a.status)])

    async def asset(self, request: Request) -> Response:
        """Return one asset, by symbol or id."""
        symbol = self._book.symbol_of(request.path_params["symbol"])
        if symbol not in self._book.assets:
            raise Refusal(404, 40410000, f"asset not found for {symbol}")
        return reply(render_asset(self._book.assets[symbol]))

    async def clock(self, _request: Request) -> Response:
        """Return the market clock: open or closed as control says, with the usual hours around it."""
        now = self._clock().astimezone(NEW_YORK)
        return reply(
            {
                "timestamp": now.isoformat(),
                "is_open": self._book.is_open,
                "next_open": _next(now, OPENS).isoformat(),
                "next_close": _next(now, CLOSES).isoformat(),
            }
        )

    async def calendar(self, request: Request) -> Response:
        """Return every weekday of a range as a full session; this calendar knows no holidays."""
        today = self._clock().date()
        start = _date(request.query_params.get("start"), "start") or today
        end = _date(request.query_params.get("end"), "end") or start + timedelta(days=30)
        if (end - start).days > 4000:
            raise Refusal(422, 40010001, "end must be within 4000 days of start")
        days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
        return reply(
            [
                {
                    "date": day.isoformat(),
                    "open": "09:30",
                    "close": "16:00",
                    "session_open": "0400",
                    "session_close": "2000",
                    "settlement_date": _next_weekday(day).isoformat(),
                }
                for day in days
                if day.weekday() < 5
            ]
        )


def _by_symbol(position: Position) -> str:
    return position.symbol


def _number(value: str | None, field: str) -> Decimal | None:
    if not value:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise Refusal(422, 40010001, f"{field} must be a number, not {value!r}") from None
    if not number.is_finite() or number <= 0:
        raise Refusal(422, 42210000, f"{field} must be > 0")
    return number.normalize()


def _date(value: str | None, field: str) -> date | None:
    stamp = read_time(value, field)
    return None if stamp is None else datetime.fromisoformat(stamp).astimezone(UTC).date()


def _next_weekday(day: date) -> date:
    day += timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return day


def _next(now: datetime, at: time) -> datetime:
    """Return the next time that a weekday reaches this time of day in New York."""
    day = now.date()
    if now.time() >= at or day.weekday() >= 5:
        day = _next_weekday(day)
    return datetime.combine(day, at, NEW_YORK)
