"""What we asked a broker to do, and what became of it. An order row exists before anything happens outside."""

from __future__ import annotations

from decimal import Decimal

import pgtrigger
from django.db import models
from django.db.models import CheckConstraint, F, Q, UniqueConstraint

from orders.brokers.protocol import OrderClass, OrderSide, OrderType, TimeInForce
from orders.limits import RETRY_ATTEMPTS, RETRY_DELAY_SECONDS
from orders.states import AT_BROKER, CLAIMABLE, LIVE, TERMINAL, OrderState, transitions
from positions.fields import NumberField
from positions.models import Account, Instrument, Position


class Intent(models.TextChoices):
    """Whether an order opens or leaves a position."""

    ENTRY = "entry"
    EXIT = "exit"


class Lane(models.TextChoices):
    """The queue an order is sent through; declared in order of precedence."""

    EMERGENCY = "emergency"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    ENTRY = "entry"


class CancelFor(models.TextChoices):
    """What an order was called off for, where that decides what follows its end."""

    OVERDUE = "overdue"  # it did not fill in its time: the rest goes out again
    ROOM = "room"  # a more urgent exit needs what it holds


def lane_for(urgency: int) -> Lane:
    """Return the lane of an urgency: people and stops share the stop lane, timers and targets the next one."""
    if urgency < 10:
        return Lane.EMERGENCY
    if urgency < 30:
        return Lane.STOP_LOSS
    return Lane.TAKE_PROFIT if urgency < 50 else Lane.ENTRY


def _names(states: frozenset[OrderState]) -> list[str]:
    return sorted(str(state) for state in states)


class Order(models.Model):
    """One order: intent, life, and everything needed to send it again without sending it twice."""

    # no index of their own: each costs every write, and the unique key and the times serve the reads
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="orders", db_index=False)
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="orders", db_index=False)
    position = models.ForeignKey(Position, null=True, blank=True, on_delete=models.PROTECT, related_name="orders")
    intent = models.CharField(max_length=8, choices=Intent.choices)
    reason = models.CharField(max_length=32)
    strategy = models.CharField(max_length=64, blank=True)
    urgency = models.SmallIntegerField(help_text="Smaller goes first.")
    lane = models.CharField(max_length=16, choices=Lane.choices)
    side = models.CharField(max_length=4, choices=[(side, side) for side in OrderSide])
    quantity = NumberField()
    filled_quantity = NumberField(default=Decimal(0))
    filled_value = NumberField(default=Decimal(0), help_text="Sum of quantity x price of the fills.")
    reserved = NumberField(default=Decimal(0), help_text="What this exit still holds of its position's reservation.")
    order_type = models.CharField(max_length=16, choices=[(kind, kind) for kind in OrderType], default=OrderType.MARKET)
    time_in_force = models.CharField(max_length=4, choices=[(tif, tif) for tif in TimeInForce], default=TimeInForce.DAY)
    limit_price = NumberField(null=True, blank=True)
    stop_price = NumberField(null=True, blank=True)
    trail_price = NumberField(null=True, blank=True)
    trail_percent = NumberField(null=True, blank=True)
    expected_price = NumberField(null=True, blank=True)
    trigger_price = NumberField(null=True, blank=True)
    max_slippage_bps = models.PositiveIntegerField(default=150)
    priced_from = models.JSONField(default=dict, help_text="The quote this order was decided on.")
    leg = models.CharField(max_length=32, help_text="Which part of the position's exit; one live order a leg.")
    attempt = models.PositiveIntegerField(default=1, help_text="Raised only when the former attempt is proven ended.")
    order_class = models.CharField(
        max_length=8, choices=[(kind, kind) for kind in OrderClass], default=OrderClass.SIMPLE, db_default="simple"
    )
    group = models.CharField(
        max_length=64, blank=True, db_default="", help_text="Shared by orders of which one cancels the others."
    )
    resting = models.BooleanField(
        default=False, db_default=False, help_text="Protection that rests at the broker; it is not meant to fill soon."
    )
    replaces = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="replaced_by", db_index=False
    )
    work_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="After so long at the broker without being filled it is called off; empty: never.",
    )
    waits = models.BooleanField(
        default=False,
        db_default=False,
        help_text="For quantity that a less urgent exit still holds; it is not sent before it has been given that.",
    )
    replacing = models.JSONField(
        default=dict, blank=True, help_text="A change the broker was asked for and has not confirmed yet."
    )
    held_tries = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Refusals because other orders hold what this one needs."
    )
    polls_failed = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Times in a row that its broker did not answer when asked about it."
    )
    cancel_for = models.CharField(
        max_length=8,
        choices=CancelFor.choices,
        blank=True,
        default="",
        db_default="",
        help_text="Why it was called off, where something follows that; empty: a person did it, or nobody.",
    )
    quarantined_at = models.DateTimeField(
        null=True, blank=True, help_text="Its outcome is unknown and cannot be proven: nothing is sent again for it."
    )
    retry_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="retries", db_index=False
    )
    client_order_id = models.CharField(max_length=64)
    broker_order_id = models.CharField(max_length=64, blank=True)
    state = models.CharField(
        max_length=20, choices=[(state, state) for state in OrderState], default=OrderState.PENDING
    )
    epoch = models.PositiveIntegerField(default=0, help_text="Raised by each claim; a stale one may not settle.")
    lease_until = models.DateTimeField(null=True, blank=True)
    maybe_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="Latest moment at which a try of unknown outcome may have left us."
    )
    claimed_by = models.CharField(max_length=64, blank=True)
    tries = models.PositiveIntegerField(default=0, help_text="Answers that were a refusal.")
    retry_attempts = models.PositiveSmallIntegerField(
        default=RETRY_ATTEMPTS, db_default=RETRY_ATTEMPTS, help_text="Refusals after which it is given up."
    )
    retry_delay_seconds = models.PositiveSmallIntegerField(
        default=RETRY_DELAY_SECONDS,
        db_default=RETRY_DELAY_SECONDS,
        help_text="Wait after the first refusal; it doubles.",
    )
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    rung_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep last rang for it.")
    last_error = models.TextField(blank=True)
    news = models.BooleanField(default=False, help_text="The room above has not looked at the latest change yet.")
    created_at = models.DateTimeField()
    priced_at = models.DateTimeField(null=True, blank=True, help_text="When the deciding price reached us.")
    submitted_at = models.DateTimeField(null=True, blank=True, help_text="First claim.")
    accepted_at = models.DateTimeField(null=True, blank=True)
    heard_at = models.DateTimeField(null=True, blank=True, help_text="Last word from the broker.")
    cancel_asked_at = models.DateTimeField(null=True, blank=True, help_text="When we, not the broker, ended it.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(name="order_client_id_is_unique", fields=["account", "client_order_id"]),
            UniqueConstraint(
                name="order_one_live_exit_a_leg",
                fields=["position", "leg"],
                condition=Q(intent=Intent.EXIT, state__in=_names(LIVE)),
            ),
            CheckConstraint(name="order_state_is_known", condition=Q(state__in=[str(state) for state in OrderState])),
            CheckConstraint(name="order_intent_is_known", condition=Q(intent__in=Intent.values)),
            CheckConstraint(name="order_lane_is_known", condition=Q(lane__in=Lane.values)),
            CheckConstraint(name="order_side_is_known", condition=Q(side__in=[str(side) for side in OrderSide])),
            CheckConstraint(name="order_quantity_is_positive", condition=Q(quantity__gt=0)),
            CheckConstraint(
                name="order_never_fills_beyond_its_quantity",
                condition=Q(filled_quantity__gte=0, filled_quantity__lte=F("quantity")),
            ),
            CheckConstraint(
                name="order_reserves_what_it_may_still_fill",
                condition=Q(reserved__gte=0, reserved__lte=F("quantity") - F("filled_quantity")),
            ),
            CheckConstraint(name="order_ended_reserves_nothing", condition=Q(state__in=_names(LIVE)) | Q(reserved=0)),
            CheckConstraint(
                name="order_exit_has_a_position", condition=Q(intent=Intent.ENTRY) | Q(position__isnull=False)
            ),
            CheckConstraint(
                name="order_prices_are_positive",
                condition=(Q(limit_price__isnull=True) | Q(limit_price__gt=0))
                & (Q(stop_price__isnull=True) | Q(stop_price__gt=0)),
            ),
            CheckConstraint(
                name="order_limit_has_its_price",
                condition=~Q(order_type__in=["limit", "stop_limit"]) | Q(limit_price__isnull=False),
            ),
            CheckConstraint(
                name="order_that_waits_is_unsent",
                condition=Q(waits=False) | Q(state=OrderState.PENDING, reserved=0, intent=Intent.EXIT),
            ),
            CheckConstraint(
                name="order_ended_has_its_time",
                condition=Q(state__in=_names(TERMINAL), ended_at__isnull=False)
                | Q(state__in=_names(LIVE), ended_at__isnull=True),
            ),
        ]
        indexes = [
            models.Index(fields=["urgency", "id"], name="order_to_send", condition=Q(state__in=_names(CLAIMABLE))),
            models.Index(fields=["heard_at"], name="order_at_broker", condition=Q(state__in=_names(AT_BROKER))),
            models.Index(fields=["id"], name="order_with_news", condition=Q(news=True)),
            models.Index(fields=["position"], name="order_at_rest", condition=Q(resting=True, state__in=_names(LIVE))),
            models.Index(fields=["account", "broker_order_id"], name="order_by_broker_id"),
            models.Index(
                fields=["ended_at"],
                name="order_stop_not_filled",
                condition=Q(
                    intent=Intent.EXIT, urgency__lte=10, state__in=_names(TERMINAL - frozenset({OrderState.FILLED}))
                ),
            ),
            models.Index(fields=["-created_at"], name="order_by_time"),
        ]
        triggers = [
            pgtrigger.FSM(name="order_moves_as_its_table_says", field="state", transitions=transitions()),
            pgtrigger.Protect(
                name="order_epoch_never_falls",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(new__epoch__lt=pgtrigger.F("old__epoch")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.side} {self.quantity} {self.instrument} ({self.reason}) #{self.pk}"

    @property
    def average_fill_price(self) -> Decimal | None:
        """Return the average price of what filled, or None."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else None

    @property
    def is_live(self) -> bool:
        """Return whether the order may still trade."""
        return self.state in LIVE


class Breaker(models.TextChoices):
    """What the circuit breaker of an account lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    REFUSED = "refused"  # the broker no longer accepts the account's keys


class BrokerHealth(models.Model):
    """How the broker of an account has answered lately; the circuit breaker's memory."""

    account = models.OneToOneField(Account, primary_key=True, on_delete=models.CASCADE, related_name="broker_health")
    breaker = models.CharField(max_length=12, choices=Breaker.choices, default=Breaker.CLOSED)
    failures = models.PositiveIntegerField(default=0, help_text="In a row.")
    opened_at = models.DateTimeField(null=True, blank=True)
    probe_at = models.DateTimeField(null=True, blank=True, help_text="When it may be tried again.")
    last_ok_at = models.DateTimeField(null=True, blank=True)
    refused_account_at = models.DateTimeField(
        null=True, blank=True, help_text="The account's updated_at whose keys were refused; newer keys are tried."
    )
    why = models.TextField(blank=True)
    clock_skew_ms = models.IntegerField(null=True, blank=True, help_text="Broker's clock less ours.")

    class Meta:
        constraints = [CheckConstraint(name="breaker_is_known", condition=Q(breaker__in=Breaker.values))]

    def __str__(self) -> str:
        return f"broker of account {self.account_id}: {self.breaker}"


class Fill(models.Model):
    """One execution at the broker, booked once."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="fills")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="fills", db_index=False)
    execution_id = models.CharField(max_length=96)
    quantity = NumberField()
    price = NumberField()
    fee = NumberField(default=Decimal(0))
    filled_at = models.DateTimeField()
    booked_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(name="fill_is_booked_once", fields=["account", "execution_id"]),
            CheckConstraint(name="fill_is_positive", condition=Q(quantity__gt=0, price__gt=0)),
        ]
        triggers = [pgtrigger.Protect(name="fill_is_append_only", operation=pgtrigger.Update | pgtrigger.Delete)]

    def __str__(self) -> str:
        return f"{self.quantity} @ {self.price}"
