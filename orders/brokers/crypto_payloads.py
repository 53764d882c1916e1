"""Our values to ccxt's unified structures and back, exactly: numbers are text on both sides, never floats.

What cannot be read raises `Unreadable`. Exchanges file orders and trades under their symbol, so the ids we hand out
are the venue's with the symbol behind an "@".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from orders.brokers.exact import Unreadable, plain, reading, to_decimal
from orders.brokers.protocol import (
    BrokerPosition,
    Execution,
    InstrumentFacts,
    OrderReport,
    OrderSide,
    PriceBar,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)
from orders.client_ids import LENGTH, is_ours

Json = Mapping[str, Any]

_S = ReportedState
STATUSES: Final[dict[str, ReportedState]] = {
    "open": _S.WORKING,
    "canceling": _S.CANCELLING,
    "canceled": _S.CANCELLED,
    "cancelled": _S.CANCELLED,
    "expired": _S.EXPIRED,
    "rejected": _S.REJECTED,
}
TIMES_IN_FORCE: Final = {TimeInForce.GTC: "GTC", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL_PLACES: Final = 2


def to_time(milliseconds: Any) -> datetime:
    """Return Unix milliseconds as aware UTC.

    :raises Unreadable: it is no number.
    """
    with reading("time"):
        return _EPOCH + timedelta(milliseconds=int(milliseconds))


def to_milliseconds(moment: datetime) -> int:
    """Return a moment as Unix milliseconds."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def filed_id(venue_id: str, symbol: str) -> str:
    """Return an id of the venue's with the symbol it is filed under."""
    return f"{venue_id}@{symbol}"


def taken_apart(broker_order_id: str) -> tuple[str, str]:
    """Return the venue's id and the symbol of an id of ours; the symbol is empty where it names none."""
    venue_id, _, symbol = broker_order_id.rpartition("@")
    return (venue_id, symbol) if venue_id else (broker_order_id, "")


def our_id(order: Json) -> str:
    """Return the client order id of an order, without what some venues put before ours."""
    told = str(order.get("clientOrderId") or "")
    return told[-LENGTH:] if is_ours(told[-LENGTH:]) else told


def order_arguments(request: SubmitRequest) -> tuple[str, str, str, str, str | None, dict[str, str]]:
    """Return the arguments of ccxt's create_order: symbol, type, side, amount, price, parameters.

    A stop's price goes as `stopLossPrice`, which says by itself from which side it is touched.
    """
    parameters = {"clientOrderId": request.client_order_id}
    limit = request.limit_price
    if limit is not None:
        parameters["timeInForce"] = TIMES_IN_FORCE[request.time_in_force]
    if request.stop_price is not None:
        parameters["stopLossPrice"] = plain(request.stop_price)
    return (
        request.symbol,
        "market" if limit is None else "limit",
        str(request.side),
        plain(request.quantity),
        None if limit is None else plain(limit),
        parameters,
    )


def order_report(order: Json, *, executions: tuple[Execution, ...] = (), now: datetime | None = None) -> OrderReport:
    """Return our report of ccxt's order structure; `now` stands in where the venue gives no time.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("order"):
        symbol, venue_id = str(order["symbol"]), str(order["id"])
        filled = to_decimal(order.get("filled") or 0)
        amount = order.get("amount")
        quantity = filled if amount is None else to_decimal(amount)
        moment = order.get("lastUpdateTimestamp") or order.get("lastTradeTimestamp") or order.get("timestamp")
        if moment is None and now is None:
            raise Unreadable("order without a time")
        average = order.get("average")
        return OrderReport(
            client_order_id=our_id(order),
            broker_order_id=filed_id(venue_id, symbol),
            state=_state(order.get("status"), filled=filled, quantity=quantity),
            symbol=symbol,
            side=OrderSide(order["side"]),
            quantity=quantity,
            filled_quantity=filled,
            average_fill_price=to_decimal(average) if average is not None and filled else None,
            at=to_time(moment) if moment is not None else now or _EPOCH,
            executions=executions,
            raw_status=str(order.get("status") or ""),
        )


def _state(status: object, *, filled: Decimal, quantity: Decimal) -> ReportedState:
    if status == "closed":
        # some venues close what was taken off the book before it was filled
        return _S.FILLED if filled and filled >= quantity else _S.CANCELLED
    return STATUSES.get(str(status), _S.UNRECOGNISED)


def is_whole(order: Json) -> bool:
    """Return whether an answer says what an order is and how it stands; some only acknowledge it with an id."""
    return all(order.get(name) is not None for name in ("id", "symbol", "side", "status", "amount", "timestamp"))


def is_the_stop(order: Json, request: SubmitRequest) -> bool:
    """Return whether an order that was read back waits for the trigger, and has the limit, that was asked for."""
    triggers = [order.get(name) for name in ("triggerPrice", "stopLossPrice", "stopPrice")]
    limit = order.get("price")
    return any(price is not None and to_decimal(price) == request.stop_price for price in triggers) and (
        request.limit_price is None or (limit is not None and to_decimal(limit) == request.limit_price)
    )


def executions(trades: Iterable[Json], *, order_id: str, symbol: str) -> tuple[Execution, ...]:
    """Return the executions of one order, oldest first.

    Fees are in the quote currency: one in the base is worth its price, one in another currency is not told (0).

    :raises Unreadable: a field we need is missing or malformed.
    """
    found: dict[str, Execution] = {}
    alike: Counter[str] = Counter()
    with reading("trade"):
        for trade in trades:
            if str(trade.get("order") or order_id) != order_id:
                continue
            quantity, price = to_decimal(trade["amount"]), to_decimal(trade["price"])
            number = trade.get("id") or _made_up_id(trade, alike=alike)
            execution_id = filed_id(str(number), symbol)
            found[execution_id] = Execution(
                execution_id=execution_id,
                quantity=quantity,
                price=price,
                at=to_time(trade["timestamp"]),
                fee=_fee(trade, symbol=symbol, price=price),
            )
    return tuple(sorted(found.values(), key=lambda fill: (fill.at, fill.execution_id)))


def _made_up_id(trade: Json, *, alike: Counter[str]) -> str:
    """Return an id that the same trade gets each time; those alike in one millisecond are numbered."""
    stem = ":".join(str(trade[name]) for name in ("order", "timestamp", "amount", "price"))
    alike[stem] += 1
    return f"{stem}:{alike[stem]}"


def _fee(trade: Json, *, symbol: str, price: Decimal) -> Decimal:
    base, _, quote = symbol.partition("/")
    total = Decimal(0)
    for fee in trade.get("fees") or [trade.get("fee") or {}]:
        if fee.get("cost") is None:
            continue
        worth = {quote: Decimal(1), base: price}.get(str(fee.get("currency")), Decimal(0))
        total += to_decimal(fee["cost"]) * worth
    return total


def amounts(balance: Json) -> dict[str, tuple[Decimal, Decimal]]:
    """Return what the account has of each currency, and the part of it that no order holds.

    :raises Unreadable: a figure is malformed.
    """
    with reading("balance"):
        held = {}
        for currency, total in (balance.get("total") or {}).items():
            free = (balance.get("free") or {}).get(currency)
            if total is not None and to_decimal(total):
                held[str(currency)] = (to_decimal(total), to_decimal(total if free is None else free))
        return held


def spot_positions(
    held: Mapping[str, tuple[Decimal, Decimal]], *, quote: str, symbols: Mapping[str, Any]
) -> list[BrokerPosition]:
    """Return the holdings that trade against the account's quote currency; an exchange knows no entry price (0)."""
    return [
        BrokerPosition(symbol=f"{base}/{quote}", quantity=total, available=free, average_entry=Decimal(0))
        for base, (total, free) in held.items()
        if f"{base}/{quote}" in symbols
    ]


def instrument_facts(market: Json, *, precision_mode: int) -> InstrumentFacts:
    """Return what the venue says of one of its markets.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("market"):
        smallest = ((market.get("limits") or {}).get("cost") or {}).get("min")
        return InstrumentFacts(
            symbol=str(market["symbol"]),
            asset_class="crypto",
            tick=_increment(market["precision"]["price"], precision_mode),
            lot=_increment(market["precision"]["amount"], precision_mode),
            tradable=market.get("active") is not False,
            shortable=False,
            fractionable=True,
            min_notional=to_decimal(smallest) if smallest is not None else Decimal(0),
        )


def _increment(precision: object, mode: int) -> Decimal:
    figure = to_decimal(precision)
    return Decimal(1).scaleb(-int(figure)) if mode == _DECIMAL_PLACES else figure.normalize()


def price_bar(symbol: str, row: list[Any]) -> PriceBar:
    """Return one historical bar.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("bar"):
        prices = [to_decimal(figure) for figure in row[1:5]]
        return PriceBar(
            symbol=symbol,
            start=to_time(row[0]),
            open=prices[0],
            high=prices[1],
            low=prices[2],
            close=prices[3],
            volume=to_decimal(row[5] or 0),
        )
