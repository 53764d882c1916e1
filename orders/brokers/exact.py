"""Numbers and times as they travel to brokers and back: exact, or unreadable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal


class Unreadable(ValueError):
    """The broker's message does not have the shape we know."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what fails while a message is read into `Unreadable`."""
    try:
        yield
    except Unreadable:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Unreadable(f"{what} cannot be read: {type(error).__name__} {error}") from error


def plain(number: Decimal) -> str:
    """Return all digits of a number without exponent or trailing zeros."""
    digits = format(number, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def to_decimal(value: object) -> Decimal:
    """Return a finite number given as text, integer or Decimal.

    :raises Unreadable: anything else, floats too, as they have lost their digits already.
    """
    with reading("number"):
        if isinstance(value, bool | float) or not isinstance(value, str | int | Decimal):
            raise Unreadable(f"{value!r} is not a number")
        number = Decimal(value)
        if not number.is_finite():
            raise Unreadable(f"{value!r} is not a finite number")
        return number


def to_time(value: str) -> datetime:
    """Return an RFC 3339 time as aware UTC; nanoseconds are cut to microseconds."""
    with reading("time"):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise Unreadable(f"time {value!r} has no zone")
        return moment.astimezone(UTC)
