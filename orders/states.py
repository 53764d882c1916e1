"""The life of an order as one table: (state, event) -> state. Odd rows name the surprise they answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from positions.states import IllegalMove


class OrderState(StrEnum):
    """Where an order stands, as far as we know."""

    PENDING = "pending"  # written down, not yet sent
    SUBMITTING = "submitting"  # one worker holds the lease and may be talking to the broker
    UNKNOWN = "unknown"  # sent, answer lost: ask by client order id, never resend blindly
    SUBMITTED = "submitted"  # the broker has it
    PARTIALLY_FILLED = "partially_filled"
    CANCEL_REQUESTED = "cancel_requested"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


class OrderEvent(StrEnum):
    """What can happen to an order."""

    CLAIMED = "claimed"
    RELEASED = "released"  # provably no attempt so far is at the broker, and a later try is due
    LOST = "lost"  # the answer never came
    ACCEPTED = "accepted"
    PART_FILLED = "part_filled"
    FILLED = "filled"
    CANCEL_ASKED = "cancel_asked"
    CANCEL_REFUSED = "cancel_refused"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    GAVE_UP = "gave_up"  # the last attempt was refused; a person has to act


_S, _E = OrderState, OrderEvent

LIVE: Final = frozenset({_S.PENDING, _S.SUBMITTING, _S.UNKNOWN, _S.SUBMITTED, _S.PARTIALLY_FILLED, _S.CANCEL_REQUESTED})
AT_BROKER: Final = frozenset({_S.SUBMITTED, _S.PARTIALLY_FILLED, _S.CANCEL_REQUESTED})
CLAIMABLE: Final = frozenset({_S.PENDING, _S.UNKNOWN, _S.SUBMITTING})
TERMINAL: Final = frozenset({_S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED})

MOVES: Final[dict[tuple[OrderState, OrderEvent], OrderState]] = {
    (_S.PENDING, _E.CLAIMED): _S.SUBMITTING,
    (_S.PENDING, _E.CANCELLED): _S.CANCELLED,  # called off before anything was sent
    (_S.PENDING, _E.GAVE_UP): _S.CANCELLED,
    (_S.PENDING, _E.EXPIRED): _S.EXPIRED,
    # a database restored from a backup meets a broker that already knows the order
    (_S.PENDING, _E.ACCEPTED): _S.SUBMITTED,
    (_S.PENDING, _E.PART_FILLED): _S.PARTIALLY_FILLED,
    (_S.PENDING, _E.FILLED): _S.FILLED,
    (_S.PENDING, _E.REJECTED): _S.REJECTED,
    (_S.SUBMITTING, _E.CLAIMED): _S.SUBMITTING,  # the former holder's lease ran out
    (_S.SUBMITTING, _E.RELEASED): _S.PENDING,
    (_S.SUBMITTING, _E.LOST): _S.UNKNOWN,
    (_S.SUBMITTING, _E.ACCEPTED): _S.SUBMITTED,
    (_S.SUBMITTING, _E.PART_FILLED): _S.PARTIALLY_FILLED,  # a fill can overtake its own acknowledgement
    (_S.SUBMITTING, _E.FILLED): _S.FILLED,
    (_S.SUBMITTING, _E.CANCELLED): _S.CANCELLED,
    (_S.SUBMITTING, _E.REJECTED): _S.REJECTED,
    (_S.SUBMITTING, _E.EXPIRED): _S.EXPIRED,
    (_S.SUBMITTING, _E.GAVE_UP): _S.CANCELLED,
    (_S.UNKNOWN, _E.CLAIMED): _S.SUBMITTING,
    (_S.UNKNOWN, _E.LOST): _S.UNKNOWN,  # its lease ran out before the late worker gave up waiting
    (_S.UNKNOWN, _E.ACCEPTED): _S.SUBMITTED,
    (_S.UNKNOWN, _E.PART_FILLED): _S.PARTIALLY_FILLED,
    (_S.UNKNOWN, _E.FILLED): _S.FILLED,
    (_S.UNKNOWN, _E.CANCELLED): _S.CANCELLED,
    (_S.UNKNOWN, _E.REJECTED): _S.REJECTED,
    (_S.UNKNOWN, _E.EXPIRED): _S.EXPIRED,
    (_S.SUBMITTED, _E.ACCEPTED): _S.SUBMITTED,
    (_S.SUBMITTED, _E.LOST): _S.SUBMITTED,  # our answer was lost, but the stream had told us already
    (_S.SUBMITTED, _E.PART_FILLED): _S.PARTIALLY_FILLED,
    (_S.SUBMITTED, _E.FILLED): _S.FILLED,
    (_S.SUBMITTED, _E.CANCEL_ASKED): _S.CANCEL_REQUESTED,
    (_S.SUBMITTED, _E.CANCEL_REFUSED): _S.SUBMITTED,  # told twice
    (_S.SUBMITTED, _E.CANCELLED): _S.CANCELLED,
    (_S.SUBMITTED, _E.REJECTED): _S.REJECTED,
    (_S.SUBMITTED, _E.EXPIRED): _S.EXPIRED,
    (_S.PARTIALLY_FILLED, _E.ACCEPTED): _S.PARTIALLY_FILLED,  # the acknowledgement came second
    (_S.PARTIALLY_FILLED, _E.LOST): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _E.PART_FILLED): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _E.FILLED): _S.FILLED,
    (_S.PARTIALLY_FILLED, _E.CANCEL_ASKED): _S.CANCEL_REQUESTED,
    (_S.PARTIALLY_FILLED, _E.CANCEL_REFUSED): _S.PARTIALLY_FILLED,  # told twice
    (_S.PARTIALLY_FILLED, _E.CANCELLED): _S.CANCELLED,
    (_S.PARTIALLY_FILLED, _E.REJECTED): _S.REJECTED,
    (_S.PARTIALLY_FILLED, _E.EXPIRED): _S.EXPIRED,
    (_S.CANCEL_REQUESTED, _E.ACCEPTED): _S.CANCEL_REQUESTED,
    (_S.CANCEL_REQUESTED, _E.LOST): _S.CANCEL_REQUESTED,
    (_S.CANCEL_REQUESTED, _E.PART_FILLED): _S.CANCEL_REQUESTED,  # fills go on until the cancel is confirmed
    (_S.CANCEL_REQUESTED, _E.FILLED): _S.FILLED,  # the fill won the race
    (_S.CANCEL_REQUESTED, _E.CANCEL_ASKED): _S.CANCEL_REQUESTED,
    (_S.CANCEL_REQUESTED, _E.CANCEL_REFUSED): _S.SUBMITTED,  # then PART_FILLED, where some was filled before
    (_S.CANCEL_REQUESTED, _E.CANCELLED): _S.CANCELLED,
    (_S.CANCEL_REQUESTED, _E.REJECTED): _S.REJECTED,
    (_S.CANCEL_REQUESTED, _E.EXPIRED): _S.EXPIRED,
    # the venue's last word beats ours: a fill reported after a cancel is still a fill
    (_S.CANCELLED, _E.PART_FILLED): _S.CANCELLED,
    (_S.CANCELLED, _E.FILLED): _S.FILLED,
    (_S.EXPIRED, _E.PART_FILLED): _S.EXPIRED,
    (_S.EXPIRED, _E.FILLED): _S.FILLED,
    (_S.REJECTED, _E.PART_FILLED): _S.REJECTED,
    (_S.REJECTED, _E.FILLED): _S.FILLED,
}
# anything else said about an order that has ended is an echo and changes nothing
_ECHOES: Final = (
    _E.LOST,
    _E.ACCEPTED,
    _E.PART_FILLED,
    _E.FILLED,
    _E.CANCEL_REFUSED,
    _E.CANCELLED,
    _E.REJECTED,
    _E.EXPIRED,
)
MOVES.update({(state, echo): state for state in TERMINAL for echo in _ECHOES if (state, echo) not in MOVES})


def next_state(state: OrderState, event: OrderEvent) -> OrderState:
    """Return the state after an event.

    :raises IllegalMove: the table has no row for it.
    """
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(f"an order that is {state} cannot take {event}") from None


def transitions() -> list[tuple[str, str]]:
    """Return every (from, to) pair of different states, for the database's own guard."""
    return sorted({(str(before), str(after)) for (before, _), after in MOVES.items() if before != after})
