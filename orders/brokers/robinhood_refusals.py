"""Which of Robinhood's answers prove what: an allow-list of words seen, read from the top; unknown is the default.

Its interface is not documented. To add a refusal that was seen, add one row and one line to its test table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from orders.brokers.exact import Unreadable
from orders.errors import AccountRefused, BrokerError, NotSent, OutcomeUnknown, RefusalKind, Refused

K = RefusalKind
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer: status, JSON body (None where it was no JSON) and the wait its headers name, in seconds."""

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
    def message(self) -> str:
        """Return Robinhood's own words, or the bare status."""
        said = [_words(words) if name in _BARE else f"{name}: {_words(words)}" for name, words in self.fields.items()]
        return "; ".join(said)[:300] or f"HTTP {self.status}"


_BARE: Final = ("detail", "non_field_errors")


def _words(told: object) -> str:
    return " ".join(str(word) for word in told) if isinstance(told, list) else str(told)


@dataclass(frozen=True, slots=True)
class Row:
    """One proven refusal, known by its words."""

    pattern: re.Pattern[str]
    kind: RefusalKind
    permanent: bool = False


def _row(words: str, kind: RefusalKind, *, permanent: bool = False) -> Row:
    return Row(re.compile(words, re.IGNORECASE), kind, permanent)


REFUSALS: Final = (
    _row(r"not enough shares|can only sell", K.HELD_QUANTITY),
    _row(r"not enough buying power|can only purchase|insufficient (funds|buying power)", K.BUYING_POWER),
    _row(r"pdt|pattern day|day trad", K.DAY_TRADING),
    _row(r"app version|important .* updates", K.NOT_ALLOWED, permanent=True),
    _row(r"not tradable|untradable|restricted|position.closing", K.NOT_ALLOWED, permanent=True),
    _row(r"market (is )?closed|market hours", K.MARKET_CLOSED),
    _row(r"good til|fractional|increment|decimal places|sub-penny", K.INVALID, permanent=True),
)
_THROTTLED: Final = re.compile(r"available in (\d+(?:\.\d+)?) second", re.IGNORECASE)
_TAKEN: Final = re.compile(r"already exists", re.IGNORECASE)
_NOT_FOUND: Final = re.compile(r"not found", re.IGNORECASE)


def is_duplicate(answer: Answer) -> bool:
    """Return whether the answer says that this ref_id is taken: proof that an order exists."""
    return answer.status in (400, 409) and _TAKEN.search(_words(answer.fields.get("ref_id") or "")) is not None


def is_not_found(answer: Answer) -> bool:
    """Return whether Robinhood itself says that it has no such thing; a gateway's 404 page does not count."""
    return answer.status == 404 and _NOT_FOUND.search(_words(answer.fields.get("detail") or "")) is not None


def write_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed request that would change something means: refused where proven, unknown else."""
    if (refusal := _account_refusal(answer)) is not None:
        return refusal
    if answer.status == 429:  # turned away before anybody looked at it
        return Refused(answer.message, code="429", kind=K.RATE_LIMITED, retry_after=_wait(answer))
    if answer.status in (400, 403, 422) and answer.fields:
        for row in REFUSALS:
            if row.pattern.search(answer.message):
                return Refused(answer.message, code=str(answer.status), kind=row.kind, permanent=row.permanent)
        # a list of words under the name of a field is what a form says that was not accepted
        if answer.status == 400 and any(isinstance(words, list) for words in answer.fields.values()):
            return Refused(answer.message, code="400", kind=K.INVALID, permanent=True)
    return OutcomeUnknown(f"{subject}: {answer.status} {answer.message}")


def cancel_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed cancel means; a refused one says that there is nothing to cancel any more."""
    if is_not_found(answer):
        return Refused(answer.message, code="404", kind=K.NOT_FOUND, permanent=True)
    if answer.status in (400, 422) and answer.fields:
        return Refused(answer.message, code=str(answer.status), kind=K.NOT_CANCELABLE)
    return write_error(answer, subject=subject)


def read_error(answer: Answer, *, subject: str) -> BrokerError:
    """Return what a failed question means. A question is never `Refused` as if it had been an order."""
    if (refusal := _account_refusal(answer)) is not None:
        return refusal
    if answer.status == 429:
        return NotSent(f"{subject}: {answer.message}", retry_after=_wait(answer))
    return OutcomeUnknown(f"{subject}: {answer.status} {answer.message}")


def body_of(answer: Answer, *, subject: str) -> dict[str, Any]:
    """Return the JSON object of a successful answer to a question.

    :raises BrokerError: as `read_error`, and OutcomeUnknown for JSON of another kind.
    """
    if not answer.is_success:
        raise read_error(answer, subject=subject)
    if not isinstance(answer.body, dict):
        raise OutcomeUnknown(f"{subject}: the answer is not what it should be")
    return answer.body


@contextmanager
def translating(subject: str) -> Iterator[None]:
    """Turn what fails while an answer is read into OutcomeUnknown: it says nothing about what happened."""
    try:
        yield
    except (Unreadable, LookupError, TypeError, ValueError, AttributeError) as error:
        raise OutcomeUnknown(f"{subject}: the answer cannot be read: {error}") from error


def _account_refusal(answer: Answer) -> AccountRefused | None:
    """Return the refusal of the credentials themselves: 401 in Robinhood's own words."""
    if answer.status != 401 or not answer.fields:
        return None
    return AccountRefused(answer.message, code="401", kind=K.CREDENTIALS, permanent=True)


def _wait(answer: Answer) -> float | None:
    if answer.retry_after is not None:
        return answer.retry_after
    named = _THROTTLED.search(answer.message)
    return float(named[1]) if named else None
