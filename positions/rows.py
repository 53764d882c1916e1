"""Writing many rows back in one statement; Django's bulk_update builds a CASE per column, too slow for a burst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection, models


def write_back(rows: Sequence[models.Model], *, fields: Sequence[str]) -> int:
    """Update the named fields of saved rows from their instances and return how many rows changed.

    One `UPDATE ... FROM unnest(...)`; the caller holds the locks.
    """
    if not rows:
        return 0
    meta = rows[0]._meta
    columns = [_column(meta.get_field(name)) for name in fields]
    key = _column(meta.pk)
    arrays: list[list[Any]] = [[row.pk for row in rows]]
    arrays += [
        [column.get_db_prep_save(getattr(row, column.attname), connection) for row in rows] for column in columns
    ]
    types = [key.rel_db_type(connection), *(column.cast_db_type(connection) for column in columns)]
    quote = connection.ops.quote_name
    table = quote(meta.db_table)
    names = [quote(column.column) for column in columns]
    sql = (
        f"UPDATE {table} SET {', '.join(f'{name} = new.{name}' for name in names)} "  # noqa: S608 - names from models
        f"FROM unnest({', '.join(f'%s::{kind}[]' for kind in types)}) AS new (pk, {', '.join(names)}) "
        f"WHERE {table}.{quote(key.column)} = new.pk"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, arrays)
        return int(cursor.rowcount)


def _column(field: Any) -> Any:
    """Return a field that has a column of its own.

    :raises TypeError: it is a relation kept in another table, or none at all.
    """
    if not isinstance(field, models.Field):
        raise TypeError(f"{field!r} has no column to write to")
    return field
