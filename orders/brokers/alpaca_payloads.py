"""Alpaca's JSON to our values, exactly: numbers arrive as decimal text, never as floats.

What cannot be read raises `Unreadable`; a status word we have never seen is reported as such, not refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from orders.brokers.exact import reading, to_decimal, to_time
from orders.brokers.protocol import (
    BrokerAccount,
    BrokerPosition,
    Execution,
    InstrumentFacts,
    OrderReport,
    OrderSide,
    PriceBar,
    ReportedState,
)

Json = Mapping[str, Any]  # one JSON object

_S = ReportedState

STATUSES: Final[dict[str, ReportedState]] = {
    "new": _S.WORKING,
    "partially_filled": _S.WORKING,
    "accepted": _S.WORKING,
    "pending_new": _S.WORKING,
    "accepted_for_bidding": _S.WORKING,
    "pending_review": _S.WORKING,
    "held": _S.WORKING,  # the passive leg of a group
    "pending_replace": _S.WORKING,  # the replacement may still be refused
    "done_for_day": _S.WORKING,  # a GTC order goes on next session, a DAY order expires by itself
    "stopped": _S.WORKING,  # a trade is guaranteed but has not happened
    "suspended": _S.WORKING,
    "calculated": _S.WORKING,  # closing figures are being made up
    "pending_cancel": _S.CANCELLING,
    "filled": _S.FILLED,
    "canceled": _S.CANCELLED,
    "rejected": _S.REJECTED,
    "expired": _S.EXPIRED,
    "replaced": _S.REPLACED,
}
#: After these nothing more happens to an order of this id.
ENDED: Final = frozenset({_S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED, _S.REPLACED})
#: Events whose word is final even where the order inside the message still shows the state before it.
FINAL_EVENTS: Final = {
    "fill": _S.FILLED,
    "canceled": _S.CANCELLED,
    "rejected": _S.REJECTED,
    "expired": _S.EXPIRED,
}
FILL_EVENTS: Final = frozenset({"fill", "partial_fill"})
#: Corrections of executions we may have booked. Nothing undoes a booking by itself, so they are reported under their
#: own word, as a state nobody knows: a person has to look.
CORRECTION_EVENTS: Final = frozenset({"trade_bust", "trade_correct"})

_SIDES: Final = {"buy": OrderSide.BUY, "sell": OrderSide.SELL, "sell_short": OrderSide.SELL}
_ASSET_CLASSES: Final = {"us_equity": "equity", "crypto": "crypto", "us_option": "option"}
_CENT: Final = Decimal("0.01")
_FRACTION: Final = Decimal("0.000000001")  # nine decimals, the finest quantity Alpaca takes


def order_report(order: Json, *, executions: tuple[Execution, ...] = (), at: datetime | None = None) -> OrderReport:
    """Return our report of Alpaca's order object, with its legs where it comes nested: the target, then the stop.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("order"):
        filled = to_decimal(order.get("filled_qty") or 0)
        status = str(order["status"])
        # an order by notional, which only others on the account place, has no quantity of its own
        quantity = to_decimal(order["qty"]) if order.get("qty") is not None else filled
        average = order.get("filled_avg_price")
        return OrderReport(
            client_order_id=str(order.get("client_order_id") or ""),
            broker_order_id=str(order["id"]),
            state=STATUSES.get(status, ReportedState.UNRECOGNISED),
            symbol=str(order["symbol"]),
            side=_SIDES[order["side"]],
            quantity=quantity,
            filled_quantity=filled,
            average_fill_price=None if average is None else to_decimal(average),
            at=at or to_time(order.get("updated_at") or order.get("submitted_at") or order["created_at"]),
            executions=executions,
            raw_status=status,
            replaced_by=str(order.get("replaced_by") or ""),
            legs=tuple(order_report(leg) for leg in order.get("legs") or ()),
        )


def update_report(data: Json) -> OrderReport:
    """Return our report of one trade_updates event, with its execution where it is a fill.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("order update"):
        event, order = str(data["event"]), data["order"]
        at = to_time(data.get("timestamp") or order["updated_at"])
        executions: tuple[Execution, ...] = ()
        # a fill without an id could be booked twice, so it is left to the look-up
        if event in FILL_EVENTS and data.get("execution_id"):
            executions = (
                Execution(
                    execution_id=str(data["execution_id"]),
                    quantity=to_decimal(data["qty"]),
                    price=to_decimal(data["price"]),
                    at=at,
                ),
            )
        report = order_report(order, executions=executions, at=at)
        if event in CORRECTION_EVENTS:
            said = f"{event} of execution {data.get('execution_id')}"
            return replace(report, state=ReportedState.UNRECOGNISED, raw_status=event, reason=said)
        state = FINAL_EVENTS.get(event, report.state)
        return report if state is report.state else replace(report, state=state)


def flat_orders(orders: Iterable[Json]) -> Iterator[Json]:
    """Yield every order and, after it, its legs."""
    for order in orders:
        yield order
        yield from flat_orders(order.get("legs") or [])


def activity_execution(activity: Json) -> Execution:
    """Return the execution that a FILL activity tells of.

    The part of its id after "::" is the execution_id of the stream, so both ways of hearing book once.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("activity"):
        return Execution(
            execution_id=str(activity["id"]).rpartition("::")[2],
            quantity=to_decimal(activity["qty"]),
            price=to_decimal(activity["price"]),
            at=to_time(activity["transaction_time"]),
        )


def broker_position(position: Json) -> BrokerPosition:
    """Return a holding; Alpaca marks a short by its side, and by a sign that we do not rely on.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("position"):
        quantity = to_decimal(position["qty"])
        sign = -1 if position.get("side") == "short" or quantity < 0 else 1
        free = position.get("qty_available")
        return BrokerPosition(
            symbol=str(position["symbol"]),
            quantity=sign * abs(quantity),
            available=sign * abs(quantity if free is None else to_decimal(free)),
            average_entry=to_decimal(position["avg_entry_price"]),
        )


def broker_account(account: Json) -> BrokerAccount:
    """Return the money of the account.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("account"):
        return BrokerAccount(
            account_number=str(account["account_number"]),
            equity=to_decimal(account["equity"]),
            cash=to_decimal(account["cash"]),
            buying_power=to_decimal(account["buying_power"]),
            blocked=str(account["status"]).upper() != "ACTIVE"
            or any(account.get(flag) for flag in ("trading_blocked", "account_blocked", "trade_suspended_by_user")),
        )


def instrument_facts(asset: Json) -> InstrumentFacts:
    """Return what Alpaca says of an asset.

    Equities carry no increments: the tick is a cent (the finer one below a dollar is not used) and the lot a
    share, or nine decimals where fractions trade.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("asset"):
        fractionable = bool(asset.get("fractionable"))
        tick, lot = asset.get("price_increment"), asset.get("min_trade_increment")
        return InstrumentFacts(
            symbol=str(asset["symbol"]),
            asset_class=_ASSET_CLASSES.get(str(asset.get("class")), str(asset.get("class"))),
            tick=to_decimal(tick) if tick else _CENT,
            lot=to_decimal(lot) if lot else (_FRACTION if fractionable else Decimal(1)),
            tradable=bool(asset["tradable"]) and asset.get("status") == "active",
            shortable=bool(asset.get("shortable")),
            fractionable=fractionable,
        )


def price_bar(symbol: str, bar: Json) -> PriceBar:
    """Return one historical bar.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("bar"):
        return PriceBar(
            symbol=symbol,
            start=to_time(bar["t"]),
            open=to_decimal(bar["o"]),
            high=to_decimal(bar["h"]),
            low=to_decimal(bar["l"]),
            close=to_decimal(bar["c"]),
            volume=to_decimal(bar.get("v") or 0),
        )


def timeframe(seconds: int) -> str | None:
    """Return Alpaca's word for a bar length, or None where it has no such bars."""
    if seconds % 60 == 0 and 1 <= seconds // 60 <= 59:
        return f"{seconds // 60}Min"
    if seconds % 3600 == 0 and 1 <= seconds // 3600 <= 23:
        return f"{seconds // 3600}Hour"
    return {86_400: "1Day", 604_800: "1Week"}.get(seconds)
