"""Which difference is answered how; one place, so that the table of answers can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from alerts.models import Severity
from exitmgr.models import Difference as Row
from exitmgr.reconcile.adoption import take_up_holding
from exitmgr.reconcile.differences import Difference, Kind, Theirs
from exitmgr.reconcile.freezing import freeze_positions
from exitmgr.reconcile.lost_orders import GONE_AFTER, end_ghost, take_up_orphan
from exitmgr.reconcile.outside_trades import follow_reduction
from exitmgr.reconcile.sightings import is_settled, tell
from orders.brokers.protocol import Broker
from positions.models import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A difference with everything an answer to it may need."""

    difference: Difference
    row: Row
    account: Account
    broker: Broker
    theirs: Theirs
    now: datetime
    actor: str


def handle(case: Case) -> str | None:
    """Do what a difference asks for once it has settled, and say what was done; None while it is waited with.

    What looks like a split or a flipped side freezes its positions at once: a false stop cannot be taken back.
    """
    kind = case.difference.kind
    if kind in _AT_ONCE:
        return _AT_ONCE[kind](case)
    wait = {"after": GONE_AFTER} if kind is Kind.GHOST else {}
    if not is_settled(case.row, now=case.now, **wait):
        return None
    return _ANSWERS.get(kind, _note)(case)


def _freeze(case: Case) -> str:
    one = case.difference
    why, title, message = _WORDS[one.kind]
    told = {"symbol": one.symbol, "account": case.account.name, **one.figures}
    freeze_positions(one.position_ids, why=f"{one.key} {why.format(**told)}", now=case.now, actor=case.actor)
    if case.row.handled_at is None:
        _tell(case, title.format(**told), message.format(**told))
    return "frozen, and told a person"


_WORDS: Final[Mapping[Kind, tuple[str, str, str]]] = {
    Kind.SPLIT: (
        "looks split {ratio} at the broker",
        "{symbol} in {account} looks split {ratio}; its positions are frozen",
        "The broker holds {there} at {average_there}, we held {here} at {average_here}. No trigger fires until it is "
        "settled. If it is a split: manage.py reconcile split {symbol} {ratio}. If not: correct the holding "
        "at the broker, or manage.py reconcile release POSITION.",
    ),
    Kind.SIDE_FLIPPED: (
        "is held the other way round at the broker",
        "{symbol} in {account} is held the other way round at the broker; its positions are frozen",
        "The broker holds {there}, we hold {here}: an exit would make it more, not less, so none is sent. Close or "
        "turn the holding at the broker; our positions follow.",
    ),
}


def _tell_torn(case: Case) -> str:
    """Nobody knows whose the difference is, and each position has its own stop: a person decides."""
    figures = case.difference.figures
    return _tell(
        case,
        f"{case.difference.symbol} in {case.account.name}: the broker does not hold the sum of our longs and shorts",
        f"The broker holds {figures['there']}, our positions come to {figures['here']}. Nobody can say which of them "
        "changed: correct it at the broker.",
    )


def _follow_reduction(case: Case) -> str | None:
    if case.difference.kind is Kind.REDUCED_OUTSIDE and case.difference.figures.get("frozen"):
        return _tell_frozen(case)
    return follow_reduction(case.difference, account_id=case.account.pk, now=case.now, actor=case.actor)


def _take_up_holding(case: Case) -> str:
    if case.difference.figures.get("frozen"):
        return _tell_frozen(case)
    return take_up_holding(case.difference, account=case.account, broker=case.broker, now=case.now, actor=case.actor)


def _tell_frozen(case: Case) -> str:
    figures = case.difference.figures
    return _tell(
        case,
        f"{case.difference.symbol} in {case.account.name} is frozen, and the broker holds another quantity",
        f"The broker holds {figures['there']}, we hold {figures['here']}. Settle first why it is frozen.",
    )


def _take_up_orphan(case: Case) -> str:
    return take_up_orphan(case.difference, account=case.account, broker=case.broker, now=case.now, actor=case.actor)


def _end_ghost(case: Case) -> str | None:
    return end_ghost(case.difference, account_id=case.account.pk, theirs=case.theirs, now=case.now)


def _tell_blocked(case: Case) -> str:
    title = f"The broker has blocked {case.account.name}"
    return _tell(case, title, "It takes no orders, exits included. Ask the broker.")


def _note(_case: Case) -> str:
    return "noted"


def _tell(case: Case, title: str, message: str) -> str:
    tell(
        case.difference,
        account_id=case.account.pk,
        title=title,
        message=message,
        severity=Severity.CRITICAL,
        now=case.now,
    )
    return "told a person"


_AT_ONCE: Final[Mapping[Kind, Callable[[Case], str | None]]] = {Kind.SPLIT: _freeze, Kind.SIDE_FLIPPED: _freeze}
_ANSWERS: Final[Mapping[Kind, Callable[[Case], str | None]]] = {
    Kind.TORN: _tell_torn,
    Kind.CLOSED_OUTSIDE: _follow_reduction,
    Kind.REDUCED_OUTSIDE: _follow_reduction,
    Kind.UNKNOWN_HOLDING: _take_up_holding,
    Kind.SURPLUS: _take_up_holding,
    Kind.ORPHAN: _take_up_orphan,
    Kind.GHOST: _end_ghost,
    Kind.ACCOUNT_BLOCKED: _tell_blocked,
}
