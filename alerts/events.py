"""The journal: the only writer of events. Call it inside the transaction that makes the change it tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One event to be written; the references are primary keys, `data` holds before, after and reason."""

    kind: str
    actor: str = SYSTEM
    account_ref: int | None = None
    position_ref: int | None = None
    order_ref: int | None = None
    bracket_ref: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def write_events(happenings: Iterable[Happening], *, now: datetime) -> None:
    """Append events in one statement, in the given order."""
    rows = list(happenings)
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO alerts_event (at, kind, actor, account_ref, position_ref, order_ref, bracket_ref, data)
            SELECT %s, kind, actor, account_ref, position_ref, order_ref, bracket_ref, data::jsonb
              FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
                   WITH ORDINALITY
                   AS new (kind, actor, account_ref, position_ref, order_ref, bracket_ref, data, place)
             ORDER BY place
            """,
            [
                now,
                [row.kind for row in rows],
                [row.actor for row in rows],
                [row.account_ref for row in rows],
                [row.position_ref for row in rows],
                [row.order_ref for row in rows],
                [row.bracket_ref for row in rows],
                [json.dumps(dict(row.data), cls=DjangoJSONEncoder) for row in rows],
            ],
        )
