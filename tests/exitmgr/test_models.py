"""What the database refuses of brackets and triggers, and the ways their states may move."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import DatabaseError, transaction

from exitmgr.models import Bracket, Trigger
from exitmgr.states import BRACKET_MOVES, TRIGGER_MOVES, BracketStatus, TriggerStatus
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


def refused(call, *, by):
    """Run a call that the database must refuse by the constraint or trigger of this name."""
    with pytest.raises(DatabaseError, match=by), transaction.atomic():
        call()


def bare_bracket(**fields):
    """Insert a bracket past every rule but the database's own."""
    return Bracket.objects.create(**{"plan": {}, "created_at": f.utc_now()} | fields)


@pytest.mark.parametrize("status", ["pending", "active", "error"])
def test_one_live_bracket_a_position(status):
    position = f.hold()
    refused(lambda: bare_bracket(position=position, status=status), by="bracket_one_live_a_position")
    bare_bracket(position=position, status="cancelled")
    assert Bracket.objects.filter(position=position).count() == 2


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("bracket_belongs_to_something", {}),
        ("bracket_status_is_known|bracket_active_has", {"status": "asleep", "entry": True}),
        ("bracket_active_has_a_position", {"status": "active", "entry": True}),
        ("bracket_stop_is_positive", {"stop_price": D(0), "entry": True}),
    ],
)
def test_an_impossible_bracket_is_refused(constraint, fields):
    entry = f.raw_order(f.hold(), intent="entry") if fields.pop("entry", False) else None
    refused(lambda: bare_bracket(entry_order=entry, **fields), by=constraint)


def test_one_bracket_an_entry():
    entry = f.entry_order()
    refused(lambda: bare_bracket(entry_order=entry), by="entry_order")


def bare_trigger(position, **fields):
    """Insert a level trigger past every rule but the database's own."""
    wanted = {
        "bracket": f.bracket_of(position),
        "position": position,
        "instrument": position.instrument,
        "kind": "level",
        "basis": "bid",
        "direction": "fall",
        "level": D(90),
        "reason": "trailing_stop",
        "urgency": 10,
        "armed_at": f.utc_now(),
    }
    return Trigger.objects.create(**wanted | fields)


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("trigger_has_what_its_kind_needs", {"level": None}),
        ("trigger_has_what_its_kind_needs", {"level": D(0)}),
        ("trigger_has_what_its_kind_needs", {"kind": "trail"}),
        ("trigger_has_what_its_kind_needs", {"kind": "trail", "offset_pct": D(-1)}),
        ("trigger_has_what_its_kind_needs", {"kind": "timer"}),
        ("trigger_fraction_is_a_percentage", {"fraction_pct": D(0)}),
        ("trigger_fraction_is_a_percentage", {"fraction_pct": D("100.1")}),
        ("trigger_fired_has_its_order", {"status": "fired"}),
        ("trigger_has_what_its_kind_needs", {"kind": "trail", "offset": D(-1)}),
        ("trigger_has_what_its_kind_needs", {"kind": "trail", "offset": D(1), "offset_pct": D(1)}),
        ("trigger_waits_for_something", {"status": "waiting"}),
        ("trigger_one_live_a_slot", {"slot": "stop_loss"}),
        ("trigger_one_live_a_slot", {"slot": "stop_loss", "status": "breached"}),
        ("trigger_one_live_a_slot", {"slot": "stop_loss", "status": "waiting", "after": "take_profit_1"}),
    ],
)
def test_an_impossible_trigger_is_refused(constraint, fields):
    position = f.hold()
    refused(lambda: bare_trigger(position, **fields), by=constraint)
    assert f.triggers_of(position) == {"stop_loss": "armed", "take_profit_1": "armed"}


def test_a_bracket_moves_only_as_its_table_says():
    position = f.hold()
    Trigger.objects.all().delete()
    Bracket.objects.all().delete()
    allowed = {(old, new) for (old, _), new in BRACKET_MOVES.items()}
    for before in BracketStatus:
        for after in BracketStatus:
            bracket = bare_bracket(position=position, status=before)
            if (before, after) in allowed or before == after:
                Bracket.objects.filter(pk=bracket.pk).update(status=after)
                assert f.read_again(bracket).status == after
            else:
                refused(
                    lambda bracket=bracket, after=after: Bracket.objects.filter(pk=bracket.pk).update(status=after),
                    by="Invalid transition",
                )
            Bracket.objects.filter(pk=bracket.pk).delete()


def test_a_trigger_moves_only_as_its_table_says():
    position = f.hold()
    order = f.raw_order(position)
    for before in TriggerStatus:
        for after in TriggerStatus:
            made = {"status": before, "after": "take_profit_1", "order": order, "fired_at": f.utc_now()}
            trigger = bare_trigger(position, **made)
            rows = Trigger.objects.filter(pk=trigger.pk)
            if (before, after) in TRIGGER_MOVES or before == after:
                assert rows.update(status=after) == 1
            else:
                refused(lambda rows=rows, after=after: rows.update(status=after), by="Invalid transition")
                assert f.read_again(trigger).status == before
            rows.delete()
