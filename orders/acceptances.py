"""Booking plain acknowledgements. They change no quantity, so they need no position's lock and go in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from alerts.events import Happening, write_events
from orders.brokers.protocol import OrderReport, ReportedState
from orders.states import LIVE, OrderEvent, next_state

_ACCEPT = """
WITH told AS (
    SELECT o.id, o.accepted_at IS NULL AS is_first, new.broker_id, moves.state_after
      FROM orders_order o
      JOIN unnest(%(client_ids)s::text[], %(broker_ids)s::text[]) AS new (client_id, broker_id)
        ON new.client_id = o.client_order_id
      JOIN unnest(%(before)s::text[], %(after)s::text[]) AS moves (state_before, state_after)
        ON moves.state_before = o.state
     WHERE o.account_id = %(account)s
     ORDER BY o.id
       FOR NO KEY UPDATE OF o
)
UPDATE orders_order o
   SET state = told.state_after, heard_at = %(now)s, lease_until = NULL, next_attempt_at = NULL,
       accepted_at = COALESCE(o.accepted_at, %(now)s),
       broker_order_id = CASE WHEN o.broker_order_id = '' THEN told.broker_id ELSE o.broker_order_id END
  FROM told
 WHERE o.id = told.id
RETURNING o.id, o.position_id, o.client_order_id, o.broker_order_id, told.is_first
"""


def is_plain_acknowledgement(report: OrderReport) -> bool:
    """Return whether a report says no more than that the broker has the order."""
    return (
        report.state is ReportedState.WORKING
        and report.filled_quantity == 0
        and not report.executions
        and not report.legs
        and report.client_order_id != ""
    )


def accept_orders(*, account_id: int, reports: Sequence[OrderReport], now: datetime) -> set[str]:
    """Book acknowledgements in the caller's transaction and return the client ids of live orders they were for.

    The moves are those of the order table for an acceptance; orders that have ended are not touched.
    """
    brokers = {report.client_order_id: report.broker_order_id for report in reports}
    before = sorted(LIVE)
    with connection.cursor() as cursor:
        cursor.execute(
            _ACCEPT,
            {
                "client_ids": list(brokers),
                "broker_ids": list(brokers.values()),
                "before": [str(state) for state in before],
                "after": [str(next_state(state, OrderEvent.ACCEPTED)) for state in before],
                "account": account_id,
                "now": now,
            },
        )
        rows = cursor.fetchall()
    write_events(
        (
            Happening(
                kind="order_accepted",
                account_ref=account_id,
                position_ref=position_id,
                order_ref=order_id,
                data={"broker_order_id": broker_order_id},
            )
            for order_id, position_id, _, broker_order_id, is_first in rows
            if is_first
        ),
        now=now,
    )
    return {client_order_id for _, _, client_order_id, _, _ in rows}
