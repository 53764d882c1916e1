"""Encryption of broker credentials at rest: AES-256-GCM, newest key first, bound to the place they are stored in."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_NONCE_BYTES = 12


class UnreadableCredentials(Exception):
    """None of the configured keys opens a stored secret."""


def _keys() -> list[AESGCM]:
    return [AESGCM(base64.urlsafe_b64decode(key)) for key in settings.EXITMGR_KEYS]


def encrypt(secret: Mapping[str, Any], *, bound_to: str) -> bytes:
    """Return nonce and ciphertext of a JSON object under the newest key; it opens only for the same `bound_to`."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _keys()[0].encrypt(nonce, json.dumps(dict(secret)).encode(), bound_to.encode())


def decrypt(stored: bytes, *, bound_to: str) -> dict[str, Any]:
    """Return the JSON object, trying each configured key.

    :raises UnreadableCredentials: the key was dropped from EXITMGR_KEYS, or the value was moved from elsewhere.
    """
    nonce, sealed = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
    for key in _keys():
        try:
            opened: dict[str, Any] = json.loads(key.decrypt(nonce, sealed, bound_to.encode()))
        except (InvalidTag, ValueError):  # ValueError: too short to be one of ours
            continue
        return opened
    raise UnreadableCredentials(
        "no key in EXITMGR_KEYS opens these credentials; restore the key they were written with"
    )
