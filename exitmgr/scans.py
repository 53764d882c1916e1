"""The scan: quotes in, exit orders out. Set-based: its cost follows what fires, not what is held.

One transaction takes the quotes that changed (rows another scan holds are skipped), probes the armed levels by
index, lets the pure rules decide, writes orders and reservations, follows the best prices of trails, and clears the
intervals it consumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import InterfaceError, OperationalError, connection, transaction

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.firing import fire
from exitmgr.flatten import keep_flattening
from exitmgr.probes import probe_levels, rules_in_use
from exitmgr.safety import watch_limits
from exitmgr.switches import hold_back_entries
from exitmgr.timers import due_timers, fire_timers, take_due_steps
from exitmgr.trails import lift_cohorts, probe_trails
from positions.models import Quote
from positions.quotes import accept_standing_suspects

log = logging.getLogger(__name__)

#: Symbols one transaction takes, and triggers it fires: small enough that the first exits leave early.
SYMBOLS_AT_ONCE = 10_000
TRIGGERS_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan did."""

    symbols: int = 0
    candidates: int = 0
    orders: int = 0
    more: bool = False

    def __add__(self, other: Scanned) -> Scanned:
        """Return what two scans did together."""
        return Scanned(self.symbols + other.symbols, self.candidates + other.candidates, self.orders + other.orders)


# A price that is too old decides nothing; its interval stays until a fresh one comes.
_TAKE = """
SELECT q.instrument_id
  FROM positions_quote q
  JOIN positions_instrument i ON i.id = q.instrument_id
 WHERE {which} AND q.received_at >= %(now)s - i.max_age_seconds * interval '1 second'
 ORDER BY q.instrument_id
 LIMIT %(symbols)s
   FOR UPDATE OF q SKIP LOCKED
"""

_CLEAR = """
UPDATE positions_quote
   SET dirty = false, from_seq = seq, scanned_at = %(now)s,
       bid_low = bid, bid_high = bid, ask_low = ask, ask_high = ask, last_low = last, last_high = last,
       mid_low = (bid + ask) * 0.5, mid_high = (bid + ask) * 0.5
 WHERE instrument_id = ANY(%(ids)s::bigint[]) AND dirty
"""


def scan(
    *,
    now: datetime,
    instrument_ids: Collection[int] | None = None,
    everything: bool = False,
    after_batch: Callable[[], object] = lambda: None,
) -> Scanned:
    """Fire whatever the latest prices, and their extremes since the last scan, have reached.

    By default the quotes that changed; `instrument_ids` looks at those in any case, `everything` at all of them and at
    the clock and the accounts: decaying targets take their steps, timers that are due fire, switches and limits hold.
    An instrument that cannot be scanned calls a person and does not hold up the others. `after_batch` is called after
    each committed batch that leaves more to do.

    :raises OperationalError: the database went away.
    """
    if not everything:
        return _scan_prices(now=now, instrument_ids=instrument_ids, everything=False, after_batch=after_batch)
    for work in (hold_back_entries, accept_standing_suspects, take_due_steps):
        _do_by_the_clock(work, now=now)
    done = _scan_prices(now=now, instrument_ids=instrument_ids, everything=True, after_batch=after_batch)
    timed = fire_timers(now=now)  # of positions whose price is not there or too old to judge anything else
    safe = watch_limits(now=now, after_batch=after_batch) + keep_flattening(now=now, after_batch=after_batch)
    return done + Scanned(orders=timed + safe)


def _do_by_the_clock(work: Callable[..., object], *, now: datetime) -> None:
    """Do what is due; if it cannot be done that calls a person, and prices are looked at all the same."""
    try:
        work(now=now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("scan_failed work=%s", work.__name__)
        raise_alert(
            kind="scan_failed",
            severity=Severity.CRITICAL,
            title=f"The scan cannot {work.__name__.replace('_', ' ')}",
            message=f"{type(error).__name__}: {error}. Everything else goes on.",
            dedupe_key=f"scan_failed:{work.__name__}",
            requires_action=True,
            now=now,
        )


def _scan_prices(
    *, now: datetime, instrument_ids: Collection[int] | None, everything: bool, after_batch: Callable[[], object]
) -> Scanned:
    try:
        return _scan_together(now=now, instrument_ids=instrument_ids, everything=everything, after_batch=after_batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("scan_failed: one by one from here")
    quotes = Quote.objects.all() if everything else Quote.objects.filter(dirty=True)
    if instrument_ids is not None and not everything:
        quotes = Quote.objects.filter(pk__in=instrument_ids)
    total = Scanned()
    for instrument_id in quotes.order_by("pk").values_list("pk", flat=True):
        try:
            total += _scan_together(now=now, instrument_ids=[instrument_id], everything=False, after_batch=after_batch)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("scan_failed instrument_id=%s", instrument_id)
            _alert_not_scanned(instrument_id, error, now=now)
    return total


def _scan_together(
    *, now: datetime, instrument_ids: Collection[int] | None, everything: bool, after_batch: Callable[[], object]
) -> Scanned:
    total = Scanned()
    while True:
        done = _scan_once(now=now, instrument_ids=instrument_ids, everything=everything)
        total += done
        if not done.more:
            return total
        after_batch()


def _scan_once(*, now: datetime, instrument_ids: Collection[int] | None, everything: bool) -> Scanned:
    with transaction.atomic(durable=True):
        taken = _take(now=now, instrument_ids=instrument_ids, everything=everything)
        if not taken:
            return Scanned()
        use = rules_in_use()
        levels = probe_levels(taken, chosen=use.chosen, limit=TRIGGERS_AT_ONCE, frozen=use.frozen)
        trails = probe_trails(taken, chosen=use.chosen_trails, limit=TRIGGERS_AT_ONCE) if use.trails else []
        # judged together: a time limit that is due outranks a target that is met
        timers = due_timers(now=now) if everything else []
        done = fire([*levels, *trails, *timers], now=now)
        # what was started meets the price in the next round; a full batch leaves the rest to it, unless it is stuck
        more = done.started > 0
        if TRIGGERS_AT_ONCE in (len(levels), len(trails)):
            more = more or done.changed > 0 or done.armed < len(levels) + len(trails) + len(timers)
        if not more and use.trails:
            more = lift_cohorts(taken, chosen=use.chosen_trails)
        if not more:
            with connection.cursor() as cursor:
                cursor.execute(_CLEAR, {"ids": taken, "now": now})
        return Scanned(len(taken), len(levels) + len(trails) + len(timers), done.orders, more)


def _take(*, now: datetime, instrument_ids: Collection[int] | None, everything: bool) -> list[int]:
    which = "q.dirty"
    if everything:
        which = "true"
    elif instrument_ids is not None:
        which = "q.instrument_id = ANY(%(wanted)s::bigint[])"
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE.format(which=which),
            {"now": now, "symbols": SYMBOLS_AT_ONCE, "wanted": list(instrument_ids or [])},
        )
        return [row[0] for row in cursor.fetchall()]


def _alert_not_scanned(instrument_id: int, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="scan_failed",
        severity=Severity.CRITICAL,
        title=f"Instrument {instrument_id} cannot be scanned",
        message=f"{type(error).__name__}: {error}. Its positions are NOT watched: mend its triggers or exit by hand.",
        dedupe_key=f"scan_failed:{instrument_id}",
        requires_action=True,
        now=now,
    )
