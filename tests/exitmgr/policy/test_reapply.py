"""A version and the positions that are open: shown before, applied on a person's word, never to a person's own plan."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from alerts.models import Event
from exitmgr.models import Bracket, PolicyVersion
from exitmgr.plan_edits import change_plan
from exitmgr.policy import reapply as reapplying
from exitmgr.policy import versions
from exitmgr.policy.plan_choice import choose_plan, range_terms
from exitmgr.policy.reapply import preview, reapply
from exitmgr.policy.schema import Policy
from exitmgr.policy.versions import PolicyRefused
from exitmgr.rules.plan import parse_plan, plan_as_json
from positions.models import Position
from tests import factories as f

D = Decimal

pytestmark = pytest.mark.django_db(transaction=True)

WIDER = {"exit_manager": {"stop_loss": {"threshold_pct": "3"}, "profit_taking": {"threshold_pct": "6"}}}


@pytest.fixture(autouse=True)
def silent_bells(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("orders.lanes.ring", "exitmgr.brackets.ring"):
        monkeypatch.setattr(place, lambda *_args, **_options: True)


def holding(*, from_policy: bool = True, plan: Any = None, **how: Any) -> Position:
    position = f.hold(plan=plan or f.PLAN, **how)
    Bracket.objects.filter(position=position).update(from_policy=from_policy)
    return position


def drafted(document: dict[str, Any]) -> PolicyVersion:
    return versions.create_draft(document=document, now=f.utc_now(), actor="ann")


def activated(document: dict[str, Any]) -> PolicyVersion:
    number = drafted(document).number
    versions.validate(number, now=f.utc_now(), actor="ann")
    return versions.activate(number, now=f.utc_now(), actor="ann")


def plan_of(position: Position) -> Any:
    return f.bracket_of(position).plan


def test_a_preview_shows_what_would_change_and_changes_nothing() -> None:
    f.set_quote("101")
    long, same = holding(), holding(plan={"stop_loss": {"pct": "3"}, "take_profits": [{"pct": "6"}]})
    own, gone = holding(from_policy=False), holding()
    Position.objects.filter(pk=gone.pk).update(status="closed", closed_at=f.utc_now(), exited=10)
    before = list(Bracket.objects.order_by("pk").values())
    shown = preview(drafted(WIDER), now=f.utc_now())
    assert [(one.position_id, one.changes) for one in shown] == [(long.pk, True), (same.pk, False)]
    first = shown[0]
    assert (first.symbol, first.account, first.price) == ("AAPL", long.account.name, D(101))
    assert (first.stop_before, first.stop_after) == (D(99), D(97))
    assert (first.targets_before, first.targets_after) == ((D(102),), (D(106),))
    assert (first.would_fire, first.problem) == ((), "")
    assert list(Bracket.objects.order_by("pk").values()) == before
    assert plan_of(own) == f.PLAN


def test_a_preview_tells_what_would_be_sold_at_once() -> None:
    f.set_quote("98")
    holding(plan={"stop_loss": {"pct": "5"}})
    (shown,) = preview(drafted({}), now=f.utc_now())
    assert shown.would_fire == ("stop_loss",)


def test_a_version_that_is_wrong_is_not_previewed() -> None:
    with pytest.raises(PolicyRefused, match=r"version 1 is not valid: exit_manager.retry_attempts: must be a whole"):
        preview(drafted({"exit_manager": {"retry_attempts": 0}}), now=f.utc_now())


def test_positions_follow_when_the_version_is_applied_again() -> None:
    f.set_quote("101")
    first, second, own = holding(), holding(), holding(from_policy=False)
    overriding = holding()
    Bracket.objects.filter(position=overriding).update(
        overrides={"exit_manager": {"stop_loss": {"threshold_pct": "2"}}}
    )
    version = activated(WIDER)
    assert plan_of(first) == f.PLAN
    done = reapply(version, now=f.utc_now(), actor="ann")
    assert [(one.position_id, one.applied, one.why) for one in done] == [
        (first.pk, True, ""), (second.pk, True, ""), (overriding.pk, True, ""),
    ]  # fmt: skip
    wider = {"stop_loss": {"pct": "3"}, "take_profits": [{"pct": "6"}]}
    assert [plan_of(one) for one in (first, second, own)] == [wider, wider, f.PLAN]
    assert plan_of(overriding)["stop_loss"] == {"pct": "2"}
    bracket = f.bracket_of(first)
    assert (bracket.stop_price, bracket.policy_version_id, bracket.from_policy) == (D(97), version.pk, True)
    assert first.triggers.get(slot="stop_loss", status="armed").level == D(97)
    told = Event.objects.get(kind="plan_changed", position_ref=first.pk)
    assert (told.actor, told.data["note"]) == ("ann", "configuration: version 1")
    again = reapply(version, now=f.utc_now(), actor="ann")
    assert [(one.applied, one.why) for one in again] == [(False, "same plan")] * 3
    assert Event.objects.filter(kind="plan_changed").count() == 3


def test_only_the_brackets_that_were_named_follow() -> None:
    f.set_quote("101")
    first, second = holding(), holding()
    version = activated(WIDER)
    done = reapply(version, now=f.utc_now(), actor="ann", bracket_ids=[f.bracket_of(second).pk])
    assert [one.position_id for one in done] == [second.pk]
    assert plan_of(first) == f.PLAN


def test_what_would_sell_at_once_needs_a_confirmation() -> None:
    f.set_quote("98")
    position = holding(plan={"stop_loss": {"pct": "5"}})
    version = activated({"exit_manager": {"profit_taking": {"enabled": False}}})
    (kept,) = reapply(version, now=f.utc_now(), actor="ann")
    assert (kept.applied, kept.why) == (
        False,
        "it would leave the position at once (stop_loss); confirm it if that is meant",
    )
    assert plan_of(position) == {"stop_loss": {"pct": "5"}}
    (changed,) = reapply(version, now=f.utc_now(), actor="ann", confirm=True)
    assert changed.applied
    assert plan_of(position) == {"stop_loss": {"pct": "1"}}


def test_only_what_is_in_force_is_applied() -> None:
    position = holding()
    with pytest.raises(PolicyRefused, match="version 1 is not in force, the file alone is; activate it first"):
        reapply(drafted(WIDER), now=f.utc_now(), actor="ann")
    activated(WIDER)
    with pytest.raises(PolicyRefused, match="the file alone is not in force, version 2 is; activate it first"):
        reapply(None, now=f.utc_now(), actor="ann")
    assert plan_of(position) == f.PLAN


def test_a_plan_that_a_person_changed_is_theirs_from_then_on() -> None:
    f.set_quote("101")
    position = holding()
    change_plan(position_id=position.pk, plan=parse_plan({"stop_loss": {"pct": "4"}}), now=f.utc_now(), actor="eve")
    assert preview(drafted(WIDER), now=f.utc_now()) == []


def test_a_plan_is_chosen_by_account_symbol_and_position() -> None:
    version = activated({**WIDER, "symbols": {"BTC/USD": {"trade_exit": {"session_close": {}, "mode": "atr"}}}})
    apple = f.make_instrument("AAPL")
    coin = f.make_instrument("BTC/USD", calendar="24/7")
    chosen = choose_plan(account="paper", instrument=apple, now=f.utc_now())
    assert plan_as_json(chosen.plan) == {"stop_loss": {"pct": "3"}, "take_profits": [{"pct": "6"}]}
    assert (chosen.notes, chosen.version_id) == ((), version.pk)
    around_the_clock = choose_plan(account="paper", instrument=coin, now=f.utc_now())
    assert plan_as_json(around_the_clock.plan) == {
        "stop_loss": {"atr": {"period": 14, "multiple": "2"}}, "take_profits": [{"rr": "1.5"}],
    }  # fmt: skip
    assert around_the_clock.notes == (
        "take_profits.0.rr: the base ratio of 1.5",
        "session_close: left out, as the instrument trades around the clock",
    )


def test_a_market_that_cannot_be_read_leaves_the_base_ratio() -> None:
    activated({"trade_exit": {"mode": "atr", "risk_reward": {"strategy": "market_condition", "base_ratio": "1.7"}}})
    chosen = choose_plan(account="paper", instrument=f.make_instrument(), now=f.utc_now())
    assert chosen.plan.take_profits[0].rr == D("1.7")
    assert chosen.notes[0].startswith(
        "take_profits.0.rr: the base ratio of 1.7, as the market condition is not known: "
    )


def test_ranges_are_measured_as_configured() -> None:
    assert range_terms(Policy()) == {"bar_seconds": 86_400, "estimator": "atr", "fallback_pct": D(2)}


def test_a_plan_that_a_person_gives_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    f.set_quote("101")
    position = holding()
    version = activated(WIDER)
    by_hand = parse_plan({"stop_loss": {"price": "90"}})
    chosen = reapplying._chosen

    def slowly(*args: Any, **options: Any) -> Any:
        change_plan(position_id=position.pk, plan=by_hand, now=f.utc_now(), actor="bob")
        return chosen(*args, **options)

    monkeypatch.setattr(reapplying, "_chosen", slowly)
    (left,) = reapply(version, now=f.utc_now(), actor="ann")
    assert not left.applied
    assert plan_of(position) == {"stop_loss": {"price": "90"}}
    assert not f.bracket_of(position).from_policy
