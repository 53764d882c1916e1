"""Brackets: a plan becomes armed levels in one transaction, or nothing at all."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from alerts.models import Event
from exitmgr.brackets import create_bracket, end_bracket
from exitmgr.entries import register_position
from exitmgr.models import Bracket, Trigger
from exitmgr.policy.plan_choice import ChosenPlan
from exitmgr.rules.plan import InvalidPlan, parse_plan
from exitmgr.states import BracketEvent
from positions.models import Position
from positions.states import IllegalMove
from positions.values import Side
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db
LADDER = {
    "stop_loss": {"distance": "2"},
    "take_profits": [{"rr": "1.5", "fraction_pct": "40"}, {"price": "110", "fraction_pct": "60"}],
}


@pytest.mark.parametrize(
    ("_case", "side", "stop", "target", "basis", "ways"),
    [
        ("a long leaves at the bid", Side.LONG, D(98), D(103), "bid", ("fall", "rise")),
        ("a short leaves at the ask", Side.SHORT, D(102), D(97), "ask", ("rise", "fall")),
    ],
)
def test_a_plan_becomes_levels(_case, side, stop, target, basis, ways):
    plan = LADDER if side is Side.LONG else {**LADDER, "take_profits": [{"rr": "1.5", "fraction_pct": "40"}]}
    position = f.hold(side=side, plan=plan)
    bracket = f.bracket_of(position)
    assert (bracket.status, bracket.entry_price, bracket.stop_price) == ("active", D(100), stop)
    assert (bracket.target_prices[0], bracket.ratio) == (str(target), D("1.5"))
    rows = list(
        Trigger.objects.order_by("pk").values_list("basis", "direction", "level", "fraction_pct", "rung", "urgency")
    )
    assert rows[0] == (basis, ways[0], stop, D(100), 0, 10)
    assert rows[1] == (basis, ways[1], target, D(40), 1, 40)
    assert len(rows) == (3 if side is Side.LONG else 2)


def test_the_default_plan_is_one_percent_against_and_two_in_favour():
    position, _ = register_position(
        account=f.make_account(), symbol=str(f.make_instrument()), side=Side.LONG, quantity=D(10), entry_price=D(100),
        opened_at=f.utc_now(), now=f.utc_now(), actor="test",
    )  # fmt: skip
    assert f.bracket_of(position).from_policy
    assert list(position.triggers.order_by("pk").values_list("reason", "level")) == [
        ("stop_loss", D(99)), ("take_profit_1", D(102)),
    ]  # fmt: skip


def test_an_empty_plan_watches_nothing_and_is_a_bracket_all_the_same():
    position = f.hold(plan={})
    assert f.bracket_of(position).status == "active"
    assert f.triggers_of(position) == {}


@pytest.mark.parametrize(
    ("path", "plan"),
    [
        ("stop_loss.price", {"stop_loss": {"price": "100"}}),
        ("stop_loss.price", {"stop_loss": {"price": "101"}}),
        ("take_profits.0.price", {"take_profits": [{"price": "99"}]}),
        ("stop_loss.distance", {"stop_loss": {"distance": "100"}}),
    ],
)
def test_a_plan_that_does_not_fit_leaves_nothing_behind(path, plan):
    with pytest.raises(InvalidPlan) as refused:
        f.hold(plan=plan)
    assert list(refused.value.problems) == [path]
    assert (Position.objects.count(), Bracket.objects.count(), Trigger.objects.count()) == (0, 0, 0)
    assert Event.objects.count() == 0


def test_a_second_live_plan_is_refused_and_the_first_stays():
    position = f.hold()
    with pytest.raises(IntegrityError, match="bracket_one_live_a_position"), transaction.atomic():
        create_bracket(
            position=position, chosen=ChosenPlan(parse_plan({"stop_loss": {"pct": "3"}}), given=True), now=f.utc_now()
        )
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "armed"}


def test_ending_a_bracket_takes_its_triggers_out_and_tells_it_once():
    position = f.hold()
    bracket = f.bracket_of(position)
    for _ in range(2):
        end_bracket(bracket, event=BracketEvent.CALLED_OFF, now=f.utc_now())
    assert f.triggers_of(position) == {"stop_loss": "cancelled", "take_profit_1": "cancelled"}
    assert Event.objects.filter(kind="bracket_cancelled", bracket_ref=bracket.pk).count() == 1
    assert Event.objects.get(kind="bracket_cancelled").position_ref == position.pk


def test_a_completed_bracket_is_not_called_off():
    position = f.hold()
    bracket = f.bracket_of(position)
    end_bracket(bracket, event=BracketEvent.POSITION_CLOSED, now=f.utc_now())
    with pytest.raises(IllegalMove):
        end_bracket(bracket, event=BracketEvent.CALLED_OFF, now=f.utc_now())
    assert f.read_again(bracket).status == "completed"


def test_the_journal_tells_what_was_armed():
    position = f.hold()
    kinds = list(Event.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["position_registered", "bracket_created", "bracket_armed"]
    armed = Event.objects.get(kind="bracket_armed")
    assert armed.data == {"entry_price": "100", "stop_price": "99", "target_prices": ["102"], "quantity": "10"}
    assert armed.position_ref == position.pk
