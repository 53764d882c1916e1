"""Which client order id a ref_id at Robinhood stands for: it cannot be computed back, so this process remembers.

Forgetting is harmless: orders that were acknowledged are known by Robinhood's own id as well.
"""

from __future__ import annotations

import threading
from typing import Final

from orders.brokers.robinhood_payloads import ref_id

MOST_REMEMBERED: Final = 20_000

_lock = threading.Lock()
_client_ids: dict[str, str] = {}


def remember(client_order_id: str) -> None:
    """Keep a client order id; the oldest give way."""
    with _lock:
        _client_ids[ref_id(client_order_id)] = client_order_id
        while len(_client_ids) > MOST_REMEMBERED:
            del _client_ids[next(iter(_client_ids))]


def client_id_of(told: object) -> str:
    """Return our client order id of a ref_id, or the ref_id itself where this process never met it."""
    text = str(told or "")
    return _client_ids.get(text, text)
