"""The one lock root. Whoever changes a position's quantities, or the orders and triggers below it, holds this lock.

Order of locks everywhere: quotes, then positions by id, then orders by id.
"""

from __future__ import annotations

from collections.abc import Iterable

from positions.models import Position


def lock_positions(ids: Iterable[int]) -> dict[int, Position]:
    """Lock positions in ascending order of id until the transaction ends, and return them by id.

    The lock leaves foreign keys to the row free, so fills can be journalled while an exit is decided.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    rows = (
        Position.objects.select_for_update(of=("self",), no_key=True)
        .select_related("instrument")
        .filter(pk__in=wanted)
        .order_by("pk")
    )
    return {row.pk: row for row in rows}


def lock_position(position_id: int) -> Position:
    """Lock one position until the transaction ends.

    :raises Position.DoesNotExist: there is no such position.
    """
    try:
        return lock_positions([position_id])[position_id]
    except KeyError:
        raise Position.DoesNotExist(f"there is no position {position_id}") from None
