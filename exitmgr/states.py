"""The lives of a bracket and of its triggers as tables: (status, event) -> status."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from positions.states import IllegalMove


class BracketStatus(StrEnum):
    """Where a bracket stands."""

    PENDING = "pending"  # its entry is not filled yet
    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ERROR = "error"


class BracketEvent(StrEnum):
    """What can happen to a bracket."""

    ARMED = "armed"
    POSITION_CLOSED = "position_closed"
    CALLED_OFF = "called_off"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    REPAIRED = "repaired"


class TriggerStatus(StrEnum):
    """Where a trigger stands."""

    WAITING = "waiting"  # for another trigger of its plan to fire
    ARMED = "armed"
    BREACHED = "breached"  # it fired while the quantity was bound by another exit; it goes out when that ends
    FIRED = "fired"  # its exit order exists, or what it starts is armed
    CANCELLED = "cancelled"


_B, _E = BracketStatus, BracketEvent
BRACKET_MOVES: Final[dict[tuple[BracketStatus, BracketEvent], BracketStatus]] = {
    (_B.PENDING, _E.ARMED): _B.ACTIVE,
    (_B.PENDING, _E.CALLED_OFF): _B.CANCELLED,  # the entry ended unfilled
    (_B.PENDING, _E.TIMED_OUT): _B.EXPIRED,
    (_B.PENDING, _E.FAILED): _B.ERROR,
    (_B.ACTIVE, _E.ARMED): _B.ACTIVE,  # more of the entry filled, levels follow the average
    (_B.ACTIVE, _E.POSITION_CLOSED): _B.COMPLETED,
    (_B.ACTIVE, _E.CALLED_OFF): _B.CANCELLED,
    (_B.ACTIVE, _E.TIMED_OUT): _B.EXPIRED,
    (_B.ACTIVE, _E.FAILED): _B.ERROR,
    (_B.ERROR, _E.REPAIRED): _B.ACTIVE,
    (_B.ERROR, _E.FAILED): _B.ERROR,  # still failing
    (_B.ERROR, _E.POSITION_CLOSED): _B.COMPLETED,
    (_B.ERROR, _E.CALLED_OFF): _B.CANCELLED,
    # told twice
    (_B.COMPLETED, _E.POSITION_CLOSED): _B.COMPLETED,
    (_B.CANCELLED, _E.CALLED_OFF): _B.CANCELLED,
    (_B.EXPIRED, _E.TIMED_OUT): _B.EXPIRED,
    # the position outlived its plan
    (_B.CANCELLED, _E.POSITION_CLOSED): _B.CANCELLED,
    (_B.EXPIRED, _E.POSITION_CLOSED): _B.EXPIRED,
}

_T = TriggerStatus
#: A trigger fires once and never re-arms; whoever changes a plan makes new triggers.
TRIGGER_MOVES: Final = frozenset(
    {
        (_T.WAITING, _T.ARMED),
        (_T.WAITING, _T.CANCELLED),
        (_T.ARMED, _T.FIRED),
        (_T.ARMED, _T.BREACHED),
        (_T.ARMED, _T.CANCELLED),
        (_T.BREACHED, _T.FIRED),
        (_T.BREACHED, _T.CANCELLED),
    }
)


class PolicyStatus(StrEnum):
    """Where a version of the configuration stands."""

    DRAFT = "draft"
    VALIDATED = "validated"
    ACTIVE = "active"
    SUPERSEDED = "superseded"


_P = PolicyStatus
#: A version that was superseded may be activated again: that is a rollback.
POLICY_MOVES: Final = frozenset(
    {
        (_P.DRAFT, _P.VALIDATED),
        (_P.VALIDATED, _P.DRAFT),
        (_P.VALIDATED, _P.ACTIVE),
        (_P.ACTIVE, _P.SUPERSEDED),
        (_P.SUPERSEDED, _P.ACTIVE),
    }
)


def next_bracket_status(status: BracketStatus, event: BracketEvent) -> BracketStatus:
    """Return the status after an event.

    :raises IllegalMove: the table has no row for it.
    """
    try:
        return BRACKET_MOVES[status, event]
    except KeyError:
        raise IllegalMove(f"a bracket that is {status} cannot take {event}") from None
