"""What accounts have made in all: realised of every position, net of fees, plus unrealised at the tradable price.

Closed positions are summed up once and marked as settled, so the cost follows what is open, not the years of trading.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import connection

from positions.fields import plain

#: A closed position is settled after this long: a last fill of dust may follow its close.
SETTLE_AFTER: Final = timedelta(hours=1)
SETTLE_AT_ONCE: Final = 10_000

_BEGIN: Final = """
INSERT INTO positions_losswatch (account_id, since, settled_pnl, reason, action, state_before)
SELECT a.id, %(now)s,
       (SELECT COALESCE(sum(p.realized_pnl), 0) FROM positions_position p WHERE p.account_id = a.id AND p.settled),
       '', '', ''
  FROM unnest(%(ids)s::bigint[]) AS a (id)
 ORDER BY a.id
ON CONFLICT (account_id) DO NOTHING
"""

# Multiplied before it is divided: the cost of a whole position is exact. A position without any price counts as flat.
# Eight decimals are left: what dividing has rounded away must not keep a loss from meeting its limit.
_PNL: Final = """
SELECT w.account_id, round(w.settled_pnl + COALESCE(closed.pnl, 0) + COALESCE(held.pnl, 0), 8)
  FROM positions_losswatch w
  LEFT JOIN LATERAL (
       SELECT sum(p.realized_pnl) AS pnl
         FROM positions_position p
        WHERE p.account_id = w.account_id AND p.status = 'closed' AND NOT p.settled
       ) closed ON true
  LEFT JOIN LATERAL (
       SELECT sum(p.realized_pnl + COALESCE(
                  p.side * (CASE p.side WHEN 1 THEN q.bid ELSE q.ask END * (p.quantity - p.exited)
                            - p.entry_cost * (p.quantity - p.exited) / p.quantity), 0)) AS pnl
         FROM positions_position p
         LEFT JOIN positions_quote q ON q.instrument_id = p.instrument_id
        WHERE p.account_id = w.account_id AND p.status <> 'closed'
       ) held ON true
 WHERE w.account_id = ANY(%(ids)s::bigint[])
   AND NOT (%(certain)s AND EXISTS (SELECT FROM positions_position f
                                     WHERE f.account_id = w.account_id AND f.frozen_at IS NOT NULL
                                       AND f.status <> 'closed'))
"""

_SETTLE: Final = """
WITH done AS (
    UPDATE positions_position p
       SET settled = true
     WHERE p.id IN (
           SELECT id FROM positions_position
            WHERE account_id = %(id)s AND status = 'closed' AND NOT settled AND closed_at < %(before)s
            ORDER BY id
            LIMIT %(limit)s
              FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING p.realized_pnl)
UPDATE positions_losswatch w
   SET settled_pnl = w.settled_pnl + done.pnl
  FROM (SELECT sum(realized_pnl) AS pnl, count(*) AS positions FROM done) done
 WHERE w.account_id = %(id)s AND done.positions > 0
RETURNING done.positions
"""


def begin_watches(account_ids: Collection[int], *, now: datetime) -> None:
    """Make the rows in which the losses of these accounts are watched; those that exist stay as they are."""
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, {"ids": list(account_ids), "now": now})


def pnl_of_accounts(account_ids: Collection[int], *, certain: bool = False) -> dict[int, Decimal]:
    """Return the cumulative P&L of watched accounts in the quote currency, all as of one moment.

    Unrealised is at the bid for longs and the ask for shorts, before the fees of leaving, at the last known price
    however old it is. `certain` leaves out accounts with a frozen position: a split would look like a loss.
    """
    with connection.cursor() as cursor:
        cursor.execute(_PNL, {"ids": list(account_ids), "certain": certain})
        return {account_id: plain(pnl) for account_id, pnl in cursor.fetchall()}


def settle_closed(account_id: int, *, now: datetime) -> int:
    """Move what closed positions realised into the account's settled sum and return how many there were.

    In the caller's transaction, which holds the account's watch; the P&L stays the same.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, {"id": account_id, "before": now - SETTLE_AFTER, "limit": SETTLE_AT_ONCE})
        row = cursor.fetchone()
        return int(row[0]) if row else 0
