"""The words of the rules: which reason is how urgent, and which is no reason at all."""

from decimal import Decimal

import pytest

from exitmgr.rules.types import Decision, ExitReason, Urgency, target_reason, urgency_of


@pytest.mark.parametrize(
    ("reason", "urgency"),
    [
        ("emergency", Urgency.EMERGENCY),
        ("stop_loss", Urgency.STOP),
        ("trailing_stop", Urgency.STOP),
        ("break_even", Urgency.STOP),
        ("manual", Urgency.MANUAL),
        ("session_close", Urgency.TIMED),
        ("time_limit", Urgency.TIMED),
        ("stagnation", Urgency.TIMED),
        ("take_profit_1", Urgency.TARGET),
        ("take_profit_3", Urgency.TARGET),
        ("take_profit_12", Urgency.TARGET),
    ],
)
def test_how_urgent_a_reason_is(reason, urgency):
    assert urgency_of(reason) is urgency
    decision = Decision(reason=reason, fraction_pct=Decimal(100), trigger_price=None, seen_price=None)
    assert decision.urgency is urgency


@pytest.mark.parametrize("reason", list(ExitReason))
def test_every_reason_has_an_urgency(reason):
    assert urgency_of(reason) in Urgency


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "5",
        "stop",
        "STOP_LOSS",
        "take_profit_",
        "take_profit_0",
        "take_profit_01",
        "take_profit_²",
        "take_profit_1\n",
    ],
)
def test_other_words_are_no_reason(reason):
    with pytest.raises(ValueError, match=r"is no exit reason$"):
        urgency_of(reason)


def test_exits_go_before_entries_and_stops_before_targets():
    assert sorted(Urgency) == [
        Urgency.EMERGENCY,
        Urgency.STOP,
        Urgency.MANUAL,
        Urgency.TIMED,
        Urgency.TARGET,
        Urgency.ENTRY,
    ]


def test_the_first_targets_have_their_own_words():
    assert [target_reason(rung) for rung in (1, 2, 3)] == [
        ExitReason.TAKE_PROFIT_1,
        ExitReason.TAKE_PROFIT_2,
        ExitReason.TAKE_PROFIT_3,
    ]
    assert urgency_of(target_reason(40)) is Urgency.TARGET
