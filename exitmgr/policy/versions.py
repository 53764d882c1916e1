"""Versions of the configuration: drafted, validated, activated, rolled back, each step told in the journal.

One lock orders all changes; whoever decides on what is no longer in force is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import Max

from alerts.events import Happening, write_events
from exitmgr.models import PolicyVersion
from exitmgr.policy.current import in_force, local_now, look_again
from exitmgr.policy.documents import as_json, differences
from exitmgr.policy.layers import Sources
from exitmgr.policy.local import Local
from exitmgr.policy.schema import InvalidPolicy
from exitmgr.policy.validation import require_valid
from exitmgr.states import PolicyStatus
from positions.states import IllegalMove

#: Any constant will do, as long as nothing else in this database uses it.
_LOCK_KEY: Final = 0x706F_6C69
#: Stands for "whatever is in force when the change is made".
ANY: Final = -1


class PolicyRefused(IllegalMove):
    """A version was not changed; the message says why and what can be done."""


class PolicyChanged(PolicyRefused):
    """Another version went into force in the meantime."""


def create_draft(*, document: Any, now: datetime, actor: str, note: str = "") -> PolicyVersion:
    """Write a new version down; it may be wrong still, and changes nothing.

    :raises InvalidPolicy: it is no document at all.
    """
    if not isinstance(document, Mapping):
        raise InvalidPolicy({"document": "must be an object"})
    with transaction.atomic():
        _lock()
        number = (PolicyVersion.objects.aggregate(last=Max("number"))["last"] or 0) + 1
        version = PolicyVersion.objects.create(
            number=number, document=as_json(document), note=note, created_by=actor, created_at=now
        )
        _tell("policy_drafted", actor=actor, now=now, version=number, note=note)
    return version


def version_numbered(number: int) -> PolicyVersion:
    """Return a version.

    :raises PolicyVersion.DoesNotExist: there is none of this number.
    """
    found = PolicyVersion.objects.filter(number=number).first()
    if found is None:
        last = PolicyVersion.objects.aggregate(last=Max("number"))["last"]
        known = f"there are 1 to {last}" if last else "there is none yet; draft one"
        raise PolicyVersion.DoesNotExist(f"there is no configuration version {number}; {known}")
    return found


def active_version() -> PolicyVersion | None:
    """Return the version in force, None when the file alone is."""
    return PolicyVersion.objects.filter(status=PolicyStatus.ACTIVE).first()


def sources_with(version: PolicyVersion | None, *, now: datetime) -> Sources:
    """Return the layers as they would be with this version in force, or with none."""
    here = in_force(now=now).sources
    if version is None:
        return Sources(here.file, here.environment)
    return Sources(here.file, here.environment, version.document, version.number)


def diff(before: PolicyVersion | None, after: PolicyVersion | None, *, now: datetime) -> dict[str, tuple[Any, Any]]:
    """Return path -> (before, after) of what would differ between two versions; None is the file without any."""
    return differences(sources_with(before, now=now), sources_with(after, now=now))


def validate(number: int, *, now: datetime, actor: str) -> PolicyVersion:
    """Check a draft against the file and the environment, and note what is wrong; a good one may be activated.

    :raises PolicyVersion.DoesNotExist: there is none of this number.
    :raises PolicyRefused: it was in force already.
    """
    with transaction.atomic():
        _lock()
        version = version_numbered(number)
        if version.status not in (PolicyStatus.DRAFT, PolicyStatus.VALIDATED):
            raise PolicyRefused(f"version {number} is {version.status}; draft a new one to change anything")
        version.problems = _problems(version, _local(now))
        version.status = PolicyStatus.DRAFT if version.problems else PolicyStatus.VALIDATED
        version.save(update_fields=["problems", "status"])
        _tell("policy_validated", actor=actor, now=now, version=number, problems=version.problems)
    return version


def activate(number: int, *, now: datetime, actor: str, replaces: int | None = ANY) -> PolicyVersion:
    """Put a validated version, or one that was superseded, into force; the former one is superseded.

    `replaces` is the number of the version the decision was made against, None for the file alone.

    :raises PolicyVersion.DoesNotExist: there is none of this number.
    :raises PolicyChanged: another version than `replaces` is in force.
    :raises PolicyRefused: it is a draft, or in force already.
    :raises InvalidPolicy: it is not valid any more; nothing has changed.
    """
    with transaction.atomic():
        _lock()
        version, former = version_numbered(number), active_version()
        if former is not None and former.pk == version.pk:
            raise PolicyRefused(f"version {number} is in force already, since {former.activated_by} activated it")
        _require_unchanged(former, replaces)
        if version.status == PolicyStatus.DRAFT:
            raise PolicyRefused(f"version {number} is a draft; validate it first")
        local = _local(now)
        problems = _problems(version, local)
        if problems:
            raise InvalidPolicy(problems)
        again = version.status == PolicyStatus.SUPERSEDED
        _supersede(former, now=now)
        version.status, version.activated_by, version.activated_at = PolicyStatus.ACTIVE, actor, now
        version.superseded_at = None
        version.save(update_fields=["status", "activated_by", "activated_at", "superseded_at"])
        _tell_activated(former, version, local, actor=actor, now=now, rollback=again)
        transaction.on_commit(look_again, robust=True)
    return version


def rollback(*, now: datetime, actor: str, to: int | None = None, replaces: int | None = ANY) -> PolicyVersion | None:
    """Put a version that was in force before into force again; by default the one before the present one.

    When there was none before, the file alone is in force afterwards, and None is returned.

    :raises PolicyVersion.DoesNotExist: there is none of this number.
    :raises PolicyChanged: another version than `replaces` is in force.
    :raises PolicyRefused: no version is in force, or the one asked for never was.
    :raises InvalidPolicy: it is not valid any more; nothing has changed.
    """
    with transaction.atomic():
        _lock()
        former = active_version()
        _require_unchanged(former, replaces)
        superseded = PolicyVersion.objects.filter(status=PolicyStatus.SUPERSEDED)
        if to is not None:
            version = version_numbered(to)
            if version.status in (PolicyStatus.DRAFT, PolicyStatus.VALIDATED):
                raise PolicyRefused(f"version {to} was never in force; activate it instead")
            return activate(to, now=now, actor=actor)
        if former is None:
            raise PolicyRefused("no version is in force, so there is nothing to roll back from")
        before = superseded.order_by("-superseded_at").first()
        if before is not None:
            return activate(before.number, now=now, actor=actor)
        _supersede(former, now=now)
        _tell_activated(former, None, _local(now), actor=actor, now=now, rollback=True)
        transaction.on_commit(look_again, robust=True)
    return None


def problems_with(version: PolicyVersion, *, now: datetime) -> dict[str, str]:
    """Return what is wrong with a version over the file and environment in force."""
    return _problems(version, _local(now))


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_KEY])


def _local(now: datetime) -> Local:
    """Return what file and environment say, or what of them is in force while they are wrong."""
    try:
        return local_now()
    except InvalidPolicy:
        here = in_force(now=now).sources
        return Local(here.file, here.environment)


def _problems(version: PolicyVersion, local: Local) -> dict[str, str]:
    try:
        require_valid(version.document, file=local.file, environment=local.environment)
    except InvalidPolicy as error:
        return error.problems
    return {}


def _require_unchanged(former: PolicyVersion | None, replaces: int | None) -> None:
    found = None if former is None else former.number
    if replaces in (ANY, found):
        return
    now_there = f"version {found}, activated by {former.activated_by}," if former else "no version"
    wanted = "no version" if replaces is None else f"version {replaces}"
    raise PolicyChanged(f"{now_there} is in force, not {wanted}; look at what differs and decide again")


def _supersede(version: PolicyVersion | None, *, now: datetime) -> None:
    if version is not None:
        version.status, version.superseded_at = PolicyStatus.SUPERSEDED, now
        version.save(update_fields=["status", "superseded_at"])


def _tell_activated(
    former: PolicyVersion | None, version: PolicyVersion | None, local: Local, *,
    actor: str, now: datetime, rollback: bool,
) -> None:  # fmt: skip
    was, becomes = (
        Sources(local.file, local.environment, one.document if one else {}, one.number if one else None)
        for one in (former, version)
    )
    changes = {
        path: {"before": as_json(before), "after": as_json(after)}
        for path, (before, after) in differences(was, becomes).items()
    }
    _tell(
        "policy_activated",
        actor=actor,
        now=now,
        version=version.number if version else None,
        replaced=former.number if former else None,
        rollback=rollback,
        note=version.note if version else "",
        changes=changes,
    )


def _tell(kind: str, *, actor: str, now: datetime, **data: Any) -> None:
    write_events([Happening(kind=kind, actor=actor, data=data)], now=now)
