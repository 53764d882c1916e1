"""Instruments and accounts as people set them up; each change is an event with what was before and after."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import IntegrityError, transaction

from alerts.events import Happening, write_events
from exitmgr.entries import EntryRefused
from exitmgr.policy.current import policy_for
from positions.calendars import ALWAYS_OPEN, UnknownCalendar, require_calendar
from positions.doorbells import ring
from positions.models import Account, Instrument

#: Never written to an event; only that they were replaced is told.
_SECRET: Final = frozenset({"credentials"})


def add_instrument(*, values: Mapping[str, Any], now: datetime, actor: str) -> Instrument:
    """Make a symbol known; which of its prices are believed is as the configuration has it, unless told.

    :raises EntryRefused: it is known already, or there is no such exchange calendar.
    """
    _require_calendar(values)
    prices = policy_for(account="", symbol=values["symbol"], now=now).exit_manager.prices
    values = {**prices.model_dump(), **values}
    try:
        with transaction.atomic():
            instrument = Instrument.objects.create(**values)
            write_events(
                [Happening(kind="instrument_added", actor=actor, data={"symbol": instrument.symbol, **values})], now=now
            )
            _fill_sessions_on_commit()
    except IntegrityError as error:
        if "symbol" not in str(error):
            raise
        raise EntryRefused({"symbol": f"{values['symbol']!r} is known already; change it instead"}) from None
    return instrument


def change_instrument(*, instrument_id: int, values: Mapping[str, Any], now: datetime, actor: str) -> Instrument:
    """Change what is known about a symbol; nothing is told where nothing differs.

    :raises Instrument.DoesNotExist: there is no such instrument.
    :raises EntryRefused: there is no such exchange calendar.
    """
    _require_calendar(values)
    with transaction.atomic():
        instrument = Instrument.objects.select_for_update(no_key=True).get(pk=instrument_id)
        before, after = _apply(instrument, values)
        if after:
            instrument.save(update_fields=list(after))
            data = {"symbol": instrument.symbol, "before": before, "after": after}
            write_events([Happening(kind="instrument_changed", actor=actor, data=data)], now=now)
            if "calendar" in after:
                _fill_sessions_on_commit()
    return instrument


def change_account(*, account_id: int, values: Mapping[str, Any], now: datetime, actor: str) -> Account:
    """Change an account's limits, trading state or credentials; its broker connections are made anew.

    :raises Account.DoesNotExist: there is no such account.
    """
    with transaction.atomic():
        account = Account.objects.select_for_update(no_key=True).get(pk=account_id)
        before, after = _apply(account, values)
        if after:
            account.updated_at = now
            account.save(update_fields=[*after, "updated_at"])
            write_events(
                [
                    Happening(
                        kind="account_changed",
                        actor=actor,
                        account_ref=account.pk,
                        data={"before": _told(before), "after": _told(after)},
                    )
                ],
                now=now,
            )
    return account


def _require_calendar(values: Mapping[str, Any]) -> None:
    try:
        require_calendar(values.get("calendar", ALWAYS_OPEN))
    except UnknownCalendar as error:
        raise EntryRefused({"calendar": str(error)}) from None


def _fill_sessions_on_commit() -> None:
    """Have the sessions of a calendar known before somebody needs them; a lost bell is made up for by the schedule."""
    transaction.on_commit(lambda: ring("exitmgr.keep_sessions", queue="maintenance", expires=60), robust=True)


def _apply(row: Account | Instrument, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set what differs and return it as it was and as it is."""
    before = {name: getattr(row, name) for name, value in values.items() if getattr(row, name) != value}
    after = {name: values[name] for name in before}
    for name, value in after.items():
        setattr(row, name, value)
    return before, after


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "replaced" if name in _SECRET else value for name, value in values.items()}
