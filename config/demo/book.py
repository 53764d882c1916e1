"""Owns reading our own side of the story straight from Postgres, past models, rules and API. Reads only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from config.demo.scenes import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """One order as the database has it."""

    id: int
    position_id: int | None
    intent: str
    reason: str
    strategy: str
    symbol: str
    side: str
    quantity: Decimal
    filled_quantity: Decimal
    filled_value: Decimal
    trigger_price: Decimal | None
    expected_price: Decimal | None
    state: str
    client_order_id: str
    broker_order_id: str
    attempt: int
    epoch: int
    tries: int
    claimed_by: str
    created_at: datetime
    priced_at: datetime | None
    accepted_at: datetime | None

    @property
    def fill_price(self) -> Decimal | None:
        """Return the average price of what filled."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRow:
    """One fill as the database has it."""

    execution_id: str
    client_order_id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRow:
    """One position as the database has it, with the bracket that guards it."""

    id: int
    symbol: str
    side: int  #: +1 long, -1 short
    quantity: Decimal
    exited: Decimal
    reserved: Decimal
    entry_cost: Decimal
    exit_value: Decimal
    fees: Decimal
    realized_pnl: Decimal
    status: str
    strategy: str
    opened_at: datetime
    closed_at: datetime | None
    bracket: str | None
    stop_price: Decimal | None
    target_prices: Sequence[str] | None

    @property
    def word(self) -> Word:
        """Return "long" or "short"."""
        return "long" if self.side > 0 else "short"

    @property
    def entry_price(self) -> Decimal:
        """Return the average entry price."""
        return self.entry_cost / self.quantity


_ORDERS = """
SELECT o.id, o.position_id, o.intent, o.reason, o.strategy, i.symbol, o.side, o.quantity, o.filled_quantity,
       o.filled_value, o.trigger_price, o.expected_price, o.state, o.client_order_id, o.broker_order_id, o.attempt,
       o.epoch, o.tries, o.claimed_by, o.created_at, o.priced_at, o.accepted_at
  FROM orders_order o JOIN positions_instrument i ON i.id = o.instrument_id
 ORDER BY o.id
"""
_FILLS = """
SELECT f.execution_id, o.client_order_id, f.quantity, f.price, f.fee
  FROM orders_fill f JOIN orders_order o ON o.id = f.order_id
 ORDER BY f.id
"""
_POSITIONS = """
SELECT p.id, i.symbol, p.side, p.quantity, p.exited, p.reserved, p.entry_cost, p.exit_value, p.fees, p.realized_pnl,
       p.status, p.strategy, p.opened_at, p.closed_at, b.status AS bracket, b.stop_price, b.target_prices
  FROM positions_position p
  JOIN positions_instrument i ON i.id = p.instrument_id
  LEFT JOIN LATERAL (SELECT * FROM exitmgr_bracket x WHERE x.position_id = p.id ORDER BY x.id DESC LIMIT 1) b ON true
 ORDER BY p.id
"""


class Book:
    """A connection to the database that reads; while the server is away it waits for it."""

    def __init__(self, database_url: str, *, patience: float = 30) -> None:
        self._url = database_url
        self._patience = patience
        self._connection: psycopg.Connection[Any] | None = None

    def orders(self) -> list[OrderRow]:
        """Return every order, oldest first."""
        return [OrderRow(**row) for row in self.query(_ORDERS)]

    def fills(self) -> list[FillRow]:
        """Return every fill, oldest first."""
        return [FillRow(**row) for row in self.query(_FILLS)]

    def positions(self) -> list[PositionRow]:
        """Return every position, oldest first."""
        return [PositionRow(**row) for row in self.query(_POSITIONS)]

    def bids(self) -> dict[str, Decimal]:
        """Return the bid of each symbol as the product last took it."""
        sql = "SELECT i.symbol, q.bid FROM positions_quote q JOIN positions_instrument i ON i.id = q.instrument_id"
        return {row["symbol"]: row["bid"] for row in self.query(sql)}

    def query(self, sql: LiteralString) -> list[dict[str, Any]]:
        """Return the rows of any reading statement.

        :raises psycopg.OperationalError: the server stayed away for longer than our patience.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                if self._connection is None:
                    self._connection = psycopg.connect(
                        self._url, autocommit=True, row_factory=dict_row, connect_timeout=3
                    )
                return [
                    {name: _trimmed(value) for name, value in row.items()}
                    for row in self._connection.execute(sql).fetchall()
                ]
            except psycopg.OperationalError:
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _trimmed(value: Any) -> Any:
    """Return a number without the zeros that fill its column up."""
    return Decimal(f"{value.normalize():f}") if isinstance(value, Decimal) else value
