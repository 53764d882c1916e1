"""Connections to brokers over HTTP, and what a request that failed below HTTP proves."""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as faults

from orders.errors import BrokerError, NotSent, OutcomeUnknown

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0
_POOL_SIZE: Final = 4
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def open_pool(base_url: str) -> urllib3.PoolManager:
    """Return a pool with our timeouts, through the environment's proxy unless the address is of this machine."""
    options: dict[str, Any] = {
        "maxsize": _POOL_SIZE,
        "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
    }
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxy = None if host in _LOOPBACK or proxy_bypass(host) else getproxies().get(parts.scheme)
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)


def transport_error(error: Exception, *, subject: str) -> BrokerError:
    """Return NotSent where the error proves that no request left us, OutcomeUnknown else."""
    said = f"{subject}: {type(error).__name__}"
    cause = error.original_error if isinstance(error, faults.ProxyError) else error
    if isinstance(cause, faults.NewConnectionError | faults.ConnectTimeoutError):
        return NotSent(said)
    if isinstance(cause, faults.SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError):
        return NotSent(f"{said}: the certificate of the server is not trusted")
    return OutcomeUnknown(said)
