"""An account names its exchange behind a colon; what is wrong with it is said, and holds up nobody else."""

from __future__ import annotations

import pytest

from orders.brokers.abilities import abilities_of
from orders.brokers.crypto import CryptoBroker
from orders.brokers.registry import UnknownBroker, connect
from positions.feeds import UnknownFeedError, feed_for
from positions.feeds.crypto import CryptoFeed
from positions.models import Account
from tests.factories import make_account

pytest.importorskip("ccxt", reason="crypto exchanges need the packages of requirements-crypto.txt")


@pytest.mark.django_db
def test_an_account_names_its_exchange() -> None:
    account = make_account(broker="ccxt:binance", url="")
    broker = connect([account.pk])(account.pk)
    assert isinstance(broker, CryptoBroker)
    assert repr(broker) == "CryptoBroker('binance')"
    assert abilities_of(account.pk) == broker.capabilities
    assert isinstance(feed_for(account), CryptoFeed)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("_case", "broker", "secret", "said"),
    [
        ("no such venue", "ccxt:nosuch", "s", "knows no exchange 'nosuch'"),
        ("no venue", "ccxt", "s", "knows no exchange ''"),
        ("no secret", "ccxt:binance", "", "needs both key and secret"),
        ("no such broker", "ccxtx:binance", "s", "names broker 'ccxtx:binance'"),
    ],
)
def test_an_account_that_cannot_work_waits_and_says_why(_case: str, broker: str, secret: str, said: str) -> None:
    account = make_account(broker=broker, secret=secret, url="")
    with pytest.raises(UnknownBroker, match=said):
        connect([account.pk])(account.pk)


@pytest.mark.django_db
def test_credentials_with_an_unknown_word_are_told() -> None:
    account = make_account(broker="ccxt:binance", url="")
    Account.objects.filter(pk=account.pk).update(credentials={"key": "k", "secret": "s", "pasword": "p"})
    with pytest.raises(UnknownBroker, match="pasword"):
        connect([account.pk])(account.pk)


def test_prices_of_an_unknown_broker_are_refused() -> None:
    with pytest.raises(UnknownFeedError, match="prices come from one of"):
        feed_for(Account(name="x", broker="nobody:binance"))
