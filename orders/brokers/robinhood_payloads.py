"""Robinhood's JSON to our values and back, exactly. Orders there are named by a UUID, so our ids become UUIDs.

What cannot be read raises `Unreadable`; a state we have never seen is reported as such, not refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from orders.brokers.exact import plain, reading, to_decimal, to_time
from orders.brokers.protocol import (
    BrokerAccount,
    BrokerPosition,
    Execution,
    InstrumentFacts,
    OrderReport,
    OrderSide,
    OrderType,
    PriceBar,
    ReportedState,
    SubmitRequest,
    TimeInForce,
)

Json = Mapping[str, Any]  # one JSON object

_S = ReportedState

STATES: Final[dict[str, ReportedState]] = {
    "new": _S.WORKING,
    "pending": _S.WORKING,
    "queued": _S.WORKING,  # waits for the session
    "unconfirmed": _S.WORKING,
    "confirmed": _S.WORKING,
    "partially_filled": _S.WORKING,
    "pending_cancelled": _S.CANCELLING,
    "pending_canceled": _S.CANCELLING,
    "filled": _S.FILLED,
    "cancelled": _S.CANCELLED,
    "canceled": _S.CANCELLED,
    "partially_filled_rest_cancelled": _S.CANCELLED,
    "rejected": _S.REJECTED,
    "failed": _S.REJECTED,
    "voided": _S.REJECTED,
    "expired": _S.EXPIRED,
}
ENDED: Final = frozenset({_S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED})

#: How far beyond the ask a market purchase may trade: Robinhood takes those as limits alone, named by this fraction.
MARKET_COLLAR: Final = Decimal("0.05")
_REFS: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:exitmgr:robinhood:ref_id")
_TIMES: Final = {TimeInForce.DAY: "gfd", TimeInForce.GTC: "gtc"}
_CENT: Final = Decimal("0.01")
_FRACTION: Final = Decimal("0.000001")  # six decimals, the finest quantity Robinhood takes
_ORDER_FORM: Final = 4  # older forms are turned away, as of an app that has to be updated
_INTERVALS: Final = {300: "5minute", 600: "10minute", 3600: "hour", 86_400: "day", 604_800: "week"}
#: The spans that each interval is given over, the shortest first, and how many days each reaches back.
_SPANS: Final = {
    "5minute": ("day", "week"),
    "10minute": ("day", "week"),
    "hour": ("month", "3month"),
    "day": ("year", "5year"),
    "week": ("5year",),
}
_REACHES: Final = {"day": 1, "week": 7, "month": 30, "3month": 90, "year": 365, "5year": 5 * 365}


def ref_id(client_order_id: str) -> str:
    """Return the UUID under which an order of ours is known at Robinhood: always the same one."""
    return str(uuid.uuid5(_REFS, client_order_id))


def order_payload(
    request: SubmitRequest, *, account_url: str, instrument_url: str, limit: Decimal | None = None
) -> dict[str, object]:
    """Return the body of POST /orders/; `limit` is the price of an order that may not be a market order.

    Market orders are for the day: as good till cancelled they are turned away.
    """
    price = limit if limit is not None else request.limit_price
    stops = request.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    lasts = TimeInForce.DAY if request.order_type is OrderType.MARKET else request.time_in_force
    payload: dict[str, object] = {
        "account": account_url,
        "instrument": instrument_url,
        "symbol": request.symbol,
        "ref_id": ref_id(request.client_order_id),
        "side": str(request.side),
        "quantity": plain(request.quantity),
        "type": "market" if price is None else "limit",
        "trigger": "stop" if stops else "immediate",
        "time_in_force": _TIMES[lasts],
        "market_hours": "extended_hours" if request.extended_hours else "regular_hours",
        "extended_hours": request.extended_hours,
        "order_form_version": _ORDER_FORM,
    }
    if price is not None:
        payload["price"] = plain(price)
    if stops and request.stop_price is not None:
        payload["stop_price"] = plain(request.stop_price)
    if limit is not None and request.side is OrderSide.BUY:
        payload["preset_percent_limit"] = plain(MARKET_COLLAR)
    return payload


def order_report(order: Json, *, symbol: str, client_order_id: str) -> OrderReport:
    """Return our report of an order, with its executions, which Robinhood always tells along.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("order"):
        state = str(order["state"])
        filled = to_decimal(order.get("cumulative_quantity") or 0)
        average = order.get("average_price")
        # an order by dollars, which only others on the account place, may have no quantity of its own
        quantity = to_decimal(order["quantity"]) if order.get("quantity") is not None else filled
        return OrderReport(
            client_order_id=client_order_id,
            broker_order_id=str(order["id"]),
            state=STATES.get(state, ReportedState.UNRECOGNISED),
            symbol=symbol,
            side=OrderSide(order["side"]),
            quantity=quantity,
            filled_quantity=filled,
            average_fill_price=to_decimal(average) if average is not None and filled else None,
            at=to_time(order.get("updated_at") or order.get("last_transaction_at") or order["created_at"]),
            executions=tuple(_execution(told) for told in order.get("executions") or ()),
            reason=str(order.get("reject_reason") or ""),
            raw_status=state,
        )


def _execution(told: Json) -> Execution:
    return Execution(
        execution_id=str(told["id"]),
        quantity=to_decimal(told["quantity"]),
        price=to_decimal(told["price"]),
        at=to_time(told["timestamp"]),
        fee=to_decimal(told.get("fees") or 0),
    )


def broker_position(position: Json, *, symbol: str) -> BrokerPosition:
    """Return a holding; shares that open sales hold are not available.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("position"):
        quantity = to_decimal(position["quantity"])
        return BrokerPosition(
            symbol=symbol,
            quantity=quantity,
            available=quantity - to_decimal(position.get("shares_held_for_sells") or 0),
            average_entry=to_decimal(position["average_buy_price"]),
        )


def broker_account(account: Json, portfolio: Json) -> BrokerAccount:
    """Return the money of the account; what its holdings are worth is told by its portfolio.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("account"):
        return BrokerAccount(
            account_number=str(account["account_number"]),
            equity=to_decimal(portfolio["equity"]),
            cash=to_decimal(account["cash"]),
            buying_power=to_decimal(account["buying_power"]),
            blocked=any(
                account.get(flag)
                for flag in ("deactivated", "permanently_deactivated", "locked", "only_position_closing_trades")
            ),
        )


def instrument_facts(instrument: Json) -> InstrumentFacts:
    """Return what Robinhood says of an instrument. Parts of shares trade in market orders alone.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("instrument"):
        fractionable = instrument.get("fractional_tradability") == "tradable"
        tick = instrument.get("min_tick_size")
        return InstrumentFacts(
            symbol=str(instrument["symbol"]),
            asset_class="equity",
            tick=to_decimal(tick) if tick else _CENT,
            lot=_FRACTION if fractionable else Decimal(1),
            tradable=bool(instrument["tradeable"]) and instrument.get("state") == "active",
            shortable=False,
            fractionable=fractionable,
        )


def price_bar(bar: Json, *, symbol: str) -> PriceBar:
    """Return one historical bar.

    :raises Unreadable: a field we need is missing or malformed.
    """
    with reading("bar"):
        return PriceBar(
            symbol=symbol,
            start=to_time(bar["begins_at"]),
            open=to_decimal(bar["open_price"]),
            high=to_decimal(bar["high_price"]),
            low=to_decimal(bar["low_price"]),
            close=to_decimal(bar["close_price"]),
            volume=to_decimal(bar.get("volume") or 0),
        )


def bars_window(*, start: datetime, now: datetime, seconds: int) -> tuple[str, str] | None:
    """Return Robinhood's words for interval and span, or None where it has no bars of this length.

    Where no span reaches back so far the longest is named: of a time before it there is nothing.
    """
    if (interval := _INTERVALS.get(seconds)) is None:
        return None
    spans = _SPANS[interval]
    return interval, next((span for span in spans if now - start <= timedelta(days=_REACHES[span])), spans[-1])
