"""What a version means for positions that are open: shown first, applied on a person's word.

Only plans that the configuration gave are touched; a plan that a person gave stays theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import QuerySet

from exitmgr.models import Bracket, PolicyVersion
from exitmgr.plan_edits import PlanRefused, change_plan, preview_plan
from exitmgr.plan_previews import PlanPreview
from exitmgr.policy.current import InForce
from exitmgr.policy.plan_choice import ChosenPlan, choose_plan
from exitmgr.policy.versions import PolicyRefused, active_version, problems_with, sources_with
from exitmgr.rules.plan import InvalidPlan, plan_as_json
from exitmgr.states import BracketStatus
from positions.models import Position
from positions.states import PositionStatus

_ARMED = (BracketStatus.ACTIVE, BracketStatus.ERROR)


@dataclass(frozen=True, kw_only=True)
class BracketPreview:
    """What a version would change about one open position; `problem` says why it cannot be applied to it."""

    bracket_id: int
    position_id: int
    account: str
    symbol: str
    changes: bool
    stop_before: Decimal | None = None
    stop_after: Decimal | None = None
    targets_before: tuple[Decimal, ...] = ()
    targets_after: tuple[Decimal, ...] = ()
    price: Decimal | None = None
    would_fire: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Reapplied:
    """What became of one bracket: `applied`, or the reason why not."""

    bracket_id: int
    position_id: int
    applied: bool
    why: str = ""


def preview(version: PolicyVersion | None, *, now: datetime) -> list[BracketPreview]:
    """Return what applying a version (None: the file alone) to the open positions would change, one by one.

    :raises PolicyRefused: the version is not valid.
    """
    policies = _policies(version, now=now)
    return [
        _preview(bracket, position, _chosen(bracket, position, policies, now=now), now=now)
        for bracket, position in _open_brackets()
    ]


def reapply(
    version: PolicyVersion | None,
    *,
    now: datetime,
    actor: str,
    bracket_ids: Collection[int] | None = None,
    confirm: bool = False,
) -> list[Reapplied]:
    """Give open positions, all or those of some brackets, the plan of the version in force; one by one.

    What would sell at once is left as it is unless confirmed.

    :raises PolicyRefused: the version is not the one in force.
    """
    active = active_version()
    if (active and active.pk) != (version and version.pk):
        raise PolicyRefused(f"{_called(version)} is not in force, {_called(active)} is; activate it first")
    policies = _policies(version, now=now)
    done: list[Reapplied] = []
    for bracket, position in _open_brackets(bracket_ids):
        chosen = _chosen(bracket, position, policies, now=now)
        if plan_as_json(chosen.plan) == bracket.plan:
            Bracket.objects.filter(pk=bracket.pk).update(policy_version=chosen.version_id)
            done.append(Reapplied(bracket_id=bracket.pk, position_id=position.pk, applied=False, why="same plan"))
            continue
        try:
            changed, _ = change_plan(
                position_id=position.pk, plan=chosen.plan, now=now, actor=actor, confirm=confirm, based_on=bracket.plan,
                note=f"configuration: {_called(version)}",
            )  # fmt: skip
        except (PlanRefused, InvalidPlan) as error:
            done.append(Reapplied(bracket_id=bracket.pk, position_id=position.pk, applied=False, why=str(error)))
            continue
        Bracket.objects.filter(pk=changed.pk).update(policy_version=chosen.version_id, from_policy=True)
        done.append(Reapplied(bracket_id=bracket.pk, position_id=position.pk, applied=True))
    return done


def _policies(version: PolicyVersion | None, *, now: datetime) -> InForce:
    problems = problems_with(version, now=now) if version else {}
    if problems:
        first = "; ".join(f"{path}: {text}" for path, text in list(problems.items())[:3])
        raise PolicyRefused(f"{_called(version)} is not valid: {first}")
    return InForce(sources_with(version, now=now), version.pk if version else None)


def _open_brackets(bracket_ids: Collection[int] | None = None) -> Iterator[tuple[Bracket, Position]]:
    found: QuerySet[Bracket] = Bracket.objects.filter(from_policy=True, status__in=_ARMED, position__isnull=False)
    if bracket_ids is not None:
        found = found.filter(pk__in=bracket_ids)
    found = found.exclude(position__status=PositionStatus.CLOSED).select_related(
        "position__instrument", "position__account"
    )
    for bracket in found.defer("position__account__credentials").order_by("pk"):
        if bracket.position is not None:
            yield bracket, bracket.position


def _chosen(bracket: Bracket, position: Position, policies: InForce, *, now: datetime) -> ChosenPlan:
    return choose_plan(
        account=position.account.name, instrument=position.instrument, now=now, overrides=bracket.overrides,
        policies=policies,
    )  # fmt: skip


def _preview(bracket: Bracket, position: Position, chosen: ChosenPlan, *, now: datetime) -> BracketPreview:
    told: PlanPreview | None = None
    problem = ""
    try:
        told = preview_plan(position, chosen.plan, now=now)
    except InvalidPlan as error:
        problem = str(error)
    return BracketPreview(
        bracket_id=bracket.pk,
        position_id=position.pk,
        account=position.account.name,
        symbol=position.instrument.symbol,
        changes=plan_as_json(chosen.plan) != bracket.plan,
        stop_before=told.stop_before if told else bracket.stop_price,
        stop_after=told.stop_after if told else None,
        targets_before=told.targets_before if told else (),
        targets_after=told.targets_after if told else (),
        price=told.price if told else None,
        would_fire=told.would_fire if told else (),
        problem=problem,
    )


def _called(version: PolicyVersion | None) -> str:
    return f"version {version.number}" if version else "the file alone"
