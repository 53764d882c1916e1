"""One spot exchange as ccxt speaks it: opened without a word, each request sent at most once, numbers kept as text.

What became of the last request is kept beside the answer, because ccxt's errors do not tell what left us.
"""

from __future__ import annotations

import importlib
import json
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests import exceptions as faults
from urllib3 import exceptions as pool_faults

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 60.0
_LONGEST_WAIT_SECONDS: Final = 120.0
_TICK_SIZE: Final = 4  # ccxt's word for "a precision is an increment"
_DECIMAL_PLACES: Final = 2
#: Venues that refuse ids of ours, by what they said: an order would be turned away when it matters.
UNFIT: Final = {"kraken": "it takes client order ids of 18 characters or UUIDs, and ours have 28"}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class UnknownVenueError(ValueError):
    """There is no such exchange, or not one that can be traded exactly, or the library for it is not installed."""


class VenueSession(requests.Session):
    """Sends one request at a time, without redirects or repeats, and remembers what became of it."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Start counting anew, before a call that may send several requests."""
        self.sent = 0  #: requests that were tried
        self.left = False  #: whether the last one may have reached anybody
        self.status: int | None = None  #: of the last answer, None where none came
        self.retry_after: float | None = None
        self.clock_ahead: float | None = None  #: seconds of the venue's clock less ours

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        """Send one request with our own limits of time."""
        self.sent, self.left, self.status, self.retry_after = self.sent + 1, True, None, None
        self.trust_env = urlsplit(str(url)).hostname not in _LOOPBACK
        options |= {"timeout": (CONNECT_SECONDS, READ_SECONDS), "allow_redirects": False}
        try:
            response = super().request(method, url, *args, **options)
        except faults.RequestException as error:
            self.left = not _never_left(error)
            raise
        self.status = response.status_code
        self.retry_after = _seconds(response.headers.get("Retry-After"))
        self.clock_ahead = _clock_ahead(response.headers.get("Date"))
        return response


def _never_left(error: faults.RequestException) -> bool:
    """Say whether an error proves that no request was written to anybody we meant."""
    if isinstance(error, faults.ConnectTimeout | faults.InvalidURL | faults.InvalidSchema):
        return True
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else None
    if isinstance(reason, pool_faults.ProxyError):
        reason = reason.original_error
    if isinstance(reason, pool_faults.SSLError):
        return bool(reason.args) and isinstance(reason.args[0], ssl.SSLCertVerificationError)
    return isinstance(reason, pool_faults.NewConnectionError | pool_faults.ConnectTimeoutError)


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), _LONGEST_WAIT_SECONDS) if header else None
    except ValueError:  # a date, or nonsense: the caller has its own backoff
        return None


def _clock_ahead(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() - time.time() if header else None
    except (ValueError, TypeError):
        return None


def open_venue(
    *, venue: str, base_url: str = "", key: str = "", secret: str = "", password: str = ""
) -> tuple[Any, VenueSession]:
    """Return ccxt's exchange and the session it sends through; nothing is sent yet.

    With a `base_url` every request goes to that host, its path kept: a test network, or a stub.

    :raises UnknownVenueError: ccxt is not installed or does not know the venue, which may also be unfit, or count its
        prices in significant digits, which no fixed tick can stand for.
    """
    try:
        ccxt: Any = importlib.import_module("ccxt")  # heavy, and optional
    except ImportError as error:
        raise UnknownVenueError("crypto exchanges need the packages of requirements-crypto.txt") from error
    if venue not in ccxt.exchanges:
        raise UnknownVenueError(f"ccxt knows no exchange {venue!r}")
    if (why := UNFIT.get(venue)) is not None:
        raise UnknownVenueError(f"{venue} is not served: {why}")
    session = VenueSession()
    # its own limiter paces one instance, and there is one a thread: the shared budget paces all of them
    exchange = getattr(ccxt, venue)(
        {
            "apiKey": key,
            "secret": secret,
            "password": password,
            "enableRateLimit": False,
            "session": session,
            "options": {"defaultType": "spot", "fetchMargins": False, "warnOnFetchOpenOrdersWithoutSymbol": False},
        }
    )
    if exchange.precisionMode not in (_TICK_SIZE, _DECIMAL_PLACES):
        raise UnknownVenueError(f"{venue} counts significant digits, which has no fixed tick")
    exchange.number = str
    exchange.on_json_response = _exact_json
    exchange.has["fetchCurrencies"] = False  # deposits and withdrawals; often a private call more
    markets = exchange.options.get("fetchMarkets")
    if isinstance(markets, dict) and "spot" in (markets.get("types") or ()):
        exchange.options["fetchMarkets"] = markets | {"types": ["spot"]}
    if base_url:
        exchange.urls["api"] = _moved(exchange.urls["api"], base_url.rstrip("/"))
    return exchange, session


def _exact_json(body: str) -> Any:
    return json.loads(body, parse_float=str, parse_int=str)


def _moved(address: Any, base_url: str) -> Any:
    if isinstance(address, dict):
        return {name: _moved(part, base_url) for name, part in address.items()}
    return base_url + urlsplit(address).path if isinstance(address, str) else address


_loaded: dict[tuple[str, str], tuple[float, Any]] = {}
_loading = threading.Lock()


def load_markets(exchange: Any, *, base_url: str, again_for: str = "") -> None:
    """Give an exchange its markets: read once a process and venue, as they are megabytes on some.

    Where `again_for` is a symbol they do not have, they are read again, at most once a minute.
    """
    if exchange.markets and (not again_for or again_for in exchange.markets):
        return
    with _loading:
        read_at, source = _loaded.get((exchange.id, base_url), (0.0, None))
        missing = again_for and source is not None and again_for not in source.markets
        if source is None or (missing and time.monotonic() - read_at > LOOK_AGAIN_SECONDS):
            exchange.load_markets(True)
            _loaded[exchange.id, base_url] = (time.monotonic(), exchange)
        elif source is not exchange:
            exchange.set_markets_from_exchange(source)
