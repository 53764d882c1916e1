"""The live exit plan of each position and the triggers it compiled to."""

from __future__ import annotations

from decimal import Decimal

import pgtrigger
from django.db import models
from django.db.models import CheckConstraint, Q, UniqueConstraint

from exitmgr.rules.types import Direction, TriggerKind
from exitmgr.states import BRACKET_MOVES, TRIGGER_MOVES, BracketStatus, TriggerStatus
from orders.models import Order
from positions.fields import NumberField
from positions.models import Instrument, Position
from positions.values import Basis

_OPEN = [str(BracketStatus.PENDING), str(BracketStatus.ACTIVE), str(BracketStatus.ERROR)]


class Mode(models.TextChoices):
    """Where the protection rests: at the broker, half and half, or only here."""

    NATIVE = "native"
    RESTING = "resting"
    SYNTHETIC = "synthetic"


class Bracket(models.Model):
    """The exit plan of one position, pending until its entry fills."""

    entry_order = models.OneToOneField(Order, null=True, blank=True, on_delete=models.PROTECT, related_name="bracket")
    position = models.ForeignKey(Position, null=True, blank=True, on_delete=models.PROTECT, related_name="brackets")
    mode = models.CharField(max_length=16, choices=Mode.choices, default=Mode.SYNTHETIC)
    status = models.CharField(
        max_length=16, choices=[(status, status) for status in BracketStatus], default=BracketStatus.PENDING
    )
    plan = models.JSONField(help_text="The plan as it was given.")
    entry_price = NumberField(null=True, blank=True, help_text="The average the levels were computed from.")
    stop_price = NumberField(null=True, blank=True)
    target_prices = models.JSONField(default=list)
    ratio = NumberField(null=True, blank=True, help_text="Distance to the first target / distance to the stop.")
    atr = NumberField(null=True, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    armed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(name="bracket_one_live_a_position", fields=["position"], condition=Q(status__in=_OPEN)),
            CheckConstraint(
                name="bracket_status_is_known", condition=Q(status__in=[str(status) for status in BracketStatus])
            ),
            CheckConstraint(
                name="bracket_belongs_to_something",
                condition=Q(position__isnull=False) | Q(entry_order__isnull=False),
            ),
            CheckConstraint(
                name="bracket_active_has_a_position",
                condition=~Q(status=BracketStatus.ACTIVE) | Q(position__isnull=False),
            ),
            CheckConstraint(
                name="bracket_stop_is_positive", condition=Q(stop_price__isnull=True) | Q(stop_price__gt=0)
            ),
        ]
        triggers = [
            pgtrigger.FSM(
                name="bracket_moves_as_its_table_says",
                field="status",
                transitions=sorted({(str(old), str(new)) for (old, _), new in BRACKET_MOVES.items() if old != new}),
            )
        ]

    def __str__(self) -> str:
        return f"{self.mode} bracket #{self.pk} ({self.status})"


class Trigger(models.Model):
    """One armed primitive of a bracket: a level to be crossed, a trail to give back, a time to come."""

    bracket = models.ForeignKey(Bracket, on_delete=models.PROTECT, related_name="triggers")
    position = models.ForeignKey(Position, on_delete=models.PROTECT, related_name="triggers")
    # the probes' own partial index serves it
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="+", db_index=False)
    kind = models.CharField(max_length=8, choices=[(kind, kind) for kind in TriggerKind])
    basis = models.CharField(max_length=4, choices=[(basis, basis) for basis in Basis])
    direction = models.CharField(max_length=4, choices=[(way, way) for way in Direction])
    level = NumberField(null=True, blank=True)
    offset_pct = NumberField(null=True, blank=True, help_text="Of a trail: percent given back from the best price.")
    due_at = models.DateTimeField(null=True, blank=True)
    fraction_pct = NumberField(default=Decimal(100))
    reason = models.CharField(max_length=32)
    urgency = models.SmallIntegerField()
    rung = models.PositiveSmallIntegerField(default=0)
    status = models.CharField(
        max_length=12, choices=[(status, status) for status in TriggerStatus], default=TriggerStatus.ARMED
    )
    armed_seq = models.BigIntegerField(default=0, help_text="The quote's sequence number when it was armed.")
    armed_at = models.DateTimeField()
    fired_at = models.DateTimeField(null=True, blank=True)
    seen_price = NumberField(null=True, blank=True, help_text="The price that fired it.")
    order = models.ForeignKey(
        Order, null=True, blank=True, on_delete=models.PROTECT, related_name="triggers", db_index=False
    )

    class Meta:
        constraints = [
            UniqueConstraint(
                name="trigger_one_live_a_rung",
                fields=["bracket", "reason"],
                condition=Q(status__in=[str(TriggerStatus.ARMED), str(TriggerStatus.BREACHED)]),
            ),
            CheckConstraint(
                name="trigger_has_what_its_kind_needs",
                condition=Q(kind=TriggerKind.LEVEL, level__isnull=False, level__gt=0)
                | Q(kind=TriggerKind.TRAIL, offset_pct__isnull=False, offset_pct__gt=0)
                | Q(kind=TriggerKind.TIMER, due_at__isnull=False),
            ),
            CheckConstraint(
                name="trigger_fraction_is_a_percentage", condition=Q(fraction_pct__gt=0, fraction_pct__lte=100)
            ),
            CheckConstraint(
                name="trigger_fired_has_its_order",
                condition=~Q(status=TriggerStatus.FIRED) | Q(order__isnull=False, fired_at__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                fields=["instrument", "basis", "direction", "level"],
                name="trigger_level_probe",
                condition=Q(kind=TriggerKind.LEVEL, status=TriggerStatus.ARMED),
            ),
            models.Index(
                fields=["due_at"],
                name="trigger_timer_probe",
                condition=Q(kind=TriggerKind.TIMER, status=TriggerStatus.ARMED),
            ),
            models.Index(fields=["position"], name="trigger_breached", condition=Q(status=TriggerStatus.BREACHED)),
        ]
        triggers = [
            pgtrigger.FSM(
                name="trigger_moves_as_its_table_says",
                field="status",
                transitions=sorted((str(old), str(new)) for old, new in TRIGGER_MOVES),
            )
        ]

    def __str__(self) -> str:
        return f"{self.reason} {self.direction} {self.level or self.due_at}"


class Heartbeat(models.Model):
    """When a part of the system last did its work; a silent one is stood in for."""

    name = models.CharField(max_length=32, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} {self.at:%H:%M:%S}"
