"""The life of a position as one table: (status, event) -> status. Anything not in the table is illegal."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class PositionStatus(StrEnum):
    """Where a position stands."""

    OPEN = "open"
    EXIT_PENDING = "exit_pending"
    PARTIAL_EXIT = "partial_exit"
    CLOSED = "closed"


class PositionEvent(StrEnum):
    """What can happen to a position."""

    ENTRY_FILLED = "entry_filled"
    EXIT_REQUESTED = "exit_requested"
    EXIT_ENDED_UNSOLD = "exit_ended_unsold"  # the last live exit ended and nothing was ever sold
    EXIT_ENDED_PART_SOLD = "exit_ended_part_sold"  # the last live exit ended, some was sold, some remains
    EMPTIED = "emptied"  # the remainder is zero or dust


class IllegalMove(Exception):
    """A state was asked to do what its table does not allow."""


_S, _E = PositionStatus, PositionEvent
MOVES: Final[dict[tuple[PositionStatus, PositionEvent], PositionStatus]] = {
    (_S.OPEN, _E.ENTRY_FILLED): _S.OPEN,
    (_S.OPEN, _E.EXIT_REQUESTED): _S.EXIT_PENDING,
    (_S.OPEN, _E.EXIT_ENDED_UNSOLD): _S.OPEN,  # told twice
    # part of it sold outside, or by a fill heard after its order had ended unsold
    (_S.OPEN, _E.EXIT_ENDED_PART_SOLD): _S.PARTIAL_EXIT,
    (_S.OPEN, _E.EMPTIED): _S.CLOSED,  # closed outside, or by a fill nobody asked us for
    (_S.EXIT_PENDING, _E.ENTRY_FILLED): _S.EXIT_PENDING,  # a late entry fill while the exit is already out
    (_S.EXIT_PENDING, _E.EXIT_REQUESTED): _S.EXIT_PENDING,  # one more rung
    (_S.EXIT_PENDING, _E.EXIT_ENDED_UNSOLD): _S.OPEN,
    (_S.EXIT_PENDING, _E.EXIT_ENDED_PART_SOLD): _S.PARTIAL_EXIT,
    (_S.EXIT_PENDING, _E.EMPTIED): _S.CLOSED,
    (_S.PARTIAL_EXIT, _E.ENTRY_FILLED): _S.PARTIAL_EXIT,
    (_S.PARTIAL_EXIT, _E.EXIT_REQUESTED): _S.EXIT_PENDING,
    (_S.PARTIAL_EXIT, _E.EXIT_ENDED_PART_SOLD): _S.PARTIAL_EXIT,  # told twice
    (_S.PARTIAL_EXIT, _E.EMPTIED): _S.CLOSED,
    (_S.CLOSED, _E.EMPTIED): _S.CLOSED,  # told twice
}


def next_status(status: PositionStatus, event: PositionEvent) -> PositionStatus:
    """Return the status after an event.

    :raises IllegalMove: the table has no row for it.
    """
    try:
        return MOVES[status, event]
    except KeyError:
        raise IllegalMove(f"a position that is {status} cannot take {event}") from None
