"""The tables of the ledger and how records become rows; Decimals are kept as text, digit for digit."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from .records import EXECUTION_COLUMNS, ORDER_COLUMNS, Execution, Order

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS orders (
  {", ".join("seq INTEGER PRIMARY KEY" if name == "seq" else name for name in ORDER_COLUMNS)}
);
CREATE UNIQUE INDEX IF NOT EXISTS orders_id ON orders (id);
CREATE INDEX IF NOT EXISTS orders_client ON orders (client_order_id);
CREATE INDEX IF NOT EXISTS orders_open ON orders (seq) WHERE status IN
  ('pending_new', 'accepted', 'new', 'held', 'partially_filled', 'pending_cancel', 'pending_replace');
CREATE INDEX IF NOT EXISTS orders_group ON orders (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_time ON orders (submitted_at, seq);
CREATE TABLE IF NOT EXISTS executions (
  seq INTEGER PRIMARY KEY, {", ".join(EXECUTION_COLUMNS)}
);
CREATE UNIQUE INDEX IF NOT EXISTS executions_id ON executions (id);
CREATE INDEX IF NOT EXISTS executions_time ON executions (at, seq);
CREATE TABLE IF NOT EXISTS positions (symbol TEXT PRIMARY KEY, qty, avg_entry_price);
CREATE TABLE IF NOT EXISTS quotes (symbol TEXT PRIMARY KEY, bid, ask, last, at);
CREATE TABLE IF NOT EXISTS assets
  (symbol TEXT PRIMARY KEY, id, name, exchange, status, tradable, shortable, fractionable);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
"""

OPEN_CLAUSE: Final = (
    "status IN ('pending_new', 'accepted', 'new', 'held', 'partially_filled', 'pending_cancel', 'pending_replace')"
)
MONEY: Final = frozenset(
    {"qty", "limit_price", "stop_price", "trail_price", "trail_percent", "hwm", "filled_qty", "filled_cost"}
    | {"holds", "price", "fee", "cum_qty", "leaves_qty", "position_qty"}
)
FLAGS: Final = frozenset({"extended_hours", "armed", "elected"})
ORDER_SELECT: Final = f"SELECT {', '.join(ORDER_COLUMNS)} FROM orders "  # noqa: S608  # names of our own
EXECUTION_SELECT: Final = f"SELECT {', '.join(EXECUTION_COLUMNS)} FROM executions "  # noqa: S608
ORDER_WRITE: Final = f"REPLACE INTO orders VALUES ({', '.join('?' * len(ORDER_COLUMNS))})"  # noqa: S608
_PLACES: Final = ", ".join("?" * len(EXECUTION_COLUMNS))
EXECUTION_WRITE: Final = f"INSERT INTO executions VALUES (NULL, {_PLACES})"  # noqa: S608


def order_row(order: Order) -> list[object]:
    """Return an order as a row."""
    return _write([getattr(order, name) for name in ORDER_COLUMNS])


def execution_row(execution: Execution) -> list[object]:
    """Return an execution as a row."""
    return _write([getattr(execution, name) for name in EXECUTION_COLUMNS])


def read_order(row: Sequence[Any]) -> Order:
    """Return the order of a row."""
    return Order(*_read(ORDER_COLUMNS, row))


def read_execution(row: Sequence[Any]) -> Execution:
    """Return the execution of a row."""
    return Execution(*_read(EXECUTION_COLUMNS, row))


def _write(values: list[object]) -> list[object]:
    return [str(value) if isinstance(value, Decimal) else value for value in values]


def _read(columns: Sequence[str], row: Sequence[Any]) -> list[Any]:
    return [
        Decimal(value) if name in MONEY and value is not None else bool(value) if name in FLAGS else value
        for name, value in zip(columns, row, strict=True)
    ]
