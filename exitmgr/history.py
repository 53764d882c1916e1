"""Keeps the bars that measures are taken from: of what is held as time goes by, of what is entered just before.

A broker that does not answer costs fresh bars and nothing else; the measures say when theirs are too old.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from exitmgr.rules.atr import MOST_BARS
from exitmgr.sweep import beat, is_silent
from orders.errors import BrokerError
from orders.history import DAY_SECONDS, fetch_bars
from orders.submit import Connect
from positions.models import Account, Bar, Instrument, Position
from positions.states import PositionStatus

log = logging.getLogger(__name__)

#: Instruments a round asks about; the worker that does it also asks brokers about quiet orders, which must not wait.
ROUND: Final = 3
#: A broker that had nothing new is asked again after this, or a 24th of a bar's length if that is longer.
ASK_AGAIN: Final = timedelta(minutes=5)


def refresh_bars(
    *, account: Account, instrument: Instrument, now: datetime, connect: Connect, seconds: int = DAY_SECONDS
) -> str:
    """Fetch an instrument's bars from the account's broker if newer ones may exist; return why not, or nothing.

    Whatever the broker does is an answer, not an error. Not to be called in a transaction: it may wait for seconds.
    """
    if not _wants_bars(instrument, seconds=seconds, now=now):
        return ""
    beat(name=_asking(instrument, seconds), now=now)
    try:
        broker = connect([account.pk])(account.pk)
        stored = fetch_bars(broker=broker, instrument=instrument, seconds=seconds, count=MOST_BARS, now=now)
    except BrokerError as error:
        log.warning("bars_not_fetched symbol=%s seconds=%s error=%s", instrument, seconds, error)
        return str(error)
    log.info("bars_fetched symbol=%s seconds=%s count=%s", instrument, seconds, stored)
    return ""


def refresh_held_bars(*, now: datetime, connect: Connect, seconds: int = DAY_SECONDS, most: int = ROUND) -> int:
    """Refresh the bars of what is held, each through an account that holds it; return of how many it was tried.

    A broker that fails is not asked again in this round.
    """
    held = (
        Position.objects.exclude(status=PositionStatus.CLOSED)
        .order_by("instrument_id", "account_id")
        .distinct("instrument_id")
        .select_related("instrument", "account")
        .defer("account__credentials")
    )
    tried, failing = 0, set[int]()
    for position in held:
        instrument, account = position.instrument, position.account
        if account.pk in failing or not _wants_bars(instrument, seconds=seconds, now=now):
            continue
        if tried == most:
            break
        tried += 1
        if refresh_bars(account=account, instrument=instrument, now=now, connect=connect, seconds=seconds):
            failing.add(account.pk)
    return tried


def _wants_bars(instrument: Instrument, *, seconds: int, now: datetime) -> bool:
    """Return whether a bar that is not stored may be finished by now, and nobody has asked for it just before."""
    length = timedelta(seconds=seconds)
    newest = (
        Bar.objects.filter(instrument=instrument, seconds=seconds).order_by("-start").values_list("start", flat=True)
    ).first()
    if newest is not None and newest + 2 * length > now:
        return False
    return is_silent(name=_asking(instrument, seconds), now=now, after=max(ASK_AGAIN, length / 24))


def _asking(instrument: Instrument, seconds: int) -> str:
    return f"bars {seconds} of {instrument.pk}"
