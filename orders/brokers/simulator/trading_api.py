"""The orders of Alpaca's trading API below /v2/orders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .exchange import Exchange, require_order
from .records import BUY, SELL, Refusal, stamp
from .validation import read_amendment, read_json, read_order
from .wire import dump, render_order, render_with_legs

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


def reply(body: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(dump(body), status, media_type="application/json")


def read_time(text: str | None, field: str) -> str | None:
    """Return a time of a query as a stamp; a date alone is its midnight in UTC.

    :raises Refusal: it is not a time.
    """
    if not text:
        return None
    try:
        # a plus sign that was not percent-encoded arrives as a space
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise Refusal(422, 40010001, f"{field} must be a date or an RFC 3339 time, not {text!r}") from None
    return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def read_count(text: str | None, field: str, *, default: int, highest: int) -> int:
    """Return a whole number of a query, not above the highest allowed.

    :raises Refusal: it is not a whole number of at least 1.
    """
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(422, 40010001, f"{field} must be a whole number of at least 1, not {text!r}")
    return min(int(text), highest)


def read_choice(text: str | None, field: str, *choices: str) -> str:
    """Return one of the choices; the first is the default.

    :raises Refusal: it is none of them.
    """
    if not text:
        return choices[0]
    if text.lower() not in choices:
        raise Refusal(422, 40010001, f"{field} must be one of {', '.join(choices)}, not {text!r}")
    return text.lower()


class Orders:
    """The endpoints; each answers only after what it did is on disk."""

    def __init__(self, *, exchange: Exchange, clock: Callable[[], datetime]) -> None:
        self._exchange = exchange
        self._book = exchange.book
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the routes, the busiest first."""
        return [
            Route("/v2/orders", self.create, methods=["POST"]),
            Route("/v2/orders", self.list_orders, methods=["GET"]),
            Route("/v2/orders", self.cancel_all, methods=["DELETE"]),
            Route("/v2/orders:by_client_order_id", self.get_by_client_id, methods=["GET"]),
            Route("/v2/orders/{order_id}", self.get, methods=["GET"]),
            Route("/v2/orders/{order_id}", self.replace, methods=["PATCH"]),
            Route("/v2/orders/{order_id}", self.cancel, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """Place an order."""
        wanted = read_order(read_json(await request.body()))
        order = self._exchange.submit(wanted, now=self._clock())
        body = render_with_legs(self._book, order)
        await self._book.ledger.committed()
        return reply(body)

    async def list_orders(self, request: Request) -> Response:
        """List orders."""
        query = request.query_params
        nested = read_choice(query.get("nested"), "nested", "false", "true") == "true"
        status = read_choice(query.get("status"), "status", "open", "closed", "all")
        self._book.ledger.write()
        orders = self._book.ledger.list_orders(
            status=status,
            after=read_time(query.get("after"), "after"),
            until=read_time(query.get("until"), "until"),
            symbols=[symbol for symbol in query.get("symbols", "").split(",") if symbol],
            side=read_choice(query["side"], "side", BUY, SELL) if query.get("side") else None,
            newest_first=read_choice(query.get("direction"), "direction", "desc", "asc") == "desc",
            top_level=nested,
            limit=read_count(query.get("limit"), "limit", default=DEFAULT_LIMIT, highest=MAX_LIMIT),
        )
        if nested:
            return reply([render_with_legs(self._book, order) for order in orders])
        return reply([render_order(order) for order in orders])

    async def get(self, request: Request) -> Response:
        """Return one order, with its legs when nested is asked for."""
        order_id = request.path_params["order_id"]
        order = require_order(self._book.find(order_id), order_id)
        nested = read_choice(request.query_params.get("nested"), "nested", "false", "true") == "true"
        body = render_with_legs(self._book, order) if nested else render_order(order)
        await self._book.ledger.committed()
        return reply(body)

    async def get_by_client_id(self, request: Request) -> Response:
        """Return the order with a client order id."""
        client_order_id = request.query_params.get("client_order_id")
        if not client_order_id:
            raise Refusal(422, 40010001, "client_order_id is required")
        order = require_order(self._book.find_by_client_id(client_order_id), client_order_id)
        body = render_with_legs(self._book, order)
        await self._book.ledger.committed()
        return reply(body)

    async def replace(self, request: Request) -> Response:
        """Replace an order by a new one."""
        order_id = request.path_params["order_id"]
        change = read_amendment(read_json(await request.body()))
        order = require_order(self._book.find(order_id), order_id)
        successor = self._exchange.amend(order, change, now=self._clock())
        body = render_order(successor)
        await self._book.ledger.committed()
        return reply(body)

    async def cancel(self, request: Request) -> Response:
        """Ask for the cancel of an order."""
        order_id = request.path_params["order_id"]
        order = require_order(self._book.find(order_id), order_id)
        self._exchange.cancel(order, now=self._clock())
        await self._book.ledger.committed()
        return Response(status_code=204)

    async def cancel_all(self, _request: Request) -> Response:
        """Ask for the cancel of every open order; says for each what became of the request."""
        answers = cancel_everything(self._exchange, now=self._clock())
        await self._book.ledger.committed()
        return reply(answers, 207)


def cancel_everything(exchange: Exchange, *, now: datetime) -> list[dict[str, Any]]:
    """Ask for the cancel of every open order and return Alpaca's multi-status rows."""
    answers: list[dict[str, Any]] = []
    for order in sorted(exchange.book.open.values(), key=lambda order: order.seq):
        try:
            exchange.cancel(order, now=now)
        except Refusal as refusal:
            answers.append({"id": order.id, "status": refusal.status, "body": refusal.body})
        else:
            answers.append({"id": order.id, "status": 200, "body": render_order(order)})
    return answers
