"""What the account has now, in memory: open orders, positions, quotes, assets, cash; every change is marked.

Orders that can no longer change live in the ledger only.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from functools import cache
from typing import Final

from .ledger import Ledger
from .matching import Quote
from .records import BUY, SELL, STOP_LOSS, ZERO, Asset, Order, Position

ASSET_SPACE: Final = uuid.UUID("6f0d4c2e-6d4b-4f0e-9a53-3c1f7be0c9a1")
DEDUPE_MODES: Final = ("forever", "open_only", "none")


@cache
def asset_id(symbol: str) -> str:
    """Return the asset id of a symbol: the same in every run."""
    return str(uuid.uuid5(ASSET_SPACE, symbol))


class Book:
    """The live state; the only place that knows which orders hold which quantity."""

    def __init__(self, *, ledger: Ledger, cash: Decimal) -> None:
        self.ledger = ledger
        self.opening_cash = cash
        self._clear()
        for asset in ledger.load_assets():
            self.assets[asset.symbol] = asset
            self._asset_symbols[asset.id] = asset.symbol
        for quote in ledger.load_quotes():
            self.quotes[quote.symbol] = quote
        for position in ledger.load_positions():
            self.positions[position.symbol] = position
        for order in ledger.load_open_orders():
            order.holds = ZERO
            self._place(order)
        settings = ledger.load_settings()
        self.cash = Decimal(settings.get("cash", str(cash)))
        self.fee_per_share = Decimal(settings.get("fee_per_share", "0"))
        self.is_open = settings.get("is_open", "1") == "1"
        self.dedupe = settings.get("dedupe", "forever")
        self.account_id = settings.get("account_id", "")
        self._seq = ledger.last_seq()
        self._bundled: list[str] = []

    def _clear(self) -> None:
        self.assets: dict[str, Asset] = {}
        self.quotes: dict[str, Quote] = {}
        self.positions: dict[str, Position] = {}
        self.open: dict[str, Order] = {}
        self._sides: dict[tuple[str, str], dict[str, Order]] = {}
        self._client_ids: dict[str, str] = {}
        self._legs: dict[str, list[Order]] = {}
        self._held: dict[tuple[str, str], Decimal] = {}
        self._asset_symbols: dict[str, str] = {}

    def start(self, *, symbols: list[str], account_id: str) -> None:
        """Make a new ledger usable: an account id, and the symbols of the bars as assets."""
        if not self.account_id:
            self.account_id = account_id
            self.ledger.mark_setting("account_id", account_id)
        for symbol in symbols:
            if symbol not in self.assets:
                self.set_asset(Asset(symbol, asset_id(symbol), symbol))
        self._bundled = symbols

    def reset(self) -> None:
        """Forget everything, settings too; the symbols of the bars stay known."""
        self.ledger.wipe()
        self._clear()
        self.cash = self.opening_cash
        self.fee_per_share = ZERO
        self.is_open = True
        self.dedupe = "forever"
        self._seq = 0
        self.ledger.mark_setting("account_id", self.account_id)
        self.start(symbols=self._bundled, account_id=self.account_id)

    # -- orders

    def next_seq(self) -> int:
        """Return the number of the next order."""
        self._seq += 1
        return self._seq

    def save(self, order: Order, *, at: str | None = None) -> None:
        """Take over a change of an order: what it holds, whether it is still open, and its row."""
        if at is not None:
            order.updated_at = at
        self._place(order)
        self.ledger.mark_order(order)

    def _place(self, order: Order) -> None:
        key = (order.symbol, order.side)
        is_open = order.is_open
        holds = order.remaining if is_open and order.armed and not _is_covered(order) else ZERO
        if holds != order.holds:
            self._held[key] = self._held.get(key, ZERO) + holds - order.holds
            order.holds = holds
        if is_open:
            if order.id not in self.open:
                self.open[order.id] = order
                self._sides.setdefault(key, {})[order.id] = order
                self._client_ids[order.client_order_id] = order.id
                if order.parent_id is not None:
                    self._legs.setdefault(order.parent_id, []).append(order)
        elif self.open.pop(order.id, None) is not None:
            del self._sides[key][order.id]
            if self._client_ids.get(order.client_order_id) == order.id:
                del self._client_ids[order.client_order_id]
            if order.parent_id is not None:
                legs = self._legs[order.parent_id]
                legs.remove(order)
                if not legs:
                    del self._legs[order.parent_id]

    def find(self, order_id: str) -> Order | None:
        """Return an order by id, open or not."""
        return self.open.get(order_id) or self.ledger.find_order(order_id)

    def find_by_client_id(self, client_order_id: str) -> Order | None:
        """Return the newest order with a client order id, open or not."""
        order_id = self._client_ids.get(client_order_id)
        return self.open[order_id] if order_id else self.ledger.find_by_client_id(client_order_id)

    def is_taken(self, client_order_id: str) -> bool:
        """Return whether this client order id may not be used again, by the dedupe mode that stands."""
        if self.dedupe == "none":
            return False
        if client_order_id in self._client_ids:
            return True
        return self.dedupe == "forever" and self.ledger.has_client_id(client_order_id)

    def legs(self, parent_id: str) -> list[Order]:
        """Return all legs of an order, open or not, oldest first."""
        found = {order.id: order for order in self.ledger.load_legs(parent_id)}
        found.update({order.id: order for order in self._legs.get(parent_id, ())})
        return sorted(found.values(), key=lambda order: order.seq)

    def group(self, order: Order) -> list[Order]:
        """Return the other open orders of the group that an order belongs to."""
        root = order.parent_id or order.id
        members = list(self._legs.get(root, ()))
        parent = self.open.get(root)
        if parent is not None:
            members.insert(0, parent)
        return [member for member in members if member.id != order.id]

    def adopt(self, old_parent: str, new_parent: str) -> list[Order]:
        """Move the open legs of a parent to its successor and return them."""
        legs = self._legs.pop(old_parent, [])
        for leg in legs:
            leg.parent_id = new_parent
        if legs:
            self._legs[new_parent] = legs
        return list(legs)

    def of_symbol(self, symbol: str) -> list[Order]:
        """Return the open orders of a symbol, oldest first."""
        sells, buys = self._sides.get((symbol, SELL)), self._sides.get((symbol, BUY))
        if not buys:
            return list(sells.values()) if sells else []
        if not sells:
            return list(buys.values())
        return sorted([*sells.values(), *buys.values()], key=lambda order: order.seq)

    def on_side(self, symbol: str, side: str) -> list[Order]:
        """Return the open orders of one side of a symbol, oldest first."""
        orders = self._sides.get((symbol, side))
        return list(orders.values()) if orders else []

    # -- holdings

    def position_qty(self, symbol: str) -> Decimal:
        """Return the signed quantity held of a symbol."""
        position = self.positions.get(symbol)
        return position.qty if position else ZERO

    def held_qty(self, symbol: str) -> Decimal:
        """Return the quantity of a position that open exit orders keep, unsigned."""
        side = BUY if self.position_qty(symbol) < 0 else SELL
        return self._held.get((symbol, side), ZERO)

    def set_position(self, *, symbol: str, qty: Decimal, avg_entry_price: Decimal) -> Position:
        """Set what is held of a symbol."""
        position = Position(symbol, qty, avg_entry_price)
        if qty:
            self.positions[symbol] = position
        else:
            self.positions.pop(symbol, None)
        self.ledger.mark_position(position)
        return position

    def set_cash(self, cash: Decimal) -> None:
        """Set the cash of the account."""
        self.cash = cash
        self.ledger.mark_setting("cash", str(cash))

    def set_quote(self, quote: Quote) -> None:
        """Take over a quote; a symbol not known yet becomes an asset."""
        self.quotes[quote.symbol] = quote
        self.ledger.mark_quote(quote)
        if quote.symbol not in self.assets:
            self.set_asset(Asset(quote.symbol, asset_id(quote.symbol), quote.symbol))

    def set_asset(self, asset: Asset) -> None:
        """Take over an asset."""
        self.assets[asset.symbol] = asset
        self._asset_symbols[asset.id] = asset.symbol
        self.ledger.mark_asset(asset)

    def symbol_of(self, symbol_or_id: str) -> str:
        """Return the symbol of a symbol or asset id."""
        return self._asset_symbols.get(symbol_or_id, symbol_or_id)

    def set_setting(self, name: str, value: str) -> None:
        """Take over a setting that the attribute of the same name already shows."""
        self.ledger.mark_setting(name, value)


def _is_covered(order: Order) -> bool:
    """Return whether the take-profit beside this stop already holds the quantity of both."""
    return order.role == STOP_LOSS and order.order_class in ("bracket", "oco")
