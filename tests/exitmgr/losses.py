"""An account whose losses are watched, and what its watch has noted."""

from __future__ import annotations

from datetime import UTC, datetime

from exitmgr.safety import watch_limits
from orders.models import Order
from positions.models import Account, LossWatch, Position
from tests import factories as f

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NEXT_DAY = datetime(2026, 3, 3, 0, 0, 1, tzinfo=UTC)


def watched(**limits) -> tuple[Account, Position]:
    """Return an account with these limits that was looked at once, holding 10 at 100 with the bid there."""
    account = f.make_account(**{"loss_action": "flatten", **limits})
    f.set_quote("100", "100")
    position = f.hold(account=account)
    assert watch_limits(now=NOON) == 0
    return account, position


def exits_of(account, **fields):
    found = Order.objects.filter(account=account, intent="exit", **fields).order_by("pk")
    return list(found.values_list("reason", "quantity", "lane", "state"))


def watch_of(account):
    return LossWatch.objects.get(pk=account.pk)
