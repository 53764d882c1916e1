"""Which of Alpaca's answers prove what: an allow-list of (status, code, mark in the body), read from the top.

To add a refusal that was seen in the wild, add one row and one line to its test table. An answer that no row
knows leaves the outcome of a write unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeVar

from orders.brokers.exact import Unreadable, to_decimal
from orders.errors import AccountRefused, BrokerError, NotSent, OutcomeUnknown, RefusalKind, Refused

K = RefusalKind
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer: status, JSON body (None where it was no JSON) and the wait it names, in seconds."""

    status: int
    body: Any = None
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Return whether the request was carried out."""
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, Any]:
        """Return the body's fields, none where it is not an object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def code(self) -> str:
        """Return Alpaca's own error code, or nothing."""
        return str(self.fields.get("code") or "")

    @property
    def message(self) -> str:
        """Return Alpaca's own words, or the bare status."""
        said = self.fields.get("message") or self.fields.get("error")
        return str(said)[:300] if said else f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Row:
    """One proven refusal. `mark` is a pattern in the message, or with a leading "." a field of the body."""

    status: int
    code: str
    mark: str
    kind: RefusalKind
    permanent: bool = False
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", re.compile(self.mark, re.IGNORECASE))

    def matches(self, answer: Answer) -> bool:
        """Return whether the answer is this refusal."""
        if answer.status != self.status or answer.code != self.code:
            return False
        if self.mark.startswith("."):
            return self.mark[1:] in answer.fields
        return self.pattern.search(answer.message) is not None


_ASSET_UNKNOWN = r"(asset|symbol).*(not found|not active|invalid)|(could not find|invalid) (asset|symbol)"
_NO_LICENCE = r"short|not (eligible|authorized|allowed|permitted)|restricted|not tradable|not active"

#: One code stands for many reasons (403 40310000 above all), so the fields decide before the words do.
REFUSALS: Final = (
    Row(403, "40310000", ".held_for_orders", K.HELD_QUANTITY),
    Row(403, "40310000", r"insufficient (qty|balance)", K.HELD_QUANTITY),
    Row(403, "40310000", ".reject_reason", K.WASH_TRADE),
    Row(403, "40310000", r"wash trade|opposite side", K.WASH_TRADE),
    Row(403, "40310000", ".buying_power", K.BUYING_POWER),
    Row(403, "40310000", r"buying power|cost basis", K.BUYING_POWER),
    Row(403, "40310000", r"day trad", K.DAY_TRADING),
    Row(403, "40310000", _NO_LICENCE, K.NOT_ALLOWED, permanent=True),
    Row(403, "40310000", "", K.OTHER),
    Row(403, "40310100", "", K.DAY_TRADING),
    Row(422, "42210000", _ASSET_UNKNOWN, K.UNKNOWN_SYMBOL, permanent=True),
    Row(422, "42210000", r"sub-penny|increment", K.INVALID, permanent=True),
    Row(422, "42210000", ".base_price", K.PRICE),
    Row(422, "42210000", ".market_price", K.PRICE),
    Row(422, "42210000", r"(stop|limit).?price must be|base.?price|current price", K.PRICE),
    Row(422, "42210000", r"market hours|market is (not open|closed)|outside.*hours", K.MARKET_CLOSED),
    Row(422, "42210000", r"cannot be sold short|not allowed to short", K.NOT_ALLOWED, permanent=True),
    Row(422, "42210000", r"require|must be|invalid|not supported", K.INVALID, permanent=True),
    Row(422, "42210000", "", K.OTHER),
    Row(422, "40010001", _ASSET_UNKNOWN, K.UNKNOWN_SYMBOL, permanent=True),
    Row(422, "40010001", "", K.INVALID, permanent=True),
    Row(400, "40010000", "", K.INVALID, permanent=True),
    Row(400, "40010001", "", K.INVALID, permanent=True),
    Row(404, "40410000", r"asset|symbol", K.UNKNOWN_SYMBOL, permanent=True),
    Row(404, "40410000", "", K.NOT_FOUND),
)
_DUPLICATE: Final = re.compile(
    r"client[\s_-]?(order[\s_-]?)?id (must be unique|already exists)|duplicate client", re.IGNORECASE
)
_NOT_REPLACEABLE: Final = re.compile(r"cannot replace|not (open|replaceable)|already in|order pending", re.IGNORECASE)
NOT_FOUND_CODE: Final = "40410000"


def is_duplicate(answer: Answer) -> bool:
    """Return whether the answer says that this client order id is taken: proof that an order exists."""
    return answer.status in (409, 422) and _DUPLICATE.search(answer.message) is not None


def is_not_found(answer: Answer) -> bool:
    """Return whether Alpaca itself says that it has no such thing; a gateway's 404 does not count."""
    return answer.status == 404 and answer.code == NOT_FOUND_CODE


def write_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed request that would change something means: refused where proven, unknown else."""
    if (refusal := _account_refusal(answer)) is not None:
        return refusal
    # a request beyond the limit is turned away before anybody looks at it
    if answer.status == 429:
        return Refused(answer.message, code="429", kind=K.RATE_LIMITED, retry_after=answer.retry_after)
    for row in REFUSALS:
        if row.matches(answer):
            return Refused(
                answer.message,
                code=answer.code,
                kind=row.kind,
                permanent=row.permanent,
                retry_after=answer.retry_after,
                available=_available(answer),
                related_orders=_related_orders(answer),
            )
    return OutcomeUnknown(f"{subject}: {answer.status} {answer.message}")


def cancel_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed cancel means; 404 and 422 say that there is nothing to cancel any more."""
    if is_not_found(answer):
        return Refused(answer.message, code=answer.code, kind=K.NOT_FOUND, permanent=True)
    if answer.status == 422:
        return Refused(answer.message, code=answer.code, kind=K.NOT_CANCELABLE)
    return write_error(answer, subject=subject)


def replace_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed replacement means; an order that is not open for it now works on, or ended."""
    if is_not_found(answer):
        return Refused(answer.message, code=answer.code, kind=K.NOT_FOUND, permanent=True)
    if answer.status == 422 and _NOT_REPLACEABLE.search(answer.message):
        return Refused(answer.message, code=answer.code, kind=K.NOT_CANCELABLE)
    return write_error(answer, subject=subject)


def read_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed question means. A question is never `Refused` as if it had been an order."""
    if (refusal := _account_refusal(answer)) is not None:
        return refusal
    if answer.status == 429:
        return NotSent(f"{subject}: {answer.message}", retry_after=answer.retry_after)
    return OutcomeUnknown(f"{subject}: {answer.status} {answer.message}")


def body_of(answer: Answer, kind: type[Body], *, subject: str) -> Body:
    """Return the JSON of a successful answer to a question.

    :raises BrokerError: as `read_error`, and OutcomeUnknown for JSON of another kind.
    """
    if not answer.is_success:
        raise read_error(answer, subject=subject)
    if not isinstance(answer.body, kind):
        raise OutcomeUnknown(f"{subject}: the answer is not what it should be")
    return answer.body


@contextmanager
def translating(subject: str) -> Iterator[None]:
    """Turn what fails while an answer is read into OutcomeUnknown: it says nothing about what happened."""
    try:
        yield
    except (Unreadable, LookupError, TypeError, AttributeError) as error:
        raise OutcomeUnknown(f"{subject}: the answer cannot be read: {error}") from error


def _account_refusal(answer: Answer) -> AccountRefused | None:
    """Return the refusal of the credentials themselves: 401, or a 403 that carries no trading code."""
    if not isinstance(answer.body, dict):
        return None
    if answer.status == 401 or (answer.status == 403 and not answer.code):
        return AccountRefused(
            answer.message, code=answer.code or str(answer.status), kind=K.CREDENTIALS, permanent=True
        )
    return None


def _available(answer: Answer) -> Decimal | None:
    try:
        return to_decimal(answer.fields["available"])
    except (KeyError, Unreadable):
        return None


def _related_orders(answer: Answer) -> tuple[str, ...]:
    related = answer.fields.get("related_orders") or answer.fields.get("existing_order_id") or ()
    return (related,) if isinstance(related, str) else tuple(str(order_id) for order_id in related)
