"""A stop never waits behind a less urgent exit: what has claimed its quantity is called off, and the stop follows."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import InterfaceError, OperationalError

from alerts.models import Severity
from alerts.notices import raise_alert
from exitmgr.models import Trigger
from exitmgr.rules.types import Urgency
from exitmgr.states import TriggerStatus
from orders.cancel import NotCancellable, request_cancel
from orders.models import Intent, Order
from orders.states import LIVE, OrderState

log = logging.getLogger(__name__)


def pre_empt(*, now: datetime) -> int:
    """Ask for the end of every exit that a breached stop waits for; return how many were asked.

    What is being sent at this moment is asked again at the next sweep. Once an exit has ended, `advance` sends the
    stop for what it gave back.

    :raises OperationalError: the database went away.
    """
    waiting = Trigger.objects.filter(status=TriggerStatus.BREACHED).values("position_id")
    in_the_way = Order.objects.filter(
        position_id__in=waiting, intent=Intent.EXIT, state__in=LIVE, urgency__gt=Urgency.STOP
    ).exclude(state=OrderState.CANCEL_REQUESTED)
    asked = 0
    for order_id, position_id in in_the_way.order_by("position_id", "pk").values_list("pk", "position_id"):
        try:
            request_cancel(order_id=order_id, now=now, actor="exitmgr", why="a stop needs what it holds")
            asked += 1
        except NotCancellable as error:
            log.info("exit_not_pre_empted order_id=%s why=%s", order_id, error)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("pre_emption_failed order_id=%s", order_id)
            _alert_in_the_way(order_id, position_id, error, now=now)
    return asked


def _alert_in_the_way(order_id: int, position_id: int | None, error: Exception, *, now: datetime) -> None:
    raise_alert(
        kind="pre_emption_failed",
        severity=Severity.CRITICAL,
        title=f"Order {order_id} stands in the way of a stop",
        message=f"It cannot be called off: {type(error).__name__}: {error}. Cancel it at the broker.",
        dedupe_key=f"pre_emption_failed:{order_id}",
        requires_action=True,
        position_ref=position_id,
        order_ref=order_id,
        now=now,
    )
