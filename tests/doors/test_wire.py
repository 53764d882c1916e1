"""Numbers, words and JSON bodies at the edge: read exactly or refused."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.exceptions import ParseError
from rest_framework.serializers import ValidationError

from config.parsing import BodyTooLarge, ExactJSONParser
from positions.wire import Moment, Number, Word, exact_number, spell


@pytest.mark.parametrize(
    ("_case", "given", "number"),
    [
        ("a string", "12.50", "12.50"),
        ("spaces around", " 7 ", "7"),
        ("an exponent", "1e-8", "1E-8"),
        ("an integer", 3, "3"),
        ("a decimal from JSON", Decimal("0.1"), "0.1"),
        ("the smallest a column holds", "0.000000000000000001", "1E-18"),
        ("the largest a column holds", "99999999999999999999", "99999999999999999999"),
        ("one decimal too many", "0.0000000000000000001", None),
        ("one digit too many", "100000000000000000000", None),
        ("not a number", "NaN", None),
        ("not a number, as a decimal", Decimal("NaN"), None),
        ("infinite", "Infinity", None),
        ("a word", "ten", None),
        ("hexadecimal", "0x10", None),
        ("digits of another script", "١٢", None),
        ("grouped", "1,000", None),
        ("with underscores", "1_000", None),
        ("an endless string", "1" * 10_000, None),
        ("a huge exponent", "1e999", None),
        ("true", True, None),
        ("null", None, None),
        ("a list", ["1"], None),
        ("a float", 0.1, None),
    ],
)
def test_a_number_is_read_exactly_or_not_at_all(_case: str, given: Any, number: str | None) -> None:
    assert exact_number(given) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("_case", "number", "places", "text"),
    [
        ("trailing zeros go", "12.500", None, "12.5"),
        ("no exponent for large ones", "1E+3", None, "1000"),
        ("no exponent for small ones", "1E-8", None, "0.00000001"),
        ("38 digits stay", "99999999999999999999.999999999999999999", None, "99999999999999999999.999999999999999999"),
        ("no negative zero", "-0.0", None, "0"),
        ("rounded half to even", "0.125", 2, "0.12"),
        ("rounded and trimmed", "33.30000001", 4, "33.3"),
    ],
)
def test_a_number_is_written_plainly(_case: str, number: str, places: int | None, text: str) -> None:
    assert spell(Decimal(number), places=places) == text


@pytest.mark.parametrize(
    ("_case", "field", "given", "message"),
    [
        ("zero is not above zero", Number(above=0), "0", "must be a number above 0, with at most 18 decimals; got '0'"),
        (
            "more than everything",
            Number(above=0, at_most=100),
            101,
            "must be a number above 0 and at most 100, with at most 18 decimals; got 101",
        ),
        (
            "below the least",
            Number(at_least=0),
            "-1",
            "must be a number at least 0, with at most 18 decimals; got '-1'",
        ),
        ("another word", Word(["long", "short"]), "LONG", "must be one of long, short; got 'LONG'"),
        ("a number for a word", Word(["long", "short"]), 1, "must be one of long, short; got 1"),
        (
            "a time without an offset",
            Moment(),
            "2026-03-02T15:30:00",
            "must have an offset, as in 2026-03-02T15:30:00Z; got '2026-03-02T15:30:00'",
        ),
    ],
)
def test_a_refusal_says_what_would_be_right(_case: str, field: Any, given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        field.run_validation(given)
    assert [str(one) for one in caught.value.detail] == [message]


def read(text: str | bytes) -> Any:
    return ExactJSONParser().parse(io.BytesIO(text.encode() if isinstance(text, str) else text))


def test_json_numbers_are_not_rounded() -> None:
    assert read('{"a": 0.1, "b": 12345678901234567890.123456789, "c": 5}') == {
        "a": Decimal("0.1"),
        "b": Decimal("12345678901234567890.123456789"),
        "c": 5,
    }


def test_a_character_in_two_halves_is_one_character() -> None:
    assert read('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("_case", "text"),
    [
        ("cut short", '{"a": 1'),
        ("not a number", '{"a": NaN}'),
        ("infinite", '{"a": -Infinity}'),
        ("the same key twice", '{"quantity": "1", "quantity": "100"}'),
        ("the same key twice, deep down", '[{"x": {"a": 1, "a": 1}}]'),
        ("half a character", '{"a": ["\\ud800"]}'),
        ("half a character in a key", '{"\\udfff": 1}'),
        ("an exponent beyond reason", '{"a": 1e99999999999999999999}'),
        ("an integer beyond reason", "1" * 5_000),
        ("nested beyond reason", "[" * 200_000),
        ("not UTF-8", b'{"a": "\xff"}'),
        ("a byte order mark", b"\xef\xbb\xbf{}"),
    ],
)
def test_json_that_could_be_misread_is_refused(_case: str, text: str | bytes) -> None:
    with pytest.raises(ParseError):
        read(text)


def test_a_body_too_large_is_not_read_to_its_end(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    stream = io.BytesIO(b" " * 1_000)
    with pytest.raises(BodyTooLarge):
        ExactJSONParser().parse(stream)
    assert stream.tell() == 101
