"""An order's life: reports may come in any order and number, and come to the same end."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.states import (
    AT_BROKER,
    CLAIMABLE,
    LIVE,
    MOVES,
    TERMINAL,
    OrderEvent,
    OrderState,
    next_state,
    transitions,
)
from positions.states import IllegalMove

S, E = OrderState, OrderEvent

#: What a broker may report, by stream, poll or lookup; each may come twice and late.
ENDS = {E.FILLED: S.FILLED, E.CANCELLED: S.CANCELLED, E.REJECTED: S.REJECTED, E.EXPIRED: S.EXPIRED}
REPORTS = [E.ACCEPTED, E.PART_FILLED, *ENDS]


def run(state, events):
    for event in events:
        state = next_state(state, event)
    return state


@pytest.mark.parametrize(
    ("_case", "events", "expected"),
    [
        ("sent, filled", [E.CLAIMED, E.ACCEPTED, E.FILLED], S.FILLED),
        ("filled in parts", [E.CLAIMED, E.ACCEPTED, E.PART_FILLED, E.PART_FILLED, E.FILLED], S.FILLED),
        ("nothing left us, sent again", [E.CLAIMED, E.RELEASED, E.CLAIMED, E.ACCEPTED], S.SUBMITTED),
        ("answer lost, found", [E.CLAIMED, E.LOST, E.ACCEPTED], S.SUBMITTED),
        ("answer lost, found filled", [E.CLAIMED, E.LOST, E.FILLED], S.FILLED),
        ("answer lost, asked, sent again", [E.CLAIMED, E.LOST, E.CLAIMED, E.ACCEPTED], S.SUBMITTED),
        ("answer lost twice over", [E.CLAIMED, E.LOST, E.LOST], S.UNKNOWN),
        ("answer lost after the stream told", [E.CLAIMED, E.ACCEPTED, E.LOST], S.SUBMITTED),
        ("answer lost after a part fill", [E.CLAIMED, E.PART_FILLED, E.LOST], S.PARTIALLY_FILLED),
        ("answer lost after the fill", [E.CLAIMED, E.FILLED, E.LOST], S.FILLED),
        (
            "answer lost while being cancelled",
            [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.LOST],
            S.CANCEL_REQUESTED,
        ),
        ("a fill overtakes its acknowledgement", [E.CLAIMED, E.FILLED, E.ACCEPTED], S.FILLED),
        ("a part fill overtakes it", [E.CLAIMED, E.PART_FILLED, E.ACCEPTED], S.PARTIALLY_FILLED),
        ("called off unsent", [E.CANCELLED], S.CANCELLED),
        ("the last attempt refused", [E.CLAIMED, E.GAVE_UP], S.CANCELLED),
        ("cancelled", [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.CANCELLED], S.CANCELLED),
        ("the fill wins the race", [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.FILLED], S.FILLED),
        (
            "and the cancel's echo loses",
            [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.FILLED, E.CANCELLED],
            S.FILLED,
        ),
        ("a fill told after the cancel", [E.CLAIMED, E.ACCEPTED, E.CANCELLED, E.FILLED], S.FILLED),
        ("a part fill after the cancel", [E.CLAIMED, E.ACCEPTED, E.CANCELLED, E.PART_FILLED], S.CANCELLED),
        ("cancel refused", [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.CANCEL_REFUSED], S.SUBMITTED),
        (
            "cancel refused, told twice",
            [E.CLAIMED, E.ACCEPTED, E.CANCEL_ASKED, E.CANCEL_REFUSED, E.CANCEL_REFUSED],
            S.SUBMITTED,
        ),
        (
            "cancel of a part fill refused",
            [E.CLAIMED, E.PART_FILLED, E.CANCEL_ASKED, E.CANCEL_REFUSED, E.PART_FILLED, E.CANCEL_REFUSED],
            S.PARTIALLY_FILLED,
        ),
        ("a restored database meets a filled order", [E.FILLED], S.FILLED),
        ("a lease ran out and the next worker took over", [E.CLAIMED, E.CLAIMED, E.ACCEPTED], S.SUBMITTED),
    ],
)
def test_lives(_case, events, expected):
    assert run(S.PENDING, events) is expected


@pytest.mark.parametrize(
    ("_case", "state", "event"),
    [
        ("an order at the broker is never claimed again", S.SUBMITTED, E.CLAIMED),
        ("nor a part-filled one", S.PARTIALLY_FILLED, E.CLAIMED),
        ("nor one being cancelled", S.CANCEL_REQUESTED, E.CLAIMED),
        ("an unknown one is not called unsent", S.UNKNOWN, E.RELEASED),
        ("nor given up before it was asked for", S.UNKNOWN, E.GAVE_UP),
        ("one the broker has is not given up", S.SUBMITTED, E.GAVE_UP),
        ("an unsent one cannot be lost", S.PENDING, E.LOST),
        ("an unsent one is called off, not asked to cancel", S.PENDING, E.CANCEL_ASKED),
        ("an ended one is not cancelled", S.FILLED, E.CANCEL_ASKED),
    ],
)
def test_refuses_what_the_table_does_not_hold(_case, state, event):
    with pytest.raises(IllegalMove) as refused:
        next_state(state, event)
    assert str(refused.value) == f"an order that is {state} cannot take {event}"


def test_states_are_either_live_or_over():
    assert set(S) == LIVE | TERMINAL
    assert not LIVE & TERMINAL
    assert AT_BROKER < LIVE
    claimable = {state for state in S if (state, E.CLAIMED) in MOVES}
    assert claimable == CLAIMABLE


def test_a_report_is_legal_in_every_state():
    assert [(state, event) for state in S for event in REPORTS if (state, event) not in MOVES] == []


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("event", list(E))
def test_an_ended_order_takes_no_orders_and_hears_only_echoes_or_its_fill(state, event):
    if event in {E.CLAIMED, E.RELEASED, E.CANCEL_ASKED, E.GAVE_UP}:
        assert (state, event) not in MOVES
    else:
        assert next_state(state, event) is (S.FILLED if event is E.FILLED else state)


@given(st.lists(st.sampled_from(E), max_size=40))
def test_no_sequence_leaves_an_end_except_to_filled(events):
    state = S.PENDING
    for event in events:
        before = state
        try:
            state = next_state(state, event)
        except IllegalMove:
            continue
        if before in TERMINAL:
            assert state in {before, S.FILLED}
        if before is S.FILLED:
            assert state is S.FILLED


@given(st.sampled_from(sorted(LIVE)), st.lists(st.sampled_from(REPORTS), max_size=20))
def test_hearing_a_report_twice_in_a_row_changes_nothing(state, events):
    for event in events:
        state = next_state(state, event)
        assert next_state(state, event) is state


@pytest.mark.parametrize("start", [S.PENDING, S.SUBMITTING, S.UNKNOWN])
@pytest.mark.parametrize("end", list(ENDS))
def test_reports_in_any_order_come_to_the_same_end(start, end):
    reports = [E.ACCEPTED, E.PART_FILLED, E.PART_FILLED, end]
    assert {run(start, order) for order in permutations(reports)} == {ENDS[end]}


@pytest.mark.parametrize("start", [S.PENDING, S.SUBMITTING, S.UNKNOWN])
def test_a_part_fill_and_its_acknowledgement_in_any_order_leave_a_part_filled_order(start):
    ends = {run(start, order) for order in permutations([E.ACCEPTED, E.PART_FILLED, E.PART_FILLED])}
    assert ends == {S.PARTIALLY_FILLED}


@st.composite
def told_and_heard(draw):
    """Return what happened in its order, and the same with earlier reports repeated anywhere later."""
    told = [E.ACCEPTED] + [E.PART_FILLED] * draw(st.integers(0, 3))
    told += draw(st.sampled_from([[], [E.CANCEL_ASKED]]))
    told += draw(st.sampled_from([[], *([end] for end in ENDS)]))
    heard = list(told)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(1, len(heard)))
        # asking for a cancel is our own act; only what the broker says can come twice
        echo = draw(st.sampled_from([event for event in heard[:place] if event in REPORTS]))
        heard.insert(place, echo)
    return told, heard


@given(st.sampled_from([S.PENDING, S.SUBMITTING, S.UNKNOWN]), told_and_heard())
def test_duplicates_anywhere_come_to_the_same_end(start, reports):
    told, heard = reports
    assert run(start, heard) is run(start, told)


@pytest.mark.parametrize("fills", [0, 1])
@given(echoes=st.lists(st.sampled_from([E.ACCEPTED, E.CANCEL_REFUSED]), max_size=6))
def test_a_refused_cancel_leaves_the_order_where_it_stood_however_often_it_is_told(fills, echoes):
    before = [E.ACCEPTED] + [E.PART_FILLED] * fills
    stood = run(S.SUBMITTING, before)
    refused = run(stood, [E.CANCEL_ASKED, E.CANCEL_REFUSED] + [E.PART_FILLED] * fills)
    assert refused is stood
    assert run(refused, echoes) is stood


def test_the_pairs_for_the_database_are_the_moves_that_change_something():
    pairs = transitions()
    assert pairs == sorted(set(pairs))
    assert ("pending", "submitting") in pairs
    assert ("cancelled", "filled") in pairs
    assert {before for before, _ in pairs if before in TERMINAL} == {"cancelled", "rejected", "expired"}
    assert {after for before, after in pairs if before in TERMINAL} == {"filled"}
    assert not [pair for pair in pairs if pair[0] == pair[1]]
