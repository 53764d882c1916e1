"""Column types that money, quantities and secrets share."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models

from positions.credentials import decrypt, encrypt

_Set = TypeVar("_Set")
_Get = TypeVar("_Get")

if TYPE_CHECKING:  # only the stubs know that fields are generic
    _DecimalField = models.DecimalField
    _BinaryField = models.BinaryField[Any, Any]
else:
    _BinaryField = models.BinaryField

    class _DecimalField(models.DecimalField):
        def __class_getitem__(cls, _types: object) -> type:
            return cls


_EXACT = Context(prec=38)


class NumberField(_DecimalField[_Set, _Get]):
    """An exact number wide enough for a satoshi and for one BRK.A share: 20 digits before the point, 18 after."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_digits"] = 38
        kwargs["decimal_places"] = 18
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        """Leave the fixed width out of migrations."""
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_digits"]
        del kwargs["decimal_places"]
        return name, path, args, kwargs

    def from_db_value(self, value: Any, *_: Any) -> Any:
        """Return the number without the padding zeros of the column's scale."""
        return plain(value) if isinstance(value, Decimal) else value


class EncryptedField(_BinaryField):
    """A JSON object kept encrypted (AES-256-GCM); it is bound to its table and column, and never printed."""

    def get_prep_value(self, value: Any) -> Any:
        """Encrypt on the way in."""
        return None if value is None else super().get_prep_value(encrypt(value, bound_to=self._place()))

    def from_db_value(self, value: Any, *_: Any) -> Any:
        """Decrypt on the way out."""
        return None if value is None else decrypt(bytes(value), bound_to=self._place())

    def _place(self) -> str:
        return f"{self.model._meta.db_table}:{self.column}"

    def value_to_string(self, obj: models.Model) -> str:
        """Refuse to appear in a dump."""
        raise TypeError("encrypted columns are not serialised")


def plain(number: Decimal) -> Decimal:
    """Return the same number without trailing zeros and without an exponent, to the last of a column's 38 digits."""
    trimmed = number.normalize(_EXACT)
    return trimmed.quantize(Decimal(1), context=_EXACT) if trimmed.as_tuple().exponent > 0 else trimmed  # type: ignore[operator]
