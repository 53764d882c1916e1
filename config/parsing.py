"""Reads JSON bodies exactly: numbers become Decimals, and what two readers could understand differently is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any, Final

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class BodyTooLarge(APIException):
    """The body is longer than this installation reads."""

    status_code = 413
    default_code = "too_large"


class ExactJSONParser(JSONParser):
    """JSON without NaN, without a key given twice, without half a character, without rounding."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the body's value.

        :raises ParseError: it is not the JSON we accept; the message says where.
        :raises BodyTooLarge: it is longer than DATA_UPLOAD_MAX_MEMORY_SIZE.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise BodyTooLarge(f"the body may have at most {limit} bytes")
        try:
            text = raw.decode()  # JSON is UTF-8, whatever the header says
            value = json.loads(text, parse_float=_decimal, parse_constant=_refuse_constant, object_pairs_hook=_object)
            if _SURROGATE.search(text):
                _require_whole_characters(value)
        except RecursionError:
            raise ParseError("the body is nested too deeply") from None
        except ValueError as error:
            raise ParseError(f"the body is not valid JSON: {error}") from None
        return value


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the number {text[:40]} is out of range") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(map(repr, twice))} is given twice in one object")
    return found


def _require_whole_characters(value: Any) -> None:
    """Refuse text that no encoding can write, such as one half of a surrogate pair.

    :raises ValueError: there is some.
    """
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _require_whole_characters(name)
            _require_whole_characters(inner)
    elif isinstance(value, list):
        for inner in value:
            _require_whole_characters(inner)
