"""What a crypto exchange can do, read from what ccxt says of it; no venue is told by its name."""

from __future__ import annotations

from typing import Any, Final

from orders.brokers.protocol import Capabilities, OrderType, TimeInForce

#: A signed request that comes later than this is turned away by the venues that look; the others have had their time.
_SETTLED_SECONDS: Final = 15.0


def capabilities_of(exchange: Any) -> Capabilities:
    """Return what a venue's spot market can do.

    None refuses a used client order id for ever, so of an order whose outcome is unknown only a look-up can tell.
    """
    features = spot_features(exchange, "createOrder")
    types = {OrderType.LIMIT}
    if exchange.has.get("createMarketOrder") is not False:
        types.add(OrderType.MARKET)
    if features.get("stopLossPrice"):
        if exchange.has.get("createStopLimitOrder"):
            types.add(OrderType.STOP_LIMIT)
        if exchange.has.get("createStopMarketOrder"):
            types.add(OrderType.STOP)
    told = features.get("timeInForce") or {}
    return Capabilities(
        order_types=frozenset(types),
        times_in_force=frozenset(
            {TimeInForce.GTC} | {word for word in (TimeInForce.IOC, TimeInForce.FOK) if told.get(word.upper())}
        ),
        fractional=True,
        lookup_by_client_id=takes_client_ids(exchange),
        settle_after_seconds=_SETTLED_SECONDS,
        requests_per_minute=int(60_000 / exchange.rateLimit) if exchange.rateLimit else None,
    )


def spot_features(exchange: Any, verb: str) -> dict[str, Any]:
    """Return what ccxt says of one verb on the spot market."""
    found = ((exchange.features or {}).get("spot") or {}).get(verb)
    return found if isinstance(found, dict) else {}


def takes_client_ids(exchange: Any) -> bool:
    """Say whether an order can be asked for by our own id: ccxt has no flag for it, its code names the parameter."""

    def named(constant: object) -> bool:
        return constant == "clientOrderId" or (isinstance(constant, tuple) and any(map(named, constant)))

    return any(map(named, type(exchange).fetch_order.__code__.co_consts))
