"""What each error of a crypto exchange proves: an allow-list by ccxt's error classes and what became of the request.

ccxt names the class from the venue's own code. It counts only beside an answer that was a refusal (200 or 4xx): the
same words on a 5xx page, or an error of any other class, leave the outcome of a write unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from orders.brokers.exact import Unreadable
from orders.brokers.protocol import OrderSide
from orders.errors import AccountRefused, BrokerError, NotSent, OutcomeUnknown, RefusalKind, Refused

K = RefusalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What became of the requests of one call: how many, whether the last may have arrived, and its answer."""

    sent: int
    left: bool
    status: int | None = None
    retry_after: float | None = None

    @property
    def was_refusal(self) -> bool:
        """Return whether the last answer has the status of a refusal; some venues refuse with 200."""
        return self.status == 200 or (self.status is not None and 400 <= self.status < 500)


@dataclass(frozen=True, slots=True)
class Row:
    """One proven refusal: ccxt's class, words in the message, and what it means to us."""

    name: str
    pattern: str
    kind: RefusalKind
    permanent: bool = False


#: Read from the top; a class comes before those it descends from.
REFUSALS: Final = (
    Row("InsufficientFunds", "", K.BUYING_POWER),  # of a sell: HELD_QUANTITY
    Row("OrderImmediatelyFillable", "", K.PRICE),
    Row("OrderNotFillable", "", K.PRICE),
    Row("MarketClosed", "", K.MARKET_CLOSED),
    Row("RestrictedLocation", "", K.NOT_ALLOWED, permanent=True),
    Row("BadSymbol", "", K.UNKNOWN_SYMBOL, permanent=True),
    Row("ContractUnavailable", "", K.UNKNOWN_SYMBOL),
    Row("OrderNotFound", "", K.NOT_FOUND, permanent=True),
    Row("InvalidOrder", r"not (permitted|allowed|enabled)|restricted", K.NOT_ALLOWED),
    Row("InvalidOrder", r"percent_price|price.*(range|limit|protect)", K.PRICE),
    Row("InvalidOrder", "", K.INVALID),
    Row("BadRequest", "", K.INVALID),
    Row("ArgumentsRequired", "", K.INVALID, permanent=True),
    Row("NotSupported", "", K.INVALID, permanent=True),
    Row("InvalidNonce", "", K.OTHER),  # our clock is off: turned away before anybody looks at the order
    Row("OperationRejected", "", K.OTHER),
)
_DUPLICATE: Final = re.compile(r"duplicate\w* .*(order|client)|client.?(order)?.?id.*(exist|duplicate|used)", re.I)
_ADDRESS: Final = re.compile(r"https?://\S+")


def names_of(error: BaseException) -> tuple[str, ...]:
    """Return the class of an error and those it descends from, by name: the library is optional."""
    return tuple(kind.__name__ for kind in type(error).__mro__)


def is_duplicate(error: Exception, traffic: Traffic) -> bool:
    """Return whether the venue says that this client order id is taken: proof that an order exists."""
    if traffic.sent == 0 or not traffic.was_refusal:
        return False
    names = names_of(error)
    return "DuplicateOrderId" in names or ("InvalidOrder" in names and _DUPLICATE.search(str(error)) is not None)


def is_not_found(error: Exception, traffic: Traffic) -> bool:
    """Return whether the venue itself says that it has no such order; a gateway's 404 does not count."""
    return "OrderNotFound" in names_of(error) and traffic.sent > 0 and traffic.was_refusal


def write_error(error: Exception, traffic: Traffic, *, subject: str, side: OrderSide | None = None) -> BrokerError:
    """Return what a failed request that would change something means: refused where proven, unknown else."""
    names = names_of(error)
    if traffic.sent and not traffic.left:
        return NotSent(f"{subject}: no connection")
    if (refusal := _turned_away(error, traffic)) is not None:
        return refusal
    if traffic.sent == 0 and "BaseError" not in names:
        # a defect of the library before anything was sent; sending the same again meets it again
        return Refused(f"{subject}: {type(error).__name__} {error}"[:300], kind=K.INVALID, permanent=True)
    if traffic.sent == 0 or traffic.was_refusal:
        for row in REFUSALS:
            if row.name in names and re.search(row.pattern, str(error), re.I):
                kind = K.HELD_QUANTITY if row.kind is K.BUYING_POWER and side is OrderSide.SELL else row.kind
                # what the library refuses by itself it will always refuse
                permanent = row.permanent or traffic.sent == 0
                return Refused(said(error), code=type(error).__name__, kind=kind, permanent=permanent)
    return OutcomeUnknown(f"{subject}: {_outcome(error, traffic)}")


def read_error(error: Exception, traffic: Traffic, *, subject: str) -> BrokerError:
    """Return what a failed question means. A question is never `Refused` as if it had been an order."""
    if traffic.sent and not traffic.left:
        return NotSent(f"{subject}: no connection")
    turned_away = _turned_away(error, traffic)
    if isinstance(turned_away, AccountRefused):
        return turned_away
    if turned_away is not None:
        return NotSent(f"{subject}: {turned_away}", retry_after=turned_away.retry_after)
    return OutcomeUnknown(f"{subject}: {_outcome(error, traffic)}")


def said(error: Exception) -> str:
    """Return the words of an error without addresses, which may carry signatures."""
    return _ADDRESS.sub("", str(error)).strip()[:300] or type(error).__name__


@contextmanager
def translating(subject: str) -> Iterator[None]:
    """Turn what fails while an answer is read into OutcomeUnknown: it says nothing about what happened."""
    try:
        yield
    except (Unreadable, LookupError, TypeError, AttributeError) as error:
        raise OutcomeUnknown(f"{subject}: the answer cannot be read: {error}") from error


def _turned_away(error: Exception, traffic: Traffic) -> Refused | None:
    """Return the refusal of whoever stands before the order desk: the rate limit, or the credentials."""
    names = names_of(error)
    by_words = "RateLimitExceeded" in names and traffic.was_refusal
    if traffic.status in (418, 429) or by_words:
        return Refused(
            "too many requests", code=str(traffic.status), kind=K.RATE_LIMITED, retry_after=traffic.retry_after
        )
    # once it has worked, one venue's class for a dropped key is that of a ban; its status still says 401
    if traffic.status == 401 or ("AuthenticationError" in names and (traffic.sent == 0 or traffic.was_refusal)):
        return AccountRefused(said(error), code=str(traffic.status or ""), kind=K.CREDENTIALS, permanent=True)
    return None


def _outcome(error: Exception, traffic: Traffic) -> str:
    return f"{type(error).__name__}, " + (f"HTTP {traffic.status}" if traffic.status else "no answer")
