"""Held instruments whose price has stopped coming: a person is told, and told again when it comes."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection

from alerts.models import Alert, Severity
from alerts.notices import raise_alert, resolve_alerts

KIND: Final = "stale_price"
#: When more instruments than this are stale at once, it is a feed that is away, and one alert says so.
MOST_ALONE: Final = 20

# In a session a price may be as old as its instrument allows, counted from the opening at the earliest. An exchange
# whose sessions nobody has told us counts as open: an alert too many is better than one too few.
_STALE: Final = """
SELECT i.symbol, q.received_at
  FROM positions_instrument i
  LEFT JOIN positions_quote q ON q.instrument_id = i.id
  LEFT JOIN LATERAL (
       SELECT s.opens_at FROM positions_session s
        WHERE s.calendar = i.calendar AND s.closes_at > %(now)s
        ORDER BY s.closes_at LIMIT 1
       ) AS session ON true
 CROSS JOIN LATERAL (SELECT %(now)s - i.max_age_seconds * interval '1 second' AS oldest) AS allowed
 WHERE (q.received_at IS NULL OR q.received_at < allowed.oldest)
   AND (session.opens_at IS NULL OR session.opens_at <= allowed.oldest)
   AND EXISTS (
       SELECT FROM positions_account a
        CROSS JOIN LATERAL (
              SELECT FROM positions_position p
               WHERE p.account_id = a.id AND p.instrument_id = i.id AND p.status <> 'closed'
                 AND p.opened_at <= allowed.oldest
               LIMIT 1
              ) AS held
       )
 ORDER BY i.symbol
"""


class _Stale(NamedTuple):
    symbol: str
    received_at: datetime | None


def tell_of_stale_prices(*, now: datetime) -> int:
    """Raise an alert for each held instrument without a fresh price, settle those that have one; return how many.

    Nothing is raised twice: an alert stays until the price is fresh, the position closed or the session over.
    """
    with connection.cursor() as cursor:
        cursor.execute(_STALE, {"now": now})
        stale = [_Stale(*row) for row in cursor.fetchall()]
    told = set(Alert.objects.filter(kind=KIND, resolved_at__isnull=True).values_list("dedupe_key", flat=True))
    wanted = {KIND} if len(stale) > MOST_ALONE else {f"{KIND}:{one.symbol}" for one in stale}
    for key in told - wanted:
        resolve_alerts(dedupe_key=key, now=now)
    if KIND in wanted - told:
        _tell_of_all(stale, now=now)
    elif KIND not in wanted:
        for one in stale:
            if f"{KIND}:{one.symbol}" not in told:
                _tell_of_one(one, now=now)
    return len(stale)


def _tell_of_one(stale: _Stale, *, now: datetime) -> None:
    if stale.received_at is None:
        what = "No price of it was ever heard."
    else:
        what = f"Its last price was heard {(now - stale.received_at).total_seconds():.0f} s ago."
    raise_alert(
        kind=KIND,
        severity=Severity.WARNING,
        title=f"{stale.symbol} has no fresh price",
        message=f"{what} Until one comes its stops and targets do not fire: check the feed, push a quote, or exit by "
        "hand. Refused prices say whether there were any.",
        dedupe_key=f"{KIND}:{stale.symbol}",
        now=now,
        data={"symbol": stale.symbol, "received_at": stale.received_at},
    )


def _tell_of_all(stale: list[_Stale], *, now: datetime) -> None:
    some = ", ".join(one.symbol for one in stale[:10])
    raise_alert(
        kind=KIND,
        severity=Severity.WARNING,
        title=f"{len(stale)} held instruments have no fresh price",
        message=f"Among them {some}. Until prices come their stops and targets do not fire: the feed is probably away.",
        dedupe_key=KIND,
        now=now,
        data={"instruments": len(stale)},
    )
