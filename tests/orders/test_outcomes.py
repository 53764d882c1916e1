"""What a failed try makes of an order: released, unknown, or given up with an alert; never lost, never doubled."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from alerts.models import Alert, Event
from orders.errors import AccountRefused, NotSent, OutcomeUnknown, RefusalKind, Refused, StillUnknown
from orders.limits import RETRY_ATTEMPTS, backoff_seconds
from orders.models import Order
from orders.outcomes import settle_failure
from orders.submit import claim
from tests import factories as f

D = Decimal
pytestmark = pytest.mark.django_db


def fail(order, error, *, now=None):
    """Claim the order and settle one failure under that claim."""
    past = f.utc_now() - timedelta(seconds=60)
    Order.objects.filter(pk=order.pk, next_attempt_at__isnull=False).update(next_attempt_at=past)
    Order.objects.filter(pk=order.pk, lease_until__isnull=False).update(lease_until=past)
    (claimed,) = claim(order_ids=[order.pk], worker="w")
    return settle_failure(order_id=order.pk, epoch=claimed.epoch, error=error, now=now or f.utc_now())


@pytest.mark.parametrize(
    ("_case", "error", "state", "tries", "wait"),
    [
        ("nobody there: 1 s, no try spent", NotSent("x"), "pending", 0, (0.75, 1.25)),
        ("nobody there, and told when", NotSent("x", retry_after=7), "pending", 0, (7, 7)),
        ("told to wait", Refused("x", retry_after=9), "pending", 0, (9, 9)),
        ("too many requests, not told when", Refused("x", kind=RefusalKind.RATE_LIMITED), "pending", 0, (3.75, 6.25)),
        ("too many requests, now", Refused("x", kind=RefusalKind.RATE_LIMITED, retry_after=0), "pending", 0, (3, 7)),
        ("refused, perhaps for now", Refused("x"), "pending", 1, (3.75, 6.25)),
        ("no answer", OutcomeUnknown("x"), "unknown", 0, (1, 1)),
        ("not looked up", StillUnknown("x"), "unknown", 0, (1, 1)),
    ],
)
def test_a_failure_with_tries_left_keeps_the_order_alive(_case, error, state, tries, wait):
    position = f.hold()
    order, now = f.exit_order(position), f.utc_now()
    assert fail(order, error, now=now) == state
    kept = f.read_again(order)
    assert (kept.state, kept.tries, kept.lease_until, kept.reserved) == (state, tries, None, D(10))
    assert wait[0] <= (kept.next_attempt_at - now).total_seconds() <= wait[1]
    assert Alert.objects.count() == 0
    assert f.read_again(position).reserved == 10


@pytest.mark.parametrize(
    ("_case", "errors"),
    [
        ("refused until the tries are spent", [Refused("no")] * RETRY_ATTEMPTS),
        ("refused for good", [Refused("no", permanent=True)]),
        ("the credentials are refused", [AccountRefused("key revoked", permanent=True)]),
    ],
)
def test_the_last_refusal_frees_the_position_and_calls_a_person(_case, errors):
    position = f.hold()
    order = f.exit_order(position)
    for error in errors:
        fail(order, error)
    kept, free = f.read_again(order), f.read_again(position)
    assert (kept.state, kept.reserved, kept.news) == ("cancelled", D(0), True)
    assert kept.ended_at is not None
    assert (free.reserved, free.status) == (D(0), "open")
    alert = Alert.objects.get()
    assert (alert.severity, alert.requires_action, alert.order_ref) == ("critical", True, order.pk)
    assert f"retry order {order.pk}" in alert.message
    assert Event.objects.filter(order_ref=order.pk).latest("pk").kind == "order_given_up"


@pytest.mark.parametrize(
    "error", [NotSent("gone"), OutcomeUnknown("lost"), StillUnknown("?"), Refused("429", kind=RefusalKind.RATE_LIMITED)]
)
def test_an_exit_is_never_given_up_for_anything_but_refusals(error):
    position = f.hold()
    order = f.exit_order(position)
    for _ in range(12):
        fail(order, error)
    assert f.read_again(order).state in ("pending", "unknown")
    assert f.read_again(position).reserved == 10


def test_a_broker_that_cannot_be_reached_is_an_alert_at_the_third_try():
    order = f.exit_order(f.hold())
    for number in (1, 2, 3, 4):
        fail(order, NotSent("no connection"))
        assert Alert.objects.filter(kind="broker_unreachable").count() == (1 if number >= 3 else 0)
    alert = Alert.objects.get()
    assert (alert.count, alert.severity) == (2, "critical")


def test_the_wait_for_a_dead_broker_has_a_ceiling():
    order = f.exit_order(f.hold())
    Order.objects.filter(pk=order.pk).update(epoch=40)
    now = f.utc_now()
    fail(order, NotSent("no connection"), now=now)
    assert (f.read_again(order).next_attempt_at - now).total_seconds() <= 30 * 1.25


def test_an_outcome_that_stays_unknown_calls_a_person():
    order = f.exit_order(f.hold())
    fail(order, OutcomeUnknown("no answer"))
    assert Alert.objects.count() == 0
    fail(order, StillUnknown("the lookup failed"), now=f.utc_now() + timedelta(seconds=11))
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.order_ref) == ("order_outcome_unknown", "critical", order.pk)
    assert order.client_order_id in alert.message


def test_only_what_may_have_left_us_opens_a_settle_window():
    order, now = f.exit_order(f.hold()), f.utc_now()
    fail(order, StillUnknown("asked too early"), now=now)
    assert f.read_again(order).maybe_sent_at is None
    fail(order, OutcomeUnknown("no answer"), now=now)
    assert f.read_again(order).maybe_sent_at == now


def test_a_refused_entry_is_a_warning_and_holds_nothing():
    order = f.entry_order()
    fail(order, Refused("no money", permanent=True))
    alert = Alert.objects.get()
    assert (f.read_again(order).state, alert.severity, alert.requires_action) == ("cancelled", "warning", False)


@pytest.mark.parametrize(
    ("_case", "tries", "base", "ceiling", "low", "high"),
    [
        ("first", 1, 5, 300, 3.75, 6.25),
        ("doubles", 3, 5, 300, 15, 25),
        ("ceiling", 30, 5, 300, 225, 375),
        ("none yet", 0, 1, 300, 0.75, 1.25),
    ],
)
def test_backoff_doubles_to_a_ceiling_with_a_quarter_of_jitter(_case, tries, base, ceiling, low, high):
    spread = random.Random(7)
    waits = [backoff_seconds(tries=tries, base=base, ceiling=ceiling, spread=spread) for _ in range(200)]
    assert low <= min(waits)
    assert max(waits) <= high
    assert len(set(waits)) > 100
