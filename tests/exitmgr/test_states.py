"""The lives of brackets and triggers: what ends them, what is told twice, what never comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitmgr.states import (
    BRACKET_MOVES,
    TRIGGER_MOVES,
    BracketEvent,
    BracketStatus,
    TriggerStatus,
    next_bracket_status,
)
from positions.states import IllegalMove

S, E, T = BracketStatus, BracketEvent, TriggerStatus
OVER = {S.COMPLETED, S.CANCELLED, S.EXPIRED}


@pytest.mark.parametrize(
    ("_case", "status", "event", "expected"),
    [
        ("the entry fills", S.PENDING, E.ARMED, S.ACTIVE),
        ("the entry ends unfilled", S.PENDING, E.CALLED_OFF, S.CANCELLED),
        ("the entry takes too long", S.PENDING, E.TIMED_OUT, S.EXPIRED),
        ("it cannot be armed", S.PENDING, E.FAILED, S.ERROR),
        ("more of the entry fills", S.ACTIVE, E.ARMED, S.ACTIVE),
        ("the position is left", S.ACTIVE, E.POSITION_CLOSED, S.COMPLETED),
        ("a leg cannot be placed", S.ACTIVE, E.FAILED, S.ERROR),
        ("and fails again", S.ERROR, E.FAILED, S.ERROR),
        ("and is repaired", S.ERROR, E.REPAIRED, S.ACTIVE),
        ("or left all the same", S.ERROR, E.POSITION_CLOSED, S.COMPLETED),
        ("the end is told twice", S.COMPLETED, E.POSITION_CLOSED, S.COMPLETED),
        ("the cancel is told twice", S.CANCELLED, E.CALLED_OFF, S.CANCELLED),
        ("the expiry is told twice", S.EXPIRED, E.TIMED_OUT, S.EXPIRED),
        ("the position outlived its plan", S.CANCELLED, E.POSITION_CLOSED, S.CANCELLED),
        ("or its time", S.EXPIRED, E.POSITION_CLOSED, S.EXPIRED),
    ],
)
def test_moves(_case, status, event, expected):
    assert next_bracket_status(status, event) is expected


@pytest.mark.parametrize(
    ("_case", "status", "event"),
    [
        ("a completed one is not armed again", S.COMPLETED, E.ARMED),
        ("nor cancelled", S.COMPLETED, E.CALLED_OFF),
        ("a cancelled one is not armed again", S.CANCELLED, E.ARMED),
        ("an expired one is not repaired", S.EXPIRED, E.REPAIRED),
        ("a broken one is repaired, not armed", S.ERROR, E.ARMED),
    ],
)
def test_refuses_what_the_table_does_not_hold(_case, status, event):
    with pytest.raises(IllegalMove) as refused:
        next_bracket_status(status, event)
    assert str(refused.value) == f"a bracket that is {status} cannot take {event}"


@given(st.lists(st.sampled_from(E), max_size=30))
def test_no_sequence_brings_an_ended_bracket_back(events):
    status, ended = S.PENDING, None
    for event in events:
        try:
            status = next_bracket_status(status, event)
        except IllegalMove:
            continue
        if ended is not None:
            assert status is ended
        if status in OVER:
            ended = status


@pytest.mark.parametrize(("pair", "after"), BRACKET_MOVES.items())
def test_hearing_a_thing_twice_in_a_row_changes_nothing(pair, after):
    _before, event = pair
    again = BRACKET_MOVES.get((after, event), after)
    assert again is after


def test_a_trigger_fires_at_most_once_and_never_re_arms():
    assert {before for before, _ in TRIGGER_MOVES} == {T.WAITING, T.ARMED, T.BREACHED}
    assert {before for before, after in TRIGGER_MOVES if after is T.ARMED} == {T.WAITING}
    assert T.WAITING not in {after for _, after in TRIGGER_MOVES}
    assert {after for before, after in TRIGGER_MOVES if before is T.BREACHED} == {T.FIRED, T.CANCELLED}
