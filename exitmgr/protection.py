"""Whether what remains of each open position is covered by live stops: a state, since when, and an alert.

In resting mode only what the broker has acknowledged covers; in synthetic mode an armed stop does while scans go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection

from alerts.models import Alert, Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.models import Protection
from exitmgr.policy.of_positions import policies_of
from exitmgr.rules.types import Urgency
from positions.models import Position

#: Scans that are silent for longer protect nothing.
_SCAN_AGE: Final = timedelta(seconds=5)
_SCAN: Final = "scan"
_ALERT: Final = "unprotected"
#: Whoever gave a plan without a stop meant it: that is shown, and nobody is called.
NO_STOP: Final = "its plan has no stop"
#: People are called for that by the watch, once for everything.
SCANS_STOPPED: Final = "scans have stopped"
#: More positions than these are told in one alert.
MANY: Final = 20

_LOOK: Final = """
WITH held AS (
    SELECT p.id, p.quantity - p.exited AS remaining, p.frozen_at,
           COALESCE(b.mode, '') AS mode, COALESCE(b.status, '') AS status,
           s.position_id IS NOT NULL AS watched, COALESCE(w.quantity, 0) AS working
      FROM positions_position p
      LEFT JOIN exitmgr_bracket b ON b.position_id = p.id AND b.status IN ('pending', 'active', 'error')
      LEFT JOIN (SELECT DISTINCT position_id FROM exitmgr_trigger
                  WHERE status IN ('armed', 'breached') AND act = 'exit' AND urgency <= %(stop)s
                    AND kind IN ('level', 'trail') AND fraction_pct = 100) s ON s.position_id = p.id
      LEFT JOIN (SELECT position_id, sum(quantity - filled_quantity) AS quantity FROM orders_order
                  WHERE intent = 'exit' AND state IN ('submitted', 'partially_filled', 'cancel_requested')
                    AND (NOT resting OR order_type = 'stop' AND state <> 'cancel_requested')
                  GROUP BY position_id) w ON w.position_id = p.id
     WHERE p.status <> 'closed'
), judged AS (
    SELECT id, remaining, working,
           CASE WHEN mode = 'synthetic' OR status = 'error' OR mode = ''
                THEN watched AND %(scanning)s AND frozen_at IS NULL ELSE false END AS by_watch,
           CASE WHEN NOT watched THEN %(no_stop)s
                WHEN frozen_at IS NOT NULL THEN 'the position is frozen'
                WHEN mode IN ('resting', 'native') AND status = 'active'
                THEN 'the broker holds stops for less than remains'
                WHEN NOT %(scanning)s THEN %(scans_stopped)s
                ELSE '' END AS why
      FROM held
), outcome AS (
    SELECT id, by_watch OR working >= remaining AS protected,
           CASE WHEN by_watch THEN remaining ELSE LEAST(working, remaining) END AS covered,
           CASE WHEN by_watch OR working >= remaining THEN '' ELSE why END AS why
      FROM judged
)
INSERT INTO exitmgr_protection AS known (position_id, protected, covered, since, why)
SELECT id, protected, covered, %(now)s, why FROM outcome
    ON CONFLICT (position_id) DO UPDATE
   SET protected = EXCLUDED.protected, covered = EXCLUDED.covered, why = EXCLUDED.why,
       since = CASE WHEN known.protected = EXCLUDED.protected THEN known.since ELSE EXCLUDED.since END
 WHERE (known.protected, known.covered, known.why) IS DISTINCT FROM
       (EXCLUDED.protected, EXCLUDED.covered, EXCLUDED.why)
"""
_FORGET: Final = """
DELETE FROM exitmgr_protection x USING positions_position p
 WHERE p.id = x.position_id AND p.status = 'closed'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How many open positions there are by their protection, and how long the longest has been without."""

    protected: int
    unprotected: int
    without_stop: int
    longest_seconds: float


def watch_protection(*, now: datetime) -> int:
    """Bring the state of every open position up to date and call people; return how many are unprotected for too long.

    All positions in two statements, which write what has changed.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM exitmgr_heartbeat WHERE name = %s AND at >= %s)",
                       [_SCAN, now - _SCAN_AGE])  # fmt: skip
        (scanning,) = cursor.fetchone()
        cursor.execute(_FORGET)
        terms = {"stop": int(Urgency.STOP), "scanning": scanning, "no_stop": NO_STOP, "scans_stopped": SCANS_STOPPED}
        cursor.execute(_LOOK, {"now": now, **terms})
    _settle_alerts(now=now)
    return _alert_unprotected(now=now)


def protection_now(*, now: datetime) -> Covered:
    """Return how well open positions are covered, as noted last; those without a stop in their plan apart."""
    rows = Protection.objects.values_list("protected", "why", "since")
    missing = [(why, since) for protected, why, since in rows.filter(protected=False)]
    urgent = [since for why, since in missing if why != NO_STOP]
    return Covered(
        protected=Protection.objects.filter(protected=True).count(),
        unprotected=len(urgent),
        without_stop=len(missing) - len(urgent),
        longest_seconds=max(((now - since).total_seconds() for since in urgent), default=0.0),
    )


def _alert_unprotected(*, now: datetime) -> int:
    """Call people for positions that have been unprotected for too long; where they are many, once for all of them."""
    rows = {
        row.position_id: row
        for row in Protection.objects.filter(protected=False, since__lt=now - timedelta(seconds=1)).exclude(
            why__in=[NO_STOP, SCANS_STOPPED]
        )
    }
    positions = list(Position.objects.filter(pk__in=rows).select_related("instrument").order_by("pk"))
    policies = policies_of(positions, now=now) if positions else {}
    late = [
        position
        for position in positions
        if now - rows[position.pk].since
        > timedelta(seconds=policies[position.pk].trade_exit.bracket_orders.unprotected_seconds)
    ]
    if len(late) > MANY:
        _alert(
            f"{_ALERT}:many",
            f"{len(late)} positions are not protected",
            f"The first is position {late[0].pk}: {rows[late[0].pk].why}. Look at the broker and at their orders.",
            now=now,
        )
        return len(late)
    resolve_alerts(dedupe_key=f"{_ALERT}:many", now=now)
    for position in late:
        row = rows[position.pk]
        _alert(
            f"{_ALERT}:{position.pk}",
            f"Position {position.pk} in {position.instrument} is not protected",
            f"{row.why}: stops cover {row.covered:f} of {position.remaining:f} since {row.since:%H:%M:%S} UTC. Look at "
            "its orders; exit it, or give it a plan again.",
            position=position,
            now=now,
        )
    return len(late)


def _alert(key: str, title: str, message: str, *, now: datetime, position: Position | None = None) -> None:
    raise_alert(
        kind=_ALERT,
        severity=Severity.CRITICAL,
        title=title,
        message=message,
        dedupe_key=key,
        requires_action=True,
        account_ref=position.account_id if position else None,
        position_ref=position.pk if position else None,
        now=now,
    )


def _settle_alerts(*, now: datetime) -> None:
    """Settle the alerts of positions that are protected again, or closed."""
    told = Alert.objects.filter(kind=_ALERT, resolved_at__isnull=True, position_ref__isnull=False)
    refs = {ref for ref in told.values_list("position_ref", flat=True) if ref is not None}
    if not refs:
        return
    still = set(Protection.objects.filter(position_id__in=refs, protected=False).values_list("position_id", flat=True))
    for position_id in refs - still:
        resolve_alerts(dedupe_key=f"{_ALERT}:{position_id}", now=now)
