"""What the broker of an account can do, asked without talking to it."""

from __future__ import annotations

from orders.brokers.protocol import Capabilities
from orders.brokers.registry import connect
from orders.errors import BrokerError


def abilities_of(account_id: int) -> Capabilities | None:
    """Return what an account's broker can do; None where it names no broker we know, or its keys cannot be read."""
    try:
        return connect([account_id])(account_id).capabilities
    except BrokerError:
        return None
