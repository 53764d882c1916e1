"""The durable side of the simulator: one SQLite file, written once per turn of the event loop, with fsync.

Whatever changed in a turn is one transaction; answers and stream events leave only after its commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from .matching import Quote
from .records import Asset, Execution, Order, Position
from .schema import (
    EXECUTION_SELECT,
    EXECUTION_WRITE,
    OPEN_CLAUSE,
    ORDER_SELECT,
    ORDER_WRITE,
    SCHEMA,
    execution_row,
    order_row,
    read_execution,
    read_order,
)


class Ledger:
    """Marks what changed, writes it in one transaction per turn, and reads what is no longer in memory."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1)
        # one process per ledger: a second one is told that the database is locked
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(SCHEMA)
        self._orders: dict[str, Order] = {}
        self._executions: list[Execution] = []
        self._positions: dict[str, Position] = {}
        self._quotes: dict[str, Quote] = {}
        self._assets: dict[str, Asset] = {}
        self._settings: dict[str, str] = {}
        self._marks: tuple[dict[str, Any] | list[Execution], ...] = (
            self._orders,
            self._executions,
            self._positions,
            self._quotes,
            self._assets,
            self._settings,
        )
        self._waiting: asyncio.Future[None] | None = None
        self._then: list[Callable[[], None]] = []
        self.commits = 0  # how many turns have been written

    # -- marking

    def mark_order(self, order: Order) -> None:
        """Write this order at the next commit."""
        self._orders[order.id] = order
        self._schedule()

    def mark_execution(self, execution: Execution) -> None:
        """Append this execution at the next commit."""
        self._executions.append(execution)
        self._schedule()

    def mark_position(self, position: Position) -> None:
        """Write this position at the next commit; a flat one is deleted."""
        self._positions[position.symbol] = position
        self._schedule()

    def mark_quote(self, quote: Quote) -> None:
        """Write this quote at the next commit."""
        self._quotes[quote.symbol] = quote
        self._schedule()

    def mark_asset(self, asset: Asset) -> None:
        """Write this asset at the next commit."""
        self._assets[asset.symbol] = asset
        self._schedule()

    def mark_setting(self, name: str, value: str) -> None:
        """Write this setting at the next commit."""
        self._settings[name] = value
        self._schedule()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this once what is marked so far is on disk and those who wait for it have been woken."""
        self._then.append(call)
        self._schedule()

    # -- committing

    def _schedule(self) -> None:
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            # two hops: requests that arrived in the same turn of the loop share the fsync
            loop.call_soon(loop.call_soon, self._flush)

    async def committed(self) -> None:
        """Wait until everything marked so far is on disk."""
        if self._waiting is not None:
            await asyncio.shield(self._waiting)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, None
        then, self._then = self._then, []
        self.commits += 1
        try:
            self.write()
        except sqlite3.Error as error:
            if waiting is not None:
                waiting.set_exception(error)
                waiting.exception()  # whoever waits gets it; with nobody waiting asyncio must not complain
            raise
        if waiting is not None:
            waiting.set_result(None)
        loop = asyncio.get_running_loop()
        for call in then:
            loop.call_soon(call)

    def write(self) -> None:
        """Write all that is marked in one transaction, now."""
        db = self._db
        if not any(self._marks):
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(ORDER_WRITE, [order_row(order) for order in self._orders.values()])
            db.executemany(EXECUTION_WRITE, [execution_row(one) for one in self._executions])
            self._write_rest(db)
            db.execute("COMMIT")
        except sqlite3.Error:
            db.execute("ROLLBACK")
            raise
        for marks in self._marks:
            marks.clear()

    def _write_rest(self, db: sqlite3.Connection) -> None:
        for position in self._positions.values():
            if position.qty:
                db.execute(
                    "REPLACE INTO positions VALUES (?, ?, ?)",
                    (position.symbol, str(position.qty), str(position.avg_entry_price)),
                )
            else:
                db.execute("DELETE FROM positions WHERE symbol = ?", (position.symbol,))
        db.executemany(
            "REPLACE INTO quotes VALUES (?, ?, ?, ?, ?)",
            [(q.symbol, str(q.bid), str(q.ask), str(q.last), q.at) for q in self._quotes.values()],
        )
        db.executemany(
            "REPLACE INTO assets VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (a.symbol, a.id, a.name, a.exchange, a.status, a.tradable, a.shortable, a.fractionable)
                for a in self._assets.values()
            ],
        )
        db.executemany("REPLACE INTO settings VALUES (?, ?)", list(self._settings.items()))

    def wipe(self) -> None:
        """Forget everything, on disk too."""
        for marks in self._marks:
            marks.clear()
        self._db.execute("BEGIN IMMEDIATE")
        for table in ("orders", "executions", "positions", "quotes", "assets", "settings"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Write what is marked and close the file."""
        self.write()
        self._db.close()

    # -- reading

    def _select_orders(self, where: str, *values: object) -> list[Order]:
        rows = self._db.execute(ORDER_SELECT + where, values).fetchall()
        return [self._orders.get(row[1]) or read_order(row) for row in rows]

    def find_order(self, order_id: str) -> Order | None:
        """Return an order by id, marked ones included."""
        if order_id in self._orders:
            return self._orders[order_id]
        return next(iter(self._select_orders("WHERE id = ?", order_id)), None)

    def find_by_client_id(self, client_order_id: str) -> Order | None:
        """Return the newest order with this client order id, marked ones included."""
        marked = [o for o in self._orders.values() if o.client_order_id == client_order_id]
        if marked:
            return marked[-1]
        found = self._select_orders("WHERE client_order_id = ? ORDER BY seq DESC LIMIT 1", client_order_id)
        return found[0] if found else None

    def has_client_id(self, client_order_id: str) -> bool:
        """Return whether an order ever used this client order id, marked ones included."""
        if any(order.client_order_id == client_order_id for order in self._orders.values()):
            return True
        row = self._db.execute("SELECT 1 FROM orders WHERE client_order_id = ?", (client_order_id,)).fetchone()
        return row is not None

    def load_open_orders(self) -> list[Order]:
        """Return every committed order that may still change, oldest first."""
        return self._select_orders(f"WHERE {OPEN_CLAUSE} ORDER BY seq")

    def load_legs(self, parent_id: str) -> list[Order]:
        """Return the legs of an order, oldest first, marked ones included."""
        found = {order.id: order for order in self._select_orders("WHERE parent_id = ?", parent_id)}
        found.update({o.id: o for o in self._orders.values() if o.parent_id == parent_id})
        return sorted(found.values(), key=lambda order: order.seq)

    def list_orders(
        self,
        *,
        status: str,
        after: str | None,
        until: str | None,
        symbols: Iterable[str],
        side: str | None,
        newest_first: bool,
        top_level: bool,
        limit: int,
    ) -> list[Order]:
        """Return the orders of GET /v2/orders; call it with nothing marked."""
        clauses, values = ["1"], list[object]()
        if status != "all":
            clauses.append(OPEN_CLAUSE if status == "open" else f"NOT {OPEN_CLAUSE}")
        if after:
            clauses.append("submitted_at > ?")
            values.append(after)
        if until:
            clauses.append("submitted_at < ?")
            values.append(until)
        wanted = list(symbols)
        if wanted:
            clauses.append(f"symbol IN ({', '.join('?' * len(wanted))})")
            values.extend(wanted)
        if side:
            clauses.append("side = ?")
            values.append(side)
        if top_level:
            # a leg stands alone when its parent is not in the answer
            shown = "1" if status == "all" else "p." + OPEN_CLAUSE if status == "open" else f"NOT p.{OPEN_CLAUSE}"
            clauses.append(f"NOT EXISTS (SELECT 1 FROM orders p WHERE p.id = orders.parent_id AND {shown})")  # noqa: S608
        order = "DESC" if newest_first else "ASC"
        return self._select_orders(
            f"WHERE {' AND '.join(clauses)} ORDER BY submitted_at {order}, seq {order} LIMIT ?",
            *values,
            limit,
        )

    def list_executions(
        self,
        *,
        after: str | None = None,
        until: str | None = None,
        page_token: str | None = None,
        symbol: str | None = None,
        newest_first: bool = False,
        limit: int = -1,
    ) -> list[Execution]:
        """Return committed executions in time order; a page token is the id of the last one seen."""
        clauses, values = ["1"], list[object]()
        for clause, value in (("at > ?", after), ("at < ?", until), ("symbol = ?", symbol)):
            if value:
                clauses.append(clause)
                values.append(value)
        if page_token:
            row = self._db.execute("SELECT seq FROM executions WHERE id = ?", (page_token,)).fetchone()
            clauses.append("seq < ?" if newest_first else "seq > ?")
            values.append(row[0] if row else (0 if newest_first else 2**62))
        order = "DESC" if newest_first else "ASC"
        rows = self._db.execute(
            f"{EXECUTION_SELECT} WHERE {' AND '.join(clauses)} ORDER BY seq {order} LIMIT ?",
            (*values, limit),
        )
        return [read_execution(row) for row in rows]

    def has_execution(self, execution_id: str) -> bool:
        """Return whether this execution is in the book."""
        return self._db.execute("SELECT 1 FROM executions WHERE id = ?", (execution_id,)).fetchone() is not None

    def load_positions(self) -> list[Position]:
        """Return the committed positions."""
        rows = self._db.execute("SELECT symbol, qty, avg_entry_price FROM positions ORDER BY symbol")
        return [Position(symbol, Decimal(qty), Decimal(price)) for symbol, qty, price in rows]

    def load_quotes(self) -> list[Quote]:
        """Return the last committed quote of each symbol."""
        rows = self._db.execute("SELECT symbol, bid, ask, last, at FROM quotes")
        return [Quote(s, Decimal(bid), Decimal(ask), Decimal(last), at) for s, bid, ask, last, at in rows]

    def load_assets(self) -> list[Asset]:
        """Return the committed assets."""
        rows = self._db.execute("SELECT * FROM assets ORDER BY symbol")
        return [Asset(*row[:5], *(bool(flag) for flag in row[5:])) for row in rows]

    def load_settings(self) -> dict[str, str]:
        """Return the committed settings."""
        return dict(self._db.execute("SELECT name, value FROM settings"))

    def last_seq(self) -> int:
        """Return the highest order number in use, 0 when there is none."""
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM orders").fetchone()[0])
