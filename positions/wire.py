"""How the API spells things: exact numbers, moments with an offset, words out of a list, and nothing unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any, Final

from django.db import models
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from positions.fields import NumberField, plain

#: What a column holds: 20 digits before the point, 18 after it.
TOO_LARGE: Final = Decimal("1e20")
DECIMALS: Final = 18
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST: Final = 64
_SHOWN: Final = 40


def exact_number(given: object) -> Decimal | None:
    """Return the number in a JSON value (number or string), or None where there is none or a column cannot hold it."""
    if isinstance(given, bool):
        return None
    if isinstance(given, str):
        text = given.strip()
        number = Decimal(text) if len(text) <= _LONGEST and _NUMBER.fullmatch(text) else None
    else:
        number = Decimal(given) if isinstance(given, int | Decimal) else None
    if number is None or not number.is_finite() or abs(number) >= TOO_LARGE:
        return None
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and exponent >= -DECIMALS else None


def spell(number: Decimal, *, places: int | None = None) -> str:
    """Return a number as a plain string, without exponent and without trailing zeros, rounded to `places` if given."""
    with localcontext(prec=80):
        if places is not None:
            number = number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
        return f"{plain(number):f}" if number else "0"


def shown(given: object) -> str:
    """Return a JSON value as a refusal quotes it, shortened."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, Mapping):
        return "an object"
    if isinstance(given, list | tuple):
        return "a list"
    text = str(given)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return repr(text) if isinstance(given, str) else text


@extend_schema_field({"type": "string", "format": "decimal", "example": "12.5"})
class Number(serializers.Field[Decimal, Any, str, Any]):
    """An exact number: read from a string or a JSON number, written as a plain string."""

    def __init__(
        self,
        *,
        above: Decimal | int | None = None,
        at_least: Decimal | int | None = None,
        at_most: Decimal | int | None = None,
        places: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.above, self.at_least, self.at_most, self.places = above, at_least, at_most, places

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the number.

        :raises ValidationError: it is none, or outside its bounds.
        """
        number = exact_number(data)
        if (
            number is None
            or (self.above is not None and number <= self.above)
            or (self.at_least is not None and number < self.at_least)
            or (self.at_most is not None and number > self.at_most)
        ):
            raise serializers.ValidationError(f"{self._wanted()}; got {shown(data)}")
        return number

    def to_representation(self, value: Decimal | str) -> str:
        """Return the number as a plain string; JSON columns hold it as one already."""
        return spell(Decimal(value), places=self.places)

    def _wanted(self) -> str:
        bounds = [
            f"{word} {bound}"
            for word, bound in (("above", self.above), ("at least", self.at_least), ("at most", self.at_most))
            if bound is not None
        ]
        return f"must be a number {' and '.join(bounds)}".rstrip() + f", with at most {DECIMALS} decimals"


class Word(serializers.ChoiceField):
    """One of a few words; the refusal lists them."""

    def __init__(self, choices: Iterable[str], **kwargs: Any) -> None:
        words = [str(choice) for choice in choices]
        message = f"must be one of {', '.join(words)}; got {{input}}"
        super().__init__(words, error_messages={"invalid_choice": message}, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        """Return the word.

        :raises ValidationError: it is none of the known ones.
        """
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", input=shown(data))
        return data


class Moment(serializers.DateTimeField):
    """A time with its offset; one without is refused, because nobody knows what it means."""

    def enforce_timezone(self, value: datetime) -> datetime:
        """Return the time in UTC.

        :raises ValidationError: it has no offset, or lies outside the calendar.
        """
        if value.tzinfo is None:
            raise serializers.ValidationError(
                f"must have an offset, as in {value.isoformat()}Z; got {value.isoformat()!r}"
            )
        return super().enforce_timezone(value)


class Strict(serializers.Serializer[Any]):
    """Input in which a field that is not known is refused: it is a spelling mistake, and ignoring it would hide it."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values.

        :raises ValidationError: with every mistake at once.
        """
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        known = [name for name, one in self.fields.items() if not one.read_only]
        unknown = {str(name): [f"is unknown; known here: {', '.join(known)}"] for name in data if name not in known}
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            detail = error.detail if isinstance(error.detail, dict) else {"non_field_errors": error.detail}
            raise serializers.ValidationError({**detail, **unknown}) from None
        if unknown:
            raise serializers.ValidationError(unknown)
        return values


class Row(serializers.ModelSerializer[Any]):
    """A database row as the API writes it, its numbers exact."""

    def build_standard_field(self, field_name: str, model_field: models.Field[Any, Any]) -> Any:
        """Return the class and arguments of a field; ours for numbers."""
        field_class, kwargs = super().build_standard_field(field_name, model_field)
        if isinstance(model_field, NumberField):
            kept = ("required", "allow_null", "help_text", "read_only")
            return Number, {name: value for name, value in kwargs.items() if name in kept}
        return field_class, kwargs
