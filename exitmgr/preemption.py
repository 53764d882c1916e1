"""A more urgent exit never waits behind a less urgent one: what has claimed its quantity is called off, and it follows.

What waits is a row: a trigger that is breached, or an order that `waits`.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import InterfaceError, OperationalError

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.models import Trigger
from exitmgr.states import TriggerStatus
from orders.cancel import NotCancellable, request_cancel
from orders.models import CancelFor, Intent, Order
from orders.states import LIVE, OrderState

log = logging.getLogger(__name__)


def pre_empt(*, now: datetime) -> int:
    """Ask for the end of every exit that a more urgent one waits for; return how many were asked.

    Protection that rests at the broker makes room for any order that waits; behind a breached stop it is at work
    itself, and the backstop decides how long that is waited for. What is being sent at this moment is asked again at
    the next sweep. Once an exit has ended, `advance` gives what it held to who waits for it.

    :raises OperationalError: the database went away.
    """
    most_urgent = _most_urgent_waiting()
    wished = set(Order.objects.filter(waits=True, state=OrderState.PENDING).values_list("position_id", flat=True))
    live = Order.objects.filter(
        position_id__in=list(most_urgent), intent=Intent.EXIT, state__in=LIVE, waits=False
    ).exclude(state=OrderState.CANCEL_REQUESTED)
    in_the_way = [
        (order_id, position_id)
        for order_id, position_id, urgency, resting in live.order_by("position_id", "pk").values_list(
            "pk", "position_id", "urgency", "resting"
        )
        if position_id is not None and (position_id in wished if resting else urgency > most_urgent[position_id])
    ]
    asked = 0
    for order_id, position_id in in_the_way:
        try:
            request_cancel(
                order_id=order_id,
                now=now,
                actor="exitmgr",
                why="a more urgent exit needs what it holds",
                cancel_for=CancelFor.ROOM,
            )
            asked += 1
        except NotCancellable as error:
            log.info("exit_not_pre_empted order_id=%s why=%s", order_id, error)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("pre_emption_failed order_id=%s", order_id)
            _alert_in_the_way(order_id, position_id, error, now=now)
    return asked


def _most_urgent_waiting() -> dict[int, int]:
    """Return the urgency of the most urgent exit that waits, by position."""
    breached = Trigger.objects.filter(status=TriggerStatus.BREACHED).values_list("position_id", "urgency")
    waiting = Order.objects.filter(waits=True, state=OrderState.PENDING).values_list("position_id", "urgency")
    found: dict[int, int] = {}
    for position_id, urgency in (*breached, *waiting):
        if position_id is not None:
            found[position_id] = min(urgency, found.get(position_id, urgency))
    return found


def _alert_in_the_way(order_id: int, position_id: int | None, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="pre_emption_failed",
        severity=Severity.CRITICAL,
        title=f"Order {order_id} stands in the way of a more urgent exit",
        message=f"It cannot be called off: {type(error).__name__}: {error}. Cancel it at the broker.",
        dedupe_key=f"pre_emption_failed:{order_id}",
        requires_action=True,
        position_ref=position_id,
        order_ref=order_id,
        now=now,
    )
