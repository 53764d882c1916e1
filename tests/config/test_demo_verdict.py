"""The demonstration's verdict finds every exit that is missing, unfounded, early or of a wrong size."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from config.demo.tape import Print
from config.demo.verdict import Leaving, Story, differences, first_reached, levels, owed

D = Decimal
BEGAN = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
LADDER = {
    "stop_loss": {"pct": "1"},
    "take_profits": [{"pct": "1", "fraction_pct": "50"}, {"pct": "2", "fraction_pct": "50"}, {"pct": "3"}],
}
PLAIN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}


def at(second: float) -> datetime:
    return BEGAN + timedelta(seconds=second)


def tape(*bids: str) -> list[Print]:
    """Return one print a second, a cent wide."""
    return [Print(D(bid), D(bid) + D("0.01"), at(n)) for n, bid in enumerate(bids, start=1)]


def leaving(order_id: int, reason: str, quantity: str, second: float, *, filled: str | None = None) -> Leaving:
    return Leaving(
        order_id=order_id, reason=reason, quantity=D(quantity), filled=D(filled or quantity), arrived_at=at(second)
    )


def story(*exits: Leaving, plan: object = PLAIN, side: str = "long", until: float = 60) -> Story:
    return Story(
        position_id=7, side=side, quantity=D(10), entry_price=D(100), plan=plan,
        opened_at=BEGAN, until=at(until), exits=exits,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("_case", "plan", "side", "expected"),
    [
        ("percent, long", PLAIN, "long", {"stop_loss": "99", "take_profit_1": "102"}),
        ("percent, short", PLAIN, "short", {"stop_loss": "101", "take_profit_1": "98"}),
        ("prices", {"stop_loss": {"price": "90"}, "take_profits": [{"price": "120"}]}, "long",
         {"stop_loss": "90", "take_profit_1": "120"}),
        ("distance and ratio, short", {"stop_loss": {"distance": "4"}, "take_profits": [{"rr": "1.5"}]}, "short",
         {"stop_loss": "104", "take_profit_1": "94"}),
        ("no stop", {"take_profits": [{"pct": "5"}]}, "long", {"take_profit_1": "105"}),
    ],
)  # fmt: skip
def test_levels(_case, plan, side, expected):
    found = levels(plan=plan, side=side, entry_price=D(100))
    assert found == {reason: D(price) for reason, price in expected.items()}


@pytest.mark.parametrize(
    ("_case", "side", "prints", "expected"),
    [
        ("exactly at the stop", "long", tape("99.50", "99.00"), {"stop_loss": at(2)}),
        ("a cent short of it", "long", tape("99.50", "99.01"), {}),
        ("a short buys back at the ask", "short", tape("100.98", "100.99"), {"stop_loss": at(2)}),
        ("the first time counts", "long", tape("98", "100", "97"), {"stop_loss": at(1)}),
        ("both ends of the day", "long", tape("102", "99"), {"take_profit_1": at(1), "stop_loss": at(2)}),
    ],
)
def test_when_a_level_is_first_reached(_case, side, prints, expected):
    assert first_reached(story(side=side), prints) == expected


def test_prices_before_the_position_or_after_its_end_do_not_count():
    prints = [Print(D(1), D(1), at(-1)), *tape("100", "100", "1")]
    assert first_reached(story(until=2.5), prints) == {}


@pytest.mark.parametrize(
    ("_case", "told", "prints"),
    [
        ("stopped out", story(leaving(1, "stop_loss", "10", 2)), tape("100", "98")),
        ("by hand, nothing reached", story(leaving(1, "manual", "10", 9)), tape("100", "101")),
        ("a rung, then the stop",
         story(leaving(1, "take_profit_1", "5", 1), leaving(2, "stop_loss", "5", 2), plan=LADDER), tape("101", "99")),
        ("a rung, the rest by hand",
         story(leaving(1, "take_profit_1", "5", 1), leaving(2, "manual", "5", 9), plan=LADDER), tape("101", "100")),
        ("two rungs by one jump",
         story(leaving(1, "take_profit_1", "5", 1), leaving(2, "take_profit_2", "2", 1), leaving(3, "manual", "3", 9),
               plan=LADDER), tape("102")),
        ("a target behind the stop that took all", story(leaving(1, "stop_loss", "10", 1)), tape("98", "103")),
        ("a stop that one scan saw just after the target", story(leaving(1, "stop_loss", "10", 2)), tape("102", "98")),
    ],
)  # fmt: skip
def test_what_the_market_demanded_and_got(_case, told, prints):
    assert list(differences(told, prints)) == []
    assert owed(told, prints) == {}


@pytest.mark.parametrize(
    ("_case", "told", "prints", "said"),
    [
        ("nobody left", story(), tape("98"), ["stop_loss was reached at", "0 of 10 were left"]),
        ("left by hand although breached", story(leaving(1, "manual", "10", 9)), tape("98"),
         ["stop_loss was reached at"]),
        ("left without a reason", story(leaving(1, "stop_loss", "10", 1)), tape("99.5"),
         ["left by stop_loss, whose level was never reached"]),
        ("left too early", story(leaving(1, "stop_loss", "10", 0.5)), tape("98"),
         ["left by stop_loss before its level was reached"]),
        ("half filled", story(leaving(1, "stop_loss", "10", 1, filled="4")), tape("98"),
         ["the stop_loss exit filled 4 of 10", "4 of 10 were left"]),
        ("nothing filled", story(leaving(1, "stop_loss", "10", 1, filled="0")), tape("98"),
         ["the stop_loss exit filled 0 of 10", "stop_loss was reached at", "0 of 10 were left"]),
        ("the stop was slept through until the target came", story(leaving(1, "take_profit_1", "10", 5)),
         tape("98", "99", "100", "101", "102"), ["stop_loss was reached at"]),
        ("the target was slept through until the stop came", story(leaving(1, "stop_loss", "10", 6)),
         tape("102", "101", "101", "100", "98"), ["take_profit_1 was reached at"]),
        ("a rung sold too much",
         story(leaving(1, "take_profit_1", "5", 1), leaving(2, "take_profit_2", "5", 1), plan=LADDER), tape("102"),
         ["take_profit_2 closed 5 where its share is 2"]),
        ("sold twice", story(leaving(1, "stop_loss", "10", 1), leaving(2, "stop_loss", "10", 1)), tape("98"),
         ["stop_loss closed 10 where its share is 0", "20 of 10 were left"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(_case, told, prints, said):
    found = list(differences(told, prints))
    assert len(found) == len(said), found
    for text, part in zip(found, said, strict=True):
        assert text.startswith("position 7: ")
        assert part in text


def test_a_position_still_under_way_owes_its_exit_until_it_is_filled():
    waiting = story(leaving(1, "stop_loss", "10", 1, filled="0"))
    assert owed(waiting, tape("98")) == {"stop_loss": at(1)}
    assert owed(replace(waiting, exits=[leaving(1, "stop_loss", "10", 1)]), tape("98")) == {}
