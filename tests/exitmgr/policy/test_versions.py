"""Versions: drafted, validated, activated, rolled back; an invalid one never goes live, and of two at once one wins."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from alerts.models import Event
from exitmgr.models import PolicyVersion
from exitmgr.policy import versions
from exitmgr.policy.current import look_again, policy_for
from exitmgr.policy.schema import InvalidPolicy
from exitmgr.policy.versions import PolicyChanged, PolicyRefused
from exitmgr.states import PolicyStatus
from tests.factories import read_again, utc_now
from tests.races.crowd import at_once

D = Decimal

Write = Callable[[str], None]


def stop(pct: str) -> dict[str, Any]:
    return {"exit_manager": {"stop_loss": {"threshold_pct": pct}}}


def draft(document: Any, note: str = "") -> int:
    return versions.create_draft(document=document, note=note, now=utc_now(), actor="ann").number


def validated(document: Any) -> int:
    number = draft(document)
    assert versions.validate(number, now=utc_now(), actor="ann").problems == {}
    return number


def activated(document: Any) -> int:
    return versions.activate(validated(document), now=utc_now(), actor="ann").number


def statuses() -> list[str]:
    return list(PolicyVersion.objects.order_by("number").values_list("status", flat=True))


def stop_in_force() -> D:
    look_again()
    return policy_for(account="", symbol="", now=utc_now()).exit_manager.stop_loss.threshold_pct


@pytest.mark.django_db
def test_a_version_from_its_draft_to_its_end() -> None:
    first = draft(stop("1.50"), note="wider")
    assert stop_in_force() == D(1)
    versions.validate(first, now=utc_now(), actor="bob")
    assert stop_in_force() == D(1)
    shown = versions.activate(first, now=utc_now(), actor="bob")
    assert (shown.number, shown.status, shown.activated_by, shown.document) == (1, "active", "bob", stop("1.50"))
    assert stop_in_force() == D("1.5")
    second = activated({**stop("2"), "trade_exit": {"mode": "atr"}})
    assert statuses() == ["superseded", "active"]
    assert PolicyVersion.objects.get(number=first).superseded_at is not None
    told = list(Event.objects.order_by("pk").values_list("kind", "actor", "data"))
    assert [kind for kind, _, _ in told] == ["policy_drafted", "policy_validated", "policy_activated"] * 2
    assert told[2][1:] == (
        "bob",
        {"version": 1, "replaced": None, "rollback": False, "note": "wider",
         "changes": {"exit_manager.stop_loss.threshold_pct": {"before": "1", "after": "1.5"}}},
    )  # fmt: skip
    assert told[5][2] == {
        "version": second, "replaced": 1, "rollback": False, "note": "",
        "changes": {"exit_manager.stop_loss.threshold_pct": {"before": "1.5", "after": "2"},
                    "trade_exit.mode": {"before": "percent", "after": "atr"}},
    }  # fmt: skip


@pytest.mark.django_db
def test_a_wrong_draft_stays_a_draft_and_says_why() -> None:
    number = draft(stop("0"))
    shown = versions.validate(number, now=utc_now(), actor="ann")
    wrong = {"exit_manager.stop_loss.threshold_pct": "must be a number above 0 and at most 99; got '0'"}
    assert (shown.status, shown.problems) == ("draft", wrong)
    with pytest.raises(PolicyRefused, match="version 1 is a draft; validate it first"):
        versions.activate(number, now=utc_now(), actor="ann")
    assert statuses() == ["draft"]
    assert Event.objects.filter(kind="policy_activated").count() == 0


@pytest.mark.django_db
def test_what_is_no_document_is_not_even_a_draft() -> None:
    with pytest.raises(InvalidPolicy, match="document: must be an object"):
        draft([1])
    assert statuses() == []


@pytest.mark.django_db
def test_a_version_is_checked_again_when_it_is_activated(write_file: Write) -> None:
    number = validated({"trade_exit": {"risk_reward": {"max_ratio": "2"}}})
    write_file("trade_exit: {risk_reward: {min_ratio: 2.5}}")
    with pytest.raises(InvalidPolicy) as caught:
        versions.activate(number, now=utc_now(), actor="ann")
    assert caught.value.problems == {"trade_exit.risk_reward.min_ratio": "must not be above max_ratio (2); got 2.5"}
    assert statuses() == ["validated"]
    assert Event.objects.filter(kind="policy_activated").count() == 0
    assert versions.validate(number, now=utc_now(), actor="ann").status == PolicyStatus.DRAFT


@pytest.mark.django_db
def test_rolling_back_activates_what_was_before() -> None:
    first, second, third = activated(stop("2")), activated(stop("3")), activated(stop("4"))
    back = versions.rollback(now=utc_now(), actor="eve")
    assert back is not None
    assert (back.number, stop_in_force()) == (second, D(3))
    assert statuses() == ["superseded", "active", "superseded"]
    versions.rollback(to=first, now=utc_now(), actor="eve")
    assert stop_in_force() == D(2)
    assert statuses() == ["active", "superseded", "superseded"]
    told = Event.objects.filter(kind="policy_activated").order_by("pk").last()
    assert told is not None
    assert (told.actor, told.data["version"], told.data["replaced"], told.data["rollback"]) == ("eve", 1, 2, True)
    with pytest.raises(PolicyRefused, match="version 1 is in force already, since eve activated it"):
        versions.rollback(to=first, now=utc_now(), actor="eve")
    assert third == 3


@pytest.mark.django_db
def test_rolling_back_the_first_version_leaves_the_file_alone() -> None:
    activated(stop("2"))
    assert versions.rollback(now=utc_now(), actor="eve") is None
    assert statuses() == ["superseded"]
    assert stop_in_force() == D(1)
    told = Event.objects.filter(kind="policy_activated").order_by("pk").last()
    assert told is not None
    assert told.data["changes"] == {"exit_manager.stop_loss.threshold_pct": {"before": "2", "after": "1"}}
    with pytest.raises(PolicyRefused, match="no version is in force, so there is nothing to roll back from"):
        versions.rollback(now=utc_now(), actor="eve")


@pytest.mark.django_db
def test_only_what_was_in_force_is_rolled_back_to() -> None:
    number = validated(stop("2"))
    with pytest.raises(PolicyRefused, match="version 1 was never in force; activate it instead"):
        versions.rollback(to=number, now=utc_now(), actor="eve")
    with pytest.raises(PolicyVersion.DoesNotExist, match="there is no configuration version 9; there are 1 to 1"):
        versions.rollback(to=9, now=utc_now(), actor="eve")
    assert statuses() == ["validated"]


@pytest.mark.django_db
def test_a_version_that_was_in_force_is_not_validated_again() -> None:
    number = activated(stop("2"))
    with pytest.raises(PolicyRefused, match="version 1 is active; draft a new one to change anything"):
        versions.validate(number, now=utc_now(), actor="ann")


@pytest.mark.django_db
def test_differences_between_versions_and_the_file(write_file: Write) -> None:
    write_file("exit_manager: {stop_loss: {threshold_pct: 1.5}}")
    first, second = draft(stop("1.5")), draft({"exit_manager": {"retry_attempts": 5}})
    numbered = versions.version_numbered
    assert versions.diff(None, numbered(first), now=utc_now()) == {}
    assert versions.diff(numbered(first), numbered(second), now=utc_now()) == {
        "exit_manager.retry_attempts": ("3", "5")
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("_case", "change", "refusal"),
    [
        ("from draft to active", {"status": "active"}, "Invalid transition"),
        ("validated with problems", {"status": "validated"}, "policy_active_has_no_problems"),
        ("an unknown status", {"status": "live"}, "Invalid transition|policy_status_is_known"),
    ],
)
def test_the_database_refuses(_case: str, change: dict[str, Any], refusal: str) -> None:
    number = draft(stop("0"))
    versions.validate(number, now=utc_now(), actor="ann")
    with pytest.raises(DatabaseError, match=refusal), transaction.atomic():
        PolicyVersion.objects.filter(number=number).update(**change)
    assert statuses() == ["draft"]


@pytest.mark.django_db
def test_the_database_refuses_a_second_active_version_and_one_without_its_time() -> None:
    activated(stop("2"))
    other = PolicyVersion.objects.get(number=validated(stop("3")))
    with pytest.raises(DatabaseError, match="policy_active_has_its_time"), transaction.atomic():
        PolicyVersion.objects.filter(pk=other.pk).update(status="active")
    with pytest.raises(DatabaseError, match="policy_one_active"), transaction.atomic():
        PolicyVersion.objects.filter(pk=other.pk).update(status="active", activated_at=utc_now())
    assert read_again(other).status == PolicyStatus.VALIDATED


@pytest.mark.django_db(transaction=True)
def test_of_two_activations_at_once_one_wins_and_the_other_is_told() -> None:
    active = activated(stop("2"))
    numbers = [validated(stop("3")), validated(stop("4"))]

    def going(number: int) -> Callable[[], PolicyVersion]:
        return lambda: versions.activate(number, replaces=active, now=utc_now(), actor=f"person {number}")

    ends = at_once(*(going(number) for number in numbers))
    won = [end for end in ends if isinstance(end, PolicyVersion)]
    lost = [end for end in ends if isinstance(end, Exception)]
    assert (len(won), len(lost)) == (1, 1)
    assert isinstance(lost[0], PolicyChanged)
    assert str(lost[0]) == (
        f"version {won[0].number}, activated by person {won[0].number}, is in force, not version {active}; "
        "look at what differs and decide again"
    )
    assert statuses().count("active") == 1
    assert versions.active_version() == won[0]
    assert Event.objects.filter(kind="policy_activated").count() == 2


@pytest.mark.django_db(transaction=True)
def test_drafts_made_at_once_are_numbered_one_after_the_other() -> None:
    ends = at_once(*[lambda: draft(stop("2"))] * 6)
    assert sorted(end for end in ends if isinstance(end, int)) == [1, 2, 3, 4, 5, 6]
