"""Client order ids: one decision has one id, two decisions have two."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.client_ids import LENGTH, client_order_id, is_ours

decisions = st.fixed_dictionaries(
    {
        "account_id": st.integers(1, 10**12),
        "subject": st.text(max_size=40),
        "leg": st.text(max_size=20),
        "attempt": st.integers(0, 1000),
    }
)


def test_an_id_never_changes_between_releases():
    given = {"account_id": 1, "subject": "position:7", "leg": "exit:1", "attempt": 1}
    assert client_order_id(**given) == "xmcfl5n2dnohwufa543cph3thwi2"


@given(decisions)
def test_the_same_decision_has_the_same_id_in_our_shape(decision):
    text = client_order_id(**decision)
    assert text == client_order_id(**decision)
    assert re.fullmatch("xm[a-z2-7]{26}", text)
    assert len(text) == LENGTH
    assert is_ours(text)


@given(decisions, decisions)
def test_different_decisions_have_different_ids(one, other):
    assert (client_order_id(**one) == client_order_id(**other)) is (one == other)


@pytest.mark.parametrize(
    ("_case", "one", "other"),
    [
        ("another account", (1, "p1", "exit", 1), (2, "p1", "exit", 1)),
        ("another subject", (1, "p1", "exit", 1), (1, "p2", "exit", 1)),
        ("another leg", (1, "p1", "exit", 1), (1, "p1", "stop", 1)),
        ("another attempt", (1, "p1", "exit", 1), (1, "p1", "exit", 2)),
        ("a separator inside a part", (1, "p1|exit", "1", 1), (1, "p1", "exit|1", 1)),
        ("a digit that moves over", (1, "p1", "exit1", 1), (1, "p1", "exit", 11)),
        ("quotes inside a part", (1, 'p", "x', "y", 1), (1, "p", 'x", "y', 1)),
    ],
)
def test_near_decisions_have_different_ids(_case, one, other):
    keys = ("account_id", "subject", "leg", "attempt")
    first = client_order_id(**dict(zip(keys, one, strict=True)))
    assert first != client_order_id(**dict(zip(keys, other, strict=True)))


@pytest.mark.parametrize(
    ("_case", "text"),
    [
        ("empty", ""),
        ("a broker's uuid", "904837e3-3b76-47ec-b432-046db621571b"),
        ("too short", "xm" + "a" * 25),
        ("too long", "xm" + "a" * 27),
        ("capitals", "XM" + "A" * 26),
        ("another prefix", "xn" + "a" * 26),
        ("a digit base32 does not have", "xm" + "a" * 25 + "1"),
        ("a letter beyond ascii", "xm" + "a" * 25 + "é"),
        ("a line end", "xm" + "a" * 26 + "\n"),
    ],
)
def test_other_ids_are_not_ours(_case, text):
    assert not is_ours(text)
