"""What each of Robinhood's answers proves: one row for each refusal that was seen."""

from __future__ import annotations

from typing import Any

import pytest

from orders.brokers.robinhood_refusals import Answer, cancel_error, is_duplicate, is_not_found, read_error, write_error
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused

K = RefusalKind


@pytest.mark.parametrize(
    ("body", "kind", "permanent"),
    [
        ({"detail": "Not enough shares to sell."}, K.HELD_QUANTITY, False),
        ({"detail": "You can only purchase 0 shares of AAPL."}, K.BUYING_POWER, False),
        ({"detail": "Sell may cause PDT designation."}, K.DAY_TRADING, False),
        ({"non_field_errors": ["Invalid Good Til Canceled order."]}, K.INVALID, True),
        ({"non_field_errors": ["Limit order quantity cannot include fractional shares"]}, K.INVALID, True),
        ({"non_field_errors": ["Your app version is missing important stock trading updates."]}, K.NOT_ALLOWED, True),
        ({"side": ["This field is required."]}, K.INVALID, True),
    ],
)
def test_a_refusal_that_was_seen_is_a_refusal(body: dict[str, Any], kind: RefusalKind, permanent: bool) -> None:
    error = write_error(Answer(status=400, body=body), subject="submit")
    assert isinstance(error, Refused)
    assert (error.kind, error.permanent) == (kind, permanent)


@pytest.mark.parametrize(
    ("_case", "status", "body"),
    [
        ("words never seen", 400, {"detail": "Computer says no."}),
        ("no JSON", 400, None),
        ("a page", 502, None),
        ("nothing", 500, {}),
        ("an error after all", 503, {"detail": "Not enough shares to sell."}),
        ("a gateway's 401", 401, None),
        ("a gateway's 403", 403, None),
    ],
)
def test_anything_else_is_unknown(_case: str, status: int, body: Any) -> None:
    answer = Answer(status=status, body=body)
    assert type(write_error(answer, subject="submit")) is OutcomeUnknown
    assert type(read_error(answer, subject="find")) is OutcomeUnknown


def test_a_taken_ref_id_proves_an_order() -> None:
    assert is_duplicate(Answer(status=400, body={"ref_id": ["Order with this ref_id already exists."]}))
    assert not is_duplicate(Answer(status=400, body={"detail": "Watchlist already exists."}))


def test_only_robinhoods_own_words_say_that_there_is_none() -> None:
    assert is_not_found(Answer(status=404, body={"detail": "Not found."}))
    assert not is_not_found(Answer(status=404, body=None))


@pytest.mark.parametrize(
    ("_case", "answer", "wait"),
    [
        ("in words", Answer(status=429, body={"detail": "Request was throttled. Expected available in 14 seconds."}), 14.0),
        ("by header", Answer(status=429, body=None, retry_after=3.0), 3.0),
        ("not at all", Answer(status=429, body={}), None),
    ],
)  # fmt: skip
def test_turned_away(_case: str, answer: Answer, wait: float | None) -> None:
    asked, sent = read_error(answer, subject="find"), write_error(answer, subject="submit")
    assert isinstance(asked, NotSent)
    assert isinstance(sent, Refused)
    assert (asked.retry_after, sent.retry_after, sent.kind) == (wait, wait, K.RATE_LIMITED)


def test_a_token_that_is_over_is_the_accounts_trouble() -> None:
    answer = Answer(status=401, body={"detail": "Incorrect authentication credentials."})
    for error in (read_error(answer, subject="find"), write_error(answer, subject="submit")):
        assert isinstance(error, AccountRefused)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"detail": "Not found."}, K.NOT_FOUND),
        (400, {"detail": "Order cannot be cancelled at this time."}, K.NOT_CANCELABLE),
    ],
)
def test_a_refused_cancel(status: int, body: dict[str, Any], kind: RefusalKind) -> None:
    error = cancel_error(Answer(status=status, body=body), subject="cancel")
    assert isinstance(error, Refused)
    assert error.kind is kind


def test_a_cancel_without_an_answer_is_unknown() -> None:
    assert type(cancel_error(Answer(status=404, body=None), subject="cancel")) is OutcomeUnknown
