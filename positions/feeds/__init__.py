"""The registry of market data: which stream belongs to an account."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from positions.feeds.protocol import Feed
    from positions.models import Account


class UnknownFeedError(Exception):
    """An account names a broker whose market data nobody here can read."""


def _alpaca(account: Account) -> Feed:
    from positions.feeds.alpaca import AlpacaFeed, data_stream_url  # only the feed process loads it

    secret = account.credentials or {}
    return AlpacaFeed(key=secret.get("key", ""), secret=secret.get("secret", ""), url=data_stream_url(account.base_url))


def _ccxt(account: Account) -> Feed:
    from positions.feeds.crypto import CryptoFeed  # its library is heavy, and optional

    return CryptoFeed(venue=account.broker.partition(":")[2], base_url=account.base_url)


#: What stands before a colon in an account's broker. `paper` is Alpaca's stream, served by the simulated broker.
FEEDS: dict[str, Callable[[Account], Feed]] = {"alpaca": _alpaca, "paper": _alpaca, "ccxt": _ccxt}


def feed_for(account: Account) -> Feed:
    """Return a stream of prices with the account's address and credentials.

    :raises UnknownFeedError: there is none for the account's broker.
    """
    try:
        make = FEEDS[account.broker.partition(":")[0]]
    except KeyError:
        raise UnknownFeedError(
            f"account {account.name} names broker {account.broker!r}; prices come from one of {sorted(FEEDS)}"
        ) from None
    return make(account)
