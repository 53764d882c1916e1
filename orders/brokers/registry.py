"""The registry of broker adapters: which class serves an account, and one connection per thread and account."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol, runtime_checkable

from orders.brokers.protocol import Broker
from orders.errors import NotSent
from positions.credentials import UnreadableCredentials
from positions.models import Account, Instrument
from positions.values import AssetClass


@runtime_checkable
class FiledBySymbol(Protocol):
    """An adapter whose venue says of no order that there is none unless the symbol is named."""

    def know_symbols(self, symbols: Collection[str]) -> None:
        """Take the symbols that an order of ours may be filed under."""
        ...


class UnknownBroker(NotSent):
    """An account names a broker there is no adapter for; its orders wait until somebody corrects it."""


def _alpaca(account: Account) -> Broker:
    from orders.brokers.alpaca import connect  # heavy: only processes that talk to it load it

    return connect(base_url=account.base_url, **(account.credentials or {}))


def _ccxt(account: Account) -> Broker:
    from orders.brokers.crypto import connect  # heavy, and its library is optional

    try:
        return connect(venue=account.broker.partition(":")[2], base_url=account.base_url, **(account.credentials or {}))
    except (ValueError, TypeError) as error:
        raise UnknownBroker(f"account {account.name}: {error}") from error


def _robinhood(account: Account) -> Broker:
    from orders.brokers.robinhood import connect

    try:
        return connect(base_url=account.base_url, **(account.credentials or {}))
    except (ValueError, TypeError) as error:
        raise UnknownBroker(f"account {account.name}: {error}") from error


#: What stands before a colon in an account's broker; behind it the adapter is told which venue (`ccxt:okx`).
#: `paper` is the Alpaca adapter pointed at the simulated broker: going live is a change of URL and keys.
ADAPTERS: dict[str, Callable[[Account], Broker]] = {
    "alpaca": _alpaca,
    "paper": _alpaca,
    "ccxt": _ccxt,
    "robinhood": _robinhood,
}

_local = threading.local()


def connect(account_ids: Collection[int]) -> Callable[[int], Broker]:
    """Return a function from account id to this thread's connection for it.

    Accounts are read here, once, so that the threads which talk to brokers never touch the database; a changed
    account (its `updated_at`) gets a fresh connection. The function raises NotSent where an account names a broker
    there is no adapter for, or no key opens its credentials: one wrong account does not hold up the others.
    """
    accounts: dict[int, Account] = {}
    unreadable: dict[int, str] = {}
    for pk in account_ids:
        try:
            accounts[pk] = Account.objects.get(pk=pk)
        except UnreadableCredentials as error:
            unreadable[pk] = str(error)

    symbols: list[str] = []
    if any(account.broker.startswith("ccxt:") for account in accounts.values()):
        symbols = list(Instrument.objects.filter(asset_class=AssetClass.CRYPTO).values_list("symbol", flat=True))

    def broker_for(account_id: int) -> Broker:
        if account_id in unreadable:
            raise NotSent(unreadable[account_id])
        account = accounts[account_id]
        adapter = ADAPTERS.get(account.broker.partition(":")[0])
        if adapter is None:
            raise UnknownBroker(
                f"account {account.name} names broker {account.broker!r}; use one of {sorted(ADAPTERS)}"
            )
        cache: dict[int, tuple[datetime, Broker]] = _local.__dict__.setdefault("brokers", {})
        held = cache.get(account_id)
        if held is None or held[0] != account.updated_at:
            held = cache[account_id] = (account.updated_at, adapter(account))
        if isinstance(held[1], FiledBySymbol):
            held[1].know_symbols(symbols)
        return held[1]

    return broker_for
