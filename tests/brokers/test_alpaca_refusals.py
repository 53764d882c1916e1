"""What each answer of Alpaca proves: the allow-list of refusals, and that everything else leaves the outcome unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import urllib3

from orders.brokers.alpaca_refusals import (
    Answer,
    cancel_error,
    is_duplicate,
    is_not_found,
    read_error,
    write_error,
)
from orders.brokers.alpaca_transport import _retry_after
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused

D = Decimal
K = RefusalKind


HELD = {
    "available": "0",
    "code": 40310000,
    "existing_qty": "106",
    "held_for_orders": "106",
    "message": "insufficient qty available for order (requested: 106, available: 0)",
    "related_orders": ["o-1", "o-2"],
    "symbol": "EWY",
}
WASH = {
    "code": 40310000,
    "existing_order_id": "o-9",
    "message": "potential wash trade detected. use complex orders",
    "reject_reason": "opposite side market/stop order exists",
}


def said(code: int, message: str, **more: str) -> dict[str, Any]:
    return {"code": code, "message": message} | more


@pytest.mark.parametrize(
    ("_case", "status", "body", "kind", "permanent"),
    [
        ("held quantity", 403, HELD, K.HELD_QUANTITY, False),
        ("held quantity in words", 403, said(40310000, "insufficient qty available for order"), K.HELD_QUANTITY, False),
        (
            "crypto balance",
            403,
            said(40310000, "insufficient balance for BTC (requested: 1, available: 0)"),
            K.HELD_QUANTITY,
            False,
        ),
        ("wash trade", 403, WASH, K.WASH_TRADE, False),
        ("buying power", 403, said(40310000, "insufficient buying power", buying_power="0"), K.BUYING_POWER, False),
        (
            "minimal order",
            403,
            said(40310000, "cost basis must be >= minimal amount of order 1"),
            K.BUYING_POWER,
            False,
        ),
        (
            "day trading, old code",
            403,
            said(40310000, "no day trades permitted based on your equity"),
            K.DAY_TRADING,
            False,
        ),
        (
            "day trading",
            403,
            said(40310100, "trade denied due to pattern day trading protection"),
            K.DAY_TRADING,
            False,
        ),
        ("no shorts for this account", 403, said(40310000, "account is not allowed to short"), K.NOT_ALLOWED, True),
        ("a new 40310000", 403, said(40310000, "the moon is full"), K.OTHER, False),
        (
            "stop beyond the market",
            422,
            said(42210000, "stop price must be less than current price", market_price="162.6"),
            K.PRICE,
            False,
        ),
        (
            "stop beyond its base",
            422,
            said(42210000, "stop_loss.stop_price must be <= base_price - 0.01", base_price="1"),
            K.PRICE,
            False,
        ),
        (
            "sub-penny",
            422,
            said(42210000, "invalid limit_price 10.123. sub-penny increment does not fulfill minimum pricing criteria"),
            K.INVALID,
            True,
        ),
        ("not shortable", 422, said(42210000, 'asset "SOXL" cannot be sold short'), K.NOT_ALLOWED, True),
        ("unknown symbol", 422, said(42210000, 'asset "ZZZZ" not found'), K.UNKNOWN_SYMBOL, True),
        ("inactive symbol", 422, said(40010001, "asset MKR/USD is not active"), K.UNKNOWN_SYMBOL, True),
        ("unknown symbol, old words", 422, said(40010001, 'could not find asset "ZZZZ"'), K.UNKNOWN_SYMBOL, True),
        (
            "after hours",
            422,
            said(42210000, "options market orders are only allowed during market hours"),
            K.MARKET_CLOSED,
            False,
        ),
        ("bracket on a position", 422, said(42210000, "bracket orders must be entry orders"), K.INVALID, True),
        ("a new 42210000", 422, said(42210000, "the moon is full"), K.OTHER, False),
        ("a wrong field", 422, said(40010001, "qty is required"), K.INVALID, True),
        ("no JSON understood", 400, said(40010000, "request body format is invalid"), K.INVALID, True),
        ("unknown symbol", 404, said(40410000, "symbol not found: ZZZZ"), K.UNKNOWN_SYMBOL, True),
        ("too many requests", 429, said(42910000, "rate limit exceeded"), K.RATE_LIMITED, False),
        ("too many requests, no JSON", 429, None, K.RATE_LIMITED, False),
    ],
)
def test_a_listed_answer_is_a_refusal(_case: str, status: int, body: Any, kind: RefusalKind, permanent: bool) -> None:
    error = write_error(Answer(status=status, body=body), subject="submit xm-1")
    assert type(error) is Refused
    assert (error.kind, error.permanent) == (kind, permanent)


def test_held_quantity_names_what_is_free_and_who_holds_the_rest() -> None:
    error = write_error(Answer(status=403, body=HELD), subject="submit xm-1")
    assert isinstance(error, Refused)
    assert (error.available, error.related_orders, error.code) == (D(0), ("o-1", "o-2"), "40310000")


def test_a_wash_trade_names_the_order_in_the_way() -> None:
    error = write_error(Answer(status=403, body=WASH), subject="submit xm-1")
    assert isinstance(error, Refused)
    assert (error.related_orders, error.available) == (("o-9",), None)


@pytest.mark.parametrize(
    ("_case", "status", "body"),
    [
        ("server error with a code", 500, said(50010000, "internal server error occurred")),
        ("bad gateway", 502, None),
        ("maintenance", 503, said(50310000, "service unavailable")),
        ("gateway timeout", 504, None),
        ("a refusal we never saw", 403, said(40399999, "something new")),
        ("a gateway's own 403", 403, None),
        ("a gateway's own 404", 404, None),
        ("a gateway's own 401", 401, None),
        ("a status that matches no code", 422, said(40310000, "insufficient qty available")),
        ("a redirect", 307, None),
        ("a list", 422, [1]),
        ("a conflict", 409, said(40910000, "conflict")),
    ],
)
def test_every_other_answer_leaves_the_outcome_unknown(_case: str, status: int, body: Any) -> None:
    assert type(write_error(Answer(status=status, body=body), subject="submit xm-1")) is OutcomeUnknown
    assert type(read_error(Answer(status=status, body=body), subject="find xm-1")) is OutcomeUnknown


@pytest.mark.parametrize(
    ("_case", "status", "body"),
    [
        ("key unknown", 403, {"message": "forbidden."}),
        ("key revoked", 401, {"message": "unauthorized."}),
        ("no key", 401, said(40110000, "request is not authorized")),
    ],
)
def test_refused_credentials_are_the_accounts_matter(_case: str, status: int, body: Any) -> None:
    for error in (
        write_error(Answer(status=status, body=body), subject="submit xm-1"),
        read_error(Answer(status=status, body=body), subject="find xm-1"),
        cancel_error(Answer(status=status, body=body), subject="cancel xm-1"),
    ):
        assert type(error) is AccountRefused
        assert (error.kind, error.permanent) == (K.CREDENTIALS, True)


@pytest.mark.parametrize(
    ("_case", "status", "message", "expected"),
    [
        ("today's words", 422, "client_order_id must be unique", True),
        ("other words", 422, "client order id must be unique", True),
        ("other words", 422, "client_order_id already exists", True),
        ("other words", 422, "duplicate client ID", True),
        ("another status", 409, "client_order_id already exists", True),
        ("too long is not taken", 422, "client_order_id must be no more than 128 characters", False),
        ("another matter", 422, "qty is required", False),
        ("not a refusal", 500, "client_order_id must be unique", False),
    ],
)
def test_a_taken_client_id_is_proof_of_an_order(_case: str, status: int, message: str, expected: bool) -> None:
    assert is_duplicate(Answer(status=status, body=said(40010001, message))) is expected


@pytest.mark.parametrize(
    ("_case", "status", "body", "expected"),
    [
        ("Alpaca says so", 404, said(40410000, "order not found for xm-1"), True),
        ("a gateway's page", 404, None, False),
        ("another program", 404, {"detail": "Not Found"}, False),
        ("another status", 422, said(40410000, "order not found"), False),
    ],
)
def test_only_alpacas_own_word_means_that_there_is_no_order(_case: str, status: int, body: Any, expected: bool) -> None:
    assert is_not_found(Answer(status=status, body=body)) is expected


@pytest.mark.parametrize(
    ("_case", "status", "body", "kind"),
    [
        ("ended already", 422, said(42210000, 'order is already in "filled" state'), K.NOT_CANCELABLE),
        ("ended already, no words", 422, None, K.NOT_CANCELABLE),
        ("no such order", 404, said(40410000, "order not found for x"), K.NOT_FOUND),
        ("too many requests", 429, None, K.RATE_LIMITED),
    ],
)
def test_a_refused_cancel(_case: str, status: int, body: Any, kind: RefusalKind) -> None:
    error = cancel_error(Answer(status=status, body=body), subject="cancel xm-1")
    assert type(error) is Refused
    assert error.kind is kind


def test_a_question_beyond_the_limit_may_be_asked_again_later() -> None:
    error = read_error(Answer(status=429, retry_after=7.5), subject="find xm-1")
    assert type(error) is NotSent
    assert error.retry_after == 7.5


@pytest.mark.parametrize(
    ("_case", "headers", "low", "high"),
    [
        ("seconds", {"Retry-After": "3"}, 3.0, 3.0),
        ("a date is left to the caller", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None, None),
        ("nothing said", {}, None, None),
        ("limit not used up", {"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1"}, None, None),
        ("reset in the past", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, 0.0, 0.0),
        ("absurdly far", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, 120.0, 120.0),
    ],
)
def test_the_wait_that_a_server_names(
    _case: str, headers: dict[str, str], low: float | None, high: float | None
) -> None:
    wait = _retry_after(urllib3.HTTPHeaderDict(headers))
    assert wait is None if low is None or high is None else low <= (wait or 0.0) <= high
