"""What a spot account holds: coins are positions against its quote currency, which itself is money."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from orders.brokers.crypto_lookups import Asker
from orders.brokers.crypto_payloads import amounts, spot_positions
from orders.brokers.crypto_refusals import translating
from orders.brokers.exact import to_decimal
from orders.brokers.protocol import BrokerAccount, BrokerPosition


def holdings(asker: Asker, *, quote: str) -> list[BrokerPosition]:
    """Return what is held of each currency that trades against the quote currency."""
    balance = asker.ask("positions", "fetch_balance")
    with translating("positions"):
        return spot_positions(amounts(balance), quote=quote, symbols=asker.exchange.markets)


def money(asker: Asker, *, quote: str) -> BrokerAccount:
    """Return the account's money in the quote currency; what it holds is worth its last price."""
    balance = asker.ask("account", "fetch_balance")
    with translating("account"):
        held = amounts(balance)
        cash, free = held.get(quote, (Decimal(0), Decimal(0)))
        coins = spot_positions(held, quote=quote, symbols=asker.exchange.markets)
    return BrokerAccount(
        account_number=_number(balance, key=str(asker.exchange.apiKey)),
        equity=cash + _worth(asker, coins),
        cash=cash,
        buying_power=free,
    )


def _worth(asker: Asker, coins: Sequence[BrokerPosition]) -> Decimal:
    if not coins:
        return Decimal(0)
    names = [coin.symbol for coin in coins]
    if asker.exchange.has.get("fetchTickers") is True:
        tickers = asker.ask("account", "fetch_tickers", names)
    else:
        tickers = {name: asker.ask("account", "fetch_ticker", name) for name in names}
    with translating("account"):
        prices = {name: ticker.get("last") or ticker.get("bid") for name, ticker in tickers.items()}
        return sum((coin.quantity * to_decimal(prices[coin.symbol]) for coin in coins), Decimal(0))


def _number(balance: Mapping[str, Any], *, key: str) -> str:
    """Return the account's number, or where the venue names none something that stands for its key."""
    info = balance.get("info")
    told = info.get("uid") or info.get("accountId") if isinstance(info, dict) else None
    return str(told or hashlib.sha256(key.encode()).hexdigest()[:12])
