"""Client order ids: a pure function of what is decided, so one decision never becomes two broker orders."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Final

PREFIX: Final = "xm"
LENGTH: Final = 28

_OURS: Final = re.compile(rf"{PREFIX}[a-z2-7]{{{LENGTH - len(PREFIX)}}}")


def client_order_id(*, account_id: int, subject: str, leg: str, attempt: int) -> str:
    """Return the id under which one attempt of one decision is known to the broker.

    SHA-256 over account, subject (the position or entry), leg and attempt, in lower-case base32 after the
    prefix: 28 characters of [a-z2-7], within every venue's limit, 130 bits of the digest. `attempt` may only
    rise once the former attempt is proven terminal.
    """
    # as JSON, so that no two different decisions are ever the same text
    decided = json.dumps([account_id, subject, leg, attempt]).encode()
    digest = base64.b32encode(hashlib.sha256(decided).digest()).decode().lower()
    return PREFIX + digest[: LENGTH - len(PREFIX)]


def is_ours(text: str) -> bool:
    """Return whether an id found at a broker has the shape of one of ours."""
    return _OURS.fullmatch(text) is not None
