"""What the configuration in force says about positions that are held, by account, symbol and their own settings."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from exitmgr.models import Bracket
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
    own = dict(
        Bracket.objects.filter(position__in=held, status__in=_OPEN)
        .exclude(overrides={})
        .values_list("position_id", "overrides")
    )
    return {
        pk: found.policy_for(
            account=names.get(position.account_id, ""),
            symbol=position.instrument.symbol,
            overrides=own.get(pk, {}),
        )
        for pk, position in held.items()
    }
