"""What the configuration in force says about positions that are held, by account, symbol and their own settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connection

from exitmgr.policy.current import in_force
from exitmgr.policy.schema import Policy
from exitmgr.states import BracketStatus
from positions.models import Account, Position

_OPEN = (BracketStatus.PENDING, BracketStatus.ACTIVE, BracketStatus.ERROR)


def policies_of(positions: Iterable[Position], *, now: datetime) -> dict[int, Policy]:
    """Return what holds for each position, by its id; however many they are, it takes a query or two.

    Their instruments are at hand already, as with every locked position.
    """
    found = in_force(now=now)
    held = {position.pk: position for position in positions}
    names: dict[int, str] = {}
    if found.names_accounts:
        accounts = {position.account_id for position in held.values()}
        names = dict(Account.objects.filter(pk__in=accounts).values_list("pk", "name"))
    own = _own_settings(list(held))
    return {
        pk: found.policy_for(
            account=names.get(position.account_id, ""),
            symbol=position.instrument.symbol,
            overrides=own.get(pk, {}),
        )
        for pk, position in held.items()
    }


def _own_settings(position_ids: list[int]) -> dict[int, Any]:
    """Return the settings of each position that has some of its own; asked by every scan that fires anything."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT position_id, overrides::text FROM exitmgr_bracket"
            " WHERE position_id = ANY(%s::bigint[]) AND status = ANY(%s) AND overrides <> '{}'",
            [position_ids, [str(status) for status in _OPEN]],
        )
        return {position_id: json.loads(settings) for position_id, settings in cursor.fetchall()}
