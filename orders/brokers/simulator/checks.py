"""Whether the account may place an order: what it holds, what is open, where the price is. Reads only."""

from __future__ import annotations

from decimal import Decimal

from .book import Book
from .matching import tradable_price
from .records import BUY, SELL, Asset, Order, Refusal, text
from .validation import CENT, OrderRequest, refuse

MARGIN_MULTIPLIER = Decimal(4)


def check_asset(book: Book, request: OrderRequest) -> Asset:
    """Return the asset of an order.

    :raises Refusal: it is unknown, not tradable, or not fractionable.
    """
    asset = book.assets.get(request.symbol)
    if asset is None:
        refuse(f'asset "{request.symbol}" not found')
    if not asset.tradable or asset.status != "active":
        refuse(f"asset {asset.symbol} is not tradable")
    if request.qty != request.qty.to_integral_value() and not asset.fractionable:
        refuse(f'asset "{asset.symbol}" is not fractionable')
    return asset


def check_client_id(book: Book, client_order_id: str | None) -> None:
    """Refuse a client order id that was used before."""
    if client_order_id is not None and book.is_taken(client_order_id):
        refuse("client_order_id must be unique", 40010001)


def check_purpose(book: Book, request: OrderRequest) -> None:
    """Refuse a bracket that does not open a position and an OCO that does not close one."""
    held = book.position_qty(request.symbol)
    if request.order_class == "bracket" and held != 0:
        refuse("bracket orders must be entry orders")
    if request.order_class == "oco" and (held <= 0 if request.side == SELL else held >= 0):
        refuse("oco orders must be exit orders")


def check_quantity(book: Book, request: OrderRequest, asset: Asset) -> None:
    """Refuse to close more than is available, to go through zero in one order, and fractional shorts."""
    held = book.position_qty(request.symbol)
    if held == 0 or (held > 0) == (request.side == BUY):
        if request.side == SELL:
            if request.qty != request.qty.to_integral_value():
                raise Refusal(403, 40310000, "fractional orders cannot be sold short")
            if not asset.shortable:
                refuse(f'asset "{asset.symbol}" cannot be sold short')
        return
    in_orders = book.held_qty(request.symbol)
    available = abs(held) - in_orders
    if request.qty > available:
        raise held_refusal(book, symbol=request.symbol, side=request.side, wanted=request.qty)


def held_refusal(book: Book, *, symbol: str, side: str, wanted: Decimal) -> Refusal:
    """Return Alpaca's answer to an exit beyond the available quantity."""
    held, in_orders = abs(book.position_qty(symbol)), book.held_qty(symbol)
    available = max(held - in_orders, Decimal(0))
    return Refusal(
        403,
        40310000,
        f"insufficient qty available for order (requested: {text(wanted)}, available: {text(available)})",
        available=text(available),
        existing_qty=text(held),
        held_for_orders=text(in_orders),
        related_orders=[order.id for order in book.on_side(symbol, side) if order.holds],
        symbol=symbol,
    )


def check_wash_trade(book: Book, request: OrderRequest) -> None:
    """Refuse a simple order that could trade with another simple order of this account.

    Opposing market and stop orders always could; two limits could when their prices cross.
    """
    if request.order_class or request.type == "trailing_stop":
        return
    for other in book.on_side(request.symbol, SELL if request.side == BUY else BUY):
        if other.order_class or other.type == "trailing_stop" or not _could_trade(request, other):
            continue
        raise Refusal(
            403,
            40310000,
            "potential wash trade detected. use complex orders",
            existing_order_id=other.id,
            reject_reason=f"opposite side {other.type} order exists",
        )


def _could_trade(request: OrderRequest, other: Order) -> bool:
    limited = ("limit", "stop_limit")
    if request.type not in limited or other.type not in limited:
        return True
    if request.limit_price is None or other.limit_price is None:
        return True
    if request.side == BUY:
        return request.limit_price >= other.limit_price
    return request.limit_price <= other.limit_price


def check_prices(book: Book, request: OrderRequest) -> None:
    """Refuse stops and targets on the wrong side of the price they start from, a cent at least."""
    quote = book.quotes.get(request.symbol)
    market = tradable_price(side=request.side, quote=quote) if quote else None
    sign = 1 if request.side == BUY else -1
    if request.stop_price is not None and market is not None:
        _check_beyond("stop_price", request.stop_price, market, sign)
    if request.order_class == "oco":
        target = request.target_price or request.limit_price
        if target is not None and request.protect_price is not None:
            _check_beyond("stop_loss.stop_price", request.protect_price, target, sign)
        if market is not None and request.protect_price is not None:
            _check_beyond("stop_loss.stop_price", request.protect_price, market, sign)
    elif request.order_class:
        base = request.limit_price or request.stop_price or market
        if base is not None and request.target_price is not None:
            _check_beyond("take_profit.limit_price", request.target_price, base, sign)
        if base is not None and request.protect_price is not None:
            _check_beyond("stop_loss.stop_price", request.protect_price, base, -sign)
        if request.target_price is not None and request.protect_price is not None:
            _check_beyond("take_profit.limit_price", request.target_price, request.protect_price, sign)


def _check_beyond(field: str, price: Decimal, base: Decimal, sign: int) -> None:
    """Refuse a price that is not at least a cent above the base price (sign 1), or below it (sign -1)."""
    if sign * (price - base) < CENT:
        raise Refusal(
            422,
            42210000,
            f"{field} must be {'>=' if sign > 0 else '<='} base_price {'+' if sign > 0 else '-'} 0.01",
            base_price=text(base),
        )


def check_buying_power(book: Book, request: OrderRequest) -> None:
    """Refuse an opening buy that costs more than the buying power, judged at the limit or the quote."""
    if request.side != BUY or book.position_qty(request.symbol) < 0:
        return
    quote = book.quotes.get(request.symbol)
    price = request.limit_price or request.stop_price or (quote.ask if quote else None)
    if price is None:
        return
    power = max(book.cash, Decimal(0)) * MARGIN_MULTIPLIER
    if request.qty * price > power:
        raise Refusal(
            403,
            40310000,
            "insufficient buying power",
            buying_power=text(power),
            cost_basis=text(request.qty * price),
            symbol=request.symbol,
        )


def check_order(book: Book, request: OrderRequest) -> None:
    """Refuse an order that the account may not place.

    :raises Refusal: the first reason found.
    """
    asset = check_asset(book, request)
    check_client_id(book, request.client_order_id)
    check_purpose(book, request)
    check_prices(book, request)
    check_quantity(book, request, asset)
    check_wash_trade(book, request)
    check_buying_power(book, request)
