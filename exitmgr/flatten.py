"""Leaving everything an account holds, a batch at a time; whoever calls again goes on where a crash stopped it.

A person's wish to hold nothing is a row; each second goes on with it until nothing is held or it is called off.
Locks: that row, then positions and orders in their usual order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Exists, F, OuterRef, Q

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.account_models import Flatten
from exitmgr.exits import HUNDRED, ExitIntent, leg_of, make_exits
from exitmgr.probes import snapshots_of
from exitmgr.rules.types import Decision, ExitReason, urgency_of
from exitmgr.switches import SwitchRefused, effective_state, flatten_key, lock_switch, required_note, standing_wishes
from orders.brokers.protocol import OrderType
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Lane, Order
from orders.states import LIVE, OrderState
from positions.locks import lock_positions
from positions.models import Account, Position
from positions.states import PositionStatus
from positions.values import Side, TradingState, tradable_basis

log = logging.getLogger(__name__)

POSITIONS_AT_ONCE: Final = 250
#: Orders one call asks to end, so that nobody waits long for it; the next call goes on.
CANCELS_AT_ONCE: Final = 100
#: An exit that ended unfilled was retried and has called a person; it is tried again after this long.
AGAIN_AFTER: Final = timedelta(seconds=60)
#: What a person types to leave everything in all accounts; for one account it is its name.
EVERYTHING: Final = "everything"

#: Unsent, and working at the broker: each has an index of its own. What is just being sent is met by the next call.
_CANCELLABLE: Final = ((OrderState.PENDING,), (OrderState.PARTIALLY_FILLED, OrderState.SUBMITTED))
_UNFILLED: Final = (OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one batch did: exits made, and the last position it looked at while there may be more."""

    exits: int
    last: int | None


def leave_some(
    account_id: int, *, reason: str, evidence: Mapping[str, Any], after: int, now: datetime, actor: str = "safety"
) -> Left:
    """Make an exit for all that is unclaimed of the account's next positions by id, in the caller's transaction.

    Positions that this kind of exit is already leaving are passed over, and for a minute those it has just failed to
    leave. `evidence` is kept with each order beside its quote.
    """
    leg = leg_of(reason, urgency_of(reason))
    exits = Order.objects.filter(position=OuterRef("pk"), intent=Intent.EXIT, leg=leg)
    ids = list(
        Position.objects.filter(
            ~Exists(exits.filter(Q(state__in=LIVE) | Q(state__in=_UNFILLED, ended_at__gt=now - AGAIN_AFTER))),
            account_id=account_id,
            pk__gt=after,
            quantity__gt=F("exited") + F("reserved"),
        )
        .exclude(status=PositionStatus.CLOSED)
        .order_by("pk")
        .values_list("pk", flat=True)[:POSITIONS_AT_ONCE]
    )
    positions = lock_positions(ids)
    seen = snapshots_of({position.instrument_id for position in positions.values()})
    intents = []
    for position in positions.values():
        snapshot, quote = seen.get(position.instrument_id, (None, {}))
        price = snapshot.on(tradable_basis(Side(position.side))).price if snapshot else None
        intents.append(
            ExitIntent(
                position=position,
                decision=Decision(reason=reason, fraction_pct=HUNDRED, trigger_price=None, seen_price=price),
                priced_at=snapshot.received_at if snapshot else None,
                quote={**quote, **evidence},
            )
        )
    made = make_exits(intents, now=now, actor=actor)
    return Left(exits=len(made), last=ids[-1] if len(ids) == POSITIONS_AT_ONCE else None)


def call_off_orders(account_id: int, *, exits_too: bool, now: datetime, why: str, held_back_too: bool = False) -> int:
    """Ask working and unsent entries of an account to end, and return how many were.

    With `exits_too` also its exits that wait for a price: they hold quantity that is to leave at once. Exits at the
    market are left alone, they are on their way out; but with `held_back_too` not those that a halt keeps from leaving.
    """
    wanted = Q(intent=Intent.ENTRY)
    if exits_too:
        wanted |= Q(intent=Intent.EXIT) & ~Q(order_type=OrderType.MARKET)
    if held_back_too:
        wanted |= Q(intent=Intent.EXIT, state=OrderState.PENDING) & ~Q(lane=Lane.EMERGENCY)
    asked = 0
    for states in _CANCELLABLE:
        orders = Order.objects.filter(wanted, account_id=account_id, state__in=states).order_by("pk")
        for order_id in orders.values_list("pk", flat=True)[: CANCELS_AT_ONCE - asked]:
            try:
                request_cancel(order_id=order_id, now=now, actor="safety", why=why)
            except NotCancellable as error:
                log.info("order_not_called_off order_id=%s why=%s", order_id, error)
            else:
                asked += 1
    return asked


def request_flatten(*, account_id: int | None, confirm: str, note: str, now: datetime, actor: str) -> Flatten:
    """Have everything an account holds left at once, or with None everything in all accounts; return the wish.

    Entries are not taken from then on: what is active becomes reduce_only. Halted accounts are left as well, because a
    person asks for it. The next look, within a second, begins. A wish that stands already is returned as it is.

    :raises Account.DoesNotExist: there is no such account.
    :raises SwitchRefused: the note is empty, or `confirm` is not the account's name (for all: "everything").
    """
    note = required_note(note)
    with transaction.atomic(durable=True):
        before = _take_no_entries(account_id, confirm=confirm, note=note, now=now, actor=actor)
        standing = standing_wishes(account_id).first()
        if standing is not None:
            return standing
        wish = Flatten.objects.create(account_id=account_id, note=note, asked_by=actor, asked_at=now)
        data = {"note": note, "before": {"trading_state": before}, "everything": account_id is None}
        write_events([Happening(kind="flatten_requested", actor=actor, account_ref=account_id, data=data)], now=now)
        raise_alert(
            kind="flatten",
            severity=Severity.CRITICAL,
            title=f"{_named(wish)} is being left on the word of {actor}"[:200],
            message=f"{note} No entries are taken. It goes on until nothing is held; setting the switch back to active "
            "ends it before.",
            dedupe_key=flatten_key(wish.account_id),
            account_ref=account_id,
            now=now,
        )
    return wish


def _take_no_entries(account_id: int | None, *, confirm: str, note: str, now: datetime, actor: str) -> str:
    """Lock and tighten the switch a flatten is about; return what it said before.

    :raises SwitchRefused: it is not what was confirmed.
    """
    if account_id is None:
        _require_confirmed(confirm, EVERYTHING)
        switch = lock_switch()
        before = str(switch.state)
        if before == TradingState.ACTIVE:
            switch.state, switch.note, switch.set_by, switch.set_at = TradingState.REDUCE_ONLY, note, actor, now
            switch.save(update_fields=["state", "note", "set_by", "set_at"])
        return before
    account = Account.objects.select_for_update(no_key=True).defer("credentials").get(pk=account_id)
    _require_confirmed(confirm, account.name)
    before = str(account.trading_state)
    if before == TradingState.ACTIVE:
        account.trading_state, account.updated_at = TradingState.REDUCE_ONLY, now
        account.save(update_fields=["trading_state", "updated_at"])
    return before


def _require_confirmed(given: str, wanted: str) -> None:
    if given.strip() != wanted:
        raise SwitchRefused(f"confirm must be {wanted!r}, typed out; got {given[:64]!r}")


def keep_flattening(*, now: datetime, after_batch: Callable[[], object] = lambda: None) -> int:
    """Go on with every wish to hold nothing and return how many exits were made.

    An account that cannot be left calls a person and does not hold up the others. `after_batch` is called after each
    committed batch.

    :raises OperationalError: the database went away.
    """
    exits = 0
    for wish in Flatten.objects.filter(ended_at__isnull=True).select_related("account").defer("account__credentials"):
        everybody = Account.objects.order_by("pk").values_list("pk", flat=True)
        for account_id in [wish.account_id] if wish.account_id else list(everybody):
            try:
                exits += _leave_all(wish, account_id, now=now, after_batch=after_batch)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                log.exception("flatten_failed account_id=%s", account_id)
                _alert_stuck(account_id, error, now=now)
        _end_if_done(wish, now=now)
    return exits


def _leave_all(wish: Flatten, account_id: int, *, now: datetime, after_batch: Callable[[], object]) -> int:
    evidence = {"flatten": {"by": wish.asked_by, "at": wish.asked_at.isoformat(), "note": wish.note}}
    exits, after = 0, 0
    while True:
        with transaction.atomic(durable=True):
            if not _still_wished(wish.pk):
                return exits
            left = leave_some(
                account_id, reason=ExitReason.EMERGENCY, evidence=evidence, after=after, now=now, actor=wish.asked_by
            )
        exits += left.exits
        if left.last is None:
            break
        after = left.last
        after_batch()
    halted = effective_state(account_id) is TradingState.HALTED
    why = f"everything is being left on the word of {wish.asked_by}"
    call_off_orders(account_id, exits_too=True, held_back_too=halted, now=now, why=why)
    return exits


def _still_wished(wish_id: int) -> bool:
    """Lock a wish; False when it was called off, or somebody else is at it."""
    wishes = Flatten.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
    return wishes.filter(pk=wish_id, ended_at__isnull=True).first() is not None


def _end_if_done(wish: Flatten, *, now: datetime) -> None:
    """End a wish once nothing is held and no entry can still bring anything."""
    held = Position.objects.exclude(status=PositionStatus.CLOSED)
    entering = Order.objects.filter(intent=Intent.ENTRY, state__in=LIVE)
    if wish.account_id:
        held, entering = held.filter(account_id=wish.account_id), entering.filter(account_id=wish.account_id)
    if held.exists() or entering.exists():
        return
    with transaction.atomic(durable=True):
        if not _still_wished(wish.pk):
            return
        Flatten.objects.filter(pk=wish.pk).update(ended_at=now, ended_why="nothing is held any more")
        write_events([Happening(kind="flatten_done", account_ref=wish.account_id)], now=now)
        resolve_alerts(dedupe_key=flatten_key(wish.account_id), now=now)


def _named(wish: Flatten) -> str:
    return f"Everything in account {wish.account}" if wish.account else "Everything in all accounts"


def _alert_stuck(account_id: int, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="flatten_failed",
        severity=Severity.CRITICAL,
        title=f"Account {account_id} cannot be left by itself",
        message=f"{type(error).__name__}: {error}. It is tried again each second; leave its positions at the broker.",
        dedupe_key=f"flatten_failed:{account_id}",
        requires_action=True,
        account_ref=account_id,
        now=now,
    )
