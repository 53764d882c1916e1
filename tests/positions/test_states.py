"""A position's life: every row of its table, and what no sequence of events can do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.states import MOVES, IllegalMove, PositionEvent, PositionStatus, next_status

S, E = PositionStatus, PositionEvent


@pytest.mark.parametrize(
    ("_case", "status", "event", "expected"),
    [
        ("the entry fills in parts", S.OPEN, E.ENTRY_FILLED, S.OPEN),
        ("an exit goes out", S.OPEN, E.EXIT_REQUESTED, S.EXIT_PENDING),
        ("its end unsold is told twice", S.OPEN, E.EXIT_ENDED_UNSOLD, S.OPEN),
        ("a fill after its order ended unsold", S.OPEN, E.EXIT_ENDED_PART_SOLD, S.PARTIAL_EXIT),
        ("closed outside", S.OPEN, E.EMPTIED, S.CLOSED),
        ("a late entry fill", S.EXIT_PENDING, E.ENTRY_FILLED, S.EXIT_PENDING),
        ("one more rung", S.EXIT_PENDING, E.EXIT_REQUESTED, S.EXIT_PENDING),
        ("the exit ends unsold", S.EXIT_PENDING, E.EXIT_ENDED_UNSOLD, S.OPEN),
        ("the exit ends part sold", S.EXIT_PENDING, E.EXIT_ENDED_PART_SOLD, S.PARTIAL_EXIT),
        ("the exit sells all", S.EXIT_PENDING, E.EMPTIED, S.CLOSED),
        ("a late entry fill between exits", S.PARTIAL_EXIT, E.ENTRY_FILLED, S.PARTIAL_EXIT),
        ("the rest goes out", S.PARTIAL_EXIT, E.EXIT_REQUESTED, S.EXIT_PENDING),
        ("its end part sold is told twice", S.PARTIAL_EXIT, E.EXIT_ENDED_PART_SOLD, S.PARTIAL_EXIT),
        ("a late fill sells the rest", S.PARTIAL_EXIT, E.EMPTIED, S.CLOSED),
        ("its end is told twice", S.CLOSED, E.EMPTIED, S.CLOSED),
    ],
)
def test_moves(_case, status, event, expected):
    assert next_status(status, event) is expected


@pytest.mark.parametrize(
    ("status", "event", "message"),
    [
        (
            S.PARTIAL_EXIT,
            E.EXIT_ENDED_UNSOLD,
            "a position that is partial_exit cannot take exit_ended_unsold",
        ),
        (S.CLOSED, E.ENTRY_FILLED, "a position that is closed cannot take entry_filled"),
        (S.CLOSED, E.EXIT_REQUESTED, "a position that is closed cannot take exit_requested"),
        (S.CLOSED, E.EXIT_ENDED_UNSOLD, "a position that is closed cannot take exit_ended_unsold"),
        (S.CLOSED, E.EXIT_ENDED_PART_SOLD, "a position that is closed cannot take exit_ended_part_sold"),
    ],
)
def test_refuses_what_the_table_does_not_hold(status, event, message):
    with pytest.raises(IllegalMove) as refused:
        next_status(status, event)
    assert str(refused.value) == message


def test_the_tables_above_cover_every_pair():
    assert len(MOVES) == 15
    assert len(MOVES) + 5 == len(S) * len(E)


@given(st.lists(st.sampled_from(E), max_size=30))
def test_no_sequence_reopens_a_closed_position(events):
    status = S.OPEN
    for event in events:
        before = status
        try:
            status = next_status(status, event)
        except IllegalMove:
            continue
        if before is S.CLOSED:
            assert status is S.CLOSED


@given(st.lists(st.sampled_from(E), max_size=30), st.data())
def test_hearing_a_thing_twice_in_a_row_changes_nothing(events, data):
    status = S.OPEN
    for event in events:
        try:
            status = next_status(status, event)
        except IllegalMove:
            continue
        if data.draw(st.booleans()):
            assert next_status(status, event) is status


def test_every_status_can_be_reached_and_every_open_one_can_end():
    reached, ends = {S.OPEN}, {S.CLOSED}
    for _ in S:
        reached |= {after for (before, _e), after in MOVES.items() if before in reached}
        ends |= {before for (before, _e), after in MOVES.items() if after in ends}
    assert reached == set(S)
    assert ends == set(S)
