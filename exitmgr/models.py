"""The live exit plan of each position and the triggers it compiled to."""

from __future__ import annotations

from decimal import Decimal

import pgtrigger
from django.db import models
from django.db.models import CheckConstraint, F, Q, UniqueConstraint

from exitmgr.account_models import Flatten, RiskAnswer  # noqa: F401 - Django finds models here
from exitmgr.rules.types import Act, Direction, TriggerKind
from exitmgr.states import BRACKET_MOVES, POLICY_MOVES, TRIGGER_MOVES, BracketStatus, PolicyStatus, TriggerStatus
from orders.brokers.protocol import OrderType, TimeInForce
from orders.models import Order
from positions.fields import NumberField
from positions.models import Account, Instrument, Position
from positions.values import Basis

_OPEN = [str(BracketStatus.PENDING), str(BracketStatus.ACTIVE), str(BracketStatus.ERROR)]


class Mode(models.TextChoices):
    """Where the protection rests: at the broker, half and half, or only here."""

    NATIVE = "native"
    RESTING = "resting"
    SYNTHETIC = "synthetic"


class Swap(models.TextChoices):
    """The steps by which a resting stop makes room for a target and comes back; each is swept until it is done."""

    STOP_LEAVING = "stop_leaving"
    TARGET_WORKING = "target_working"
    TARGET_LEAVING = "target_leaving"
    STOP_COMING = "stop_coming"


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
    notes = models.JSONField(default=list, help_text="What calls for attention: a fallback used, a target too near.")
    policy_version = models.ForeignKey(
        "PolicyVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+",
        help_text="The configuration it was made with; empty means the file's.",
    )  # fmt: skip
    from_policy = models.BooleanField(
        default=False, db_default=False, help_text="Nobody gave it a plan: the configuration did."
    )
    overrides = models.JSONField(default=dict, help_text="Settings of this position alone, over those of its symbol.")
    swap = models.CharField(
        max_length=16,
        choices=Swap.choices,
        blank=True,
        db_default="",
        help_text="Where a change of resting legs stands.",
    )
    swap_since = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    armed_at = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(null=True, blank=True, help_text="When a person last changed its plan.")
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
        indexes = [
            models.Index(fields=["position"], name="bracket_swapping", condition=~Q(swap="")),
            models.Index(
                fields=["position"],
                name="bracket_at_rest",
                condition=Q(mode__in=[str(Mode.RESTING), str(Mode.NATIVE)], status=BracketStatus.ACTIVE),
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
    slot = models.CharField(max_length=32, help_text="Its name within the plan.")
    kind = models.CharField(max_length=8, choices=[(kind, kind) for kind in TriggerKind])
    act = models.CharField(max_length=8, choices=[(act, act) for act in Act], default=Act.EXIT)
    after = models.CharField(max_length=32, blank=True, help_text="The slot that has to fire before this one is armed.")
    basis = models.CharField(max_length=4, choices=[(basis, basis) for basis in Basis])
    direction = models.CharField(max_length=4, choices=[(way, way) for way in Direction])
    level = NumberField(null=True, blank=True)
    offset_pct = NumberField(null=True, blank=True, help_text="Of a trail: percent given back from the best price.")
    offset = NumberField(null=True, blank=True, help_text="Of a trail: price given back from the best price.")
    due_at = models.DateTimeField(
        null=True, blank=True, help_text="When a timer fires, or a level takes its next step."
    )
    steps = models.JSONField(default=list, help_text="Of a decaying target: [[from when, level], ...].")
    span_seconds = models.PositiveIntegerField(null=True, blank=True, help_text="Of a stagnation: how long it lasts.")
    move_pct = NumberField(null=True, blank=True, help_text="Of a stagnation: the move that ends it.")
    order_type = models.CharField(
        max_length=16, choices=[(kind, kind) for kind in (OrderType.MARKET, OrderType.LIMIT)], default=OrderType.MARKET
    )
    time_in_force = models.CharField(max_length=8, blank=True, choices=[(tif, tif) for tif in TimeInForce])
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
                name="trigger_one_live_a_slot",
                fields=["bracket", "slot"],
                condition=Q(
                    status__in=[str(TriggerStatus.WAITING), str(TriggerStatus.ARMED), str(TriggerStatus.BREACHED)]
                ),
            ),
            CheckConstraint(
                name="trigger_has_what_its_kind_needs",
                condition=Q(kind=TriggerKind.LEVEL, level__isnull=False, level__gt=0)
                | Q(kind=TriggerKind.LEVEL, level__isnull=True, due_at__isnull=False)
                | Q(kind=TriggerKind.TRAIL, offset_pct__isnull=False, offset_pct__gt=0, offset__isnull=True)
                | Q(kind=TriggerKind.TRAIL, offset__isnull=False, offset__gt=0, offset_pct__isnull=True)
                | Q(kind=TriggerKind.TIMER, due_at__isnull=False),
            ),
            CheckConstraint(
                name="trigger_fraction_is_a_percentage", condition=Q(fraction_pct__gt=0, fraction_pct__lte=100)
            ),
            CheckConstraint(
                name="trigger_fired_has_its_order",
                condition=~Q(status=TriggerStatus.FIRED)
                | Q(order__isnull=False, fired_at__isnull=False)
                | (~Q(act=Act.EXIT) & Q(fired_at__isnull=False)),
            ),
            CheckConstraint(
                name="trigger_waits_for_something",
                condition=(Q(status=TriggerStatus.WAITING) & ~Q(after="")) | ~Q(status=TriggerStatus.WAITING),
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
                name="trigger_due_probe",
                condition=Q(due_at__isnull=False, status=TriggerStatus.ARMED),
            ),
            models.Index(
                fields=["basis"],
                name="trigger_on_a_chosen_price",
                condition=Q(
                    kind=TriggerKind.LEVEL, status=TriggerStatus.ARMED, basis__in=[str(Basis.LAST), str(Basis.MID)]
                ),
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
        return f"{self.slot} {self.direction} {self.level or self.due_at}"


class TrailUnit(models.TextChoices):
    """What a trail's offset is measured in."""

    PERCENT = "pct"
    PRICE = "price"


class TrailCohort(models.Model):
    """Trails of one instrument that share their best price, so that a new best one is one write for all of them.

    `nearest` is the price at which the tightest of them fires: the one figure a scan compares. `tightest` may be
    tighter than what is left of the cohort; then a scan looks once too often, never once too little.
    """

    # the probes' own indexes serve it
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="+", db_index=False)
    basis = models.CharField(max_length=4, choices=[(basis, basis) for basis in Basis])
    direction = models.CharField(max_length=4, choices=[(way, way) for way in Direction])
    unit = models.CharField(max_length=8, choices=TrailUnit.choices)
    best = NumberField()
    tightest = NumberField()
    nearest = models.GeneratedField(
        expression=models.Case(
            models.When(unit=TrailUnit.PERCENT, direction=Direction.FALL, then=F("best") * (100 - F("tightest")) / 100),
            models.When(unit=TrailUnit.PERCENT, then=F("best") * (100 + F("tightest")) / 100),
            models.When(direction=Direction.FALL, then=F("best") - F("tightest")),
            default=F("best") + F("tightest"),
        ),
        output_field=NumberField(),
        db_persist=True,
    )
    size = models.PositiveIntegerField(default=1)
    seen_seq = models.BigIntegerField(help_text="The price the best one takes into account already.")

    class Meta:
        constraints = [CheckConstraint(name="cohort_prices_are_positive", condition=Q(best__gt=0, tightest__gt=0))]
        indexes = [
            models.Index(fields=["instrument", "basis", "direction", "nearest"], name="cohort_fire_probe"),
            models.Index(fields=["instrument", "basis", "direction", "best"], name="cohort_best_probe"),
            models.Index(
                fields=["basis"],
                name="cohort_on_a_chosen_price",
                condition=Q(basis__in=[str(Basis.LAST), str(Basis.MID)]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.size} trails from {self.best}"


class Trail(models.Model):
    """Which cohort a trail belongs to; scans move it, and arming makes it."""

    trigger = models.OneToOneField(Trigger, on_delete=models.CASCADE, primary_key=True, related_name="trail")
    cohort = models.ForeignKey(TrailCohort, on_delete=models.PROTECT, related_name="trails", db_index=False)
    offset = NumberField(help_text="In the cohort's unit.")

    class Meta:
        indexes = [models.Index(fields=["cohort", "offset"], name="trail_fire_probe")]

    def __str__(self) -> str:
        return f"{self.offset} in cohort {self.cohort_id}"


class PolicyVersion(models.Model):
    """One configuration with its past: a draft is validated before it may become active; the next one supersedes it."""

    number = models.PositiveIntegerField(unique=True, help_text="Counted up from 1.")
    status = models.CharField(
        max_length=12, choices=[(status, status) for status in PolicyStatus], default=PolicyStatus.DRAFT
    )
    document = models.JSONField(help_text="What it sets; everything else comes from the layers below.")
    note = models.TextField(blank=True, help_text="Why it was made.")
    problems = models.JSONField(default=dict, help_text="What is wrong with it, by path; empty once validated.")
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    activated_by = models.CharField(max_length=150, blank=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(name="policy_one_active", fields=["status"], condition=Q(status=PolicyStatus.ACTIVE)),
            CheckConstraint(
                name="policy_status_is_known", condition=Q(status__in=[str(status) for status in PolicyStatus])
            ),
            CheckConstraint(
                name="policy_active_has_no_problems",
                condition=Q(status=PolicyStatus.DRAFT) | Q(problems={}),
            ),
            CheckConstraint(
                name="policy_active_has_its_time",
                condition=~Q(status=PolicyStatus.ACTIVE) | Q(activated_at__isnull=False),
            ),
        ]
        triggers = [
            pgtrigger.FSM(
                name="policy_moves_as_its_table_says",
                field="status",
                transitions=sorted((str(old), str(new)) for old, new in POLICY_MOVES),
            )
        ]

    def __str__(self) -> str:
        return f"policy {self.number} ({self.status})"


class Protection(models.Model):
    """Whether what remains of a position is covered by live stops, and since when."""

    position = models.OneToOneField(Position, primary_key=True, on_delete=models.CASCADE, related_name="protection")
    protected = models.BooleanField()
    covered = NumberField(default=Decimal(0), help_text="Quantity that live stops cover.")
    since = models.DateTimeField()
    why = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes = [models.Index(fields=["since"], name="position_unprotected", condition=Q(protected=False))]

    def __str__(self) -> str:
        return f"{'protected' if self.protected else 'unprotected'} since {self.since:%H:%M:%S}"


class Difference(models.Model):
    """Where an account at its broker and our books differ; a row a difference, from when it is seen until it is gone.

    `figures` are what both sides said: while they change, nothing is done about it.
    """

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="differences", db_index=False)
    key = models.CharField(max_length=96, help_text="What it is about: a symbol, an order, the account.")
    kind = models.CharField(max_length=32)
    figures = models.JSONField(default=dict)
    seen_at = models.DateTimeField(help_text="Since when it has these figures.")
    last_seen_at = models.DateTimeField()
    handled_at = models.DateTimeField(null=True, blank=True, help_text="When something was done, or a person told.")
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(
                name="difference_is_open_once", fields=["account", "key"], condition=Q(resolved_at__isnull=True)
            ),
        ]
        indexes = [models.Index(fields=["-last_seen_at"], name="difference_by_time")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Heartbeat(models.Model):
    """When a part of the system last did its work; a silent one is stood in for."""

    name = models.CharField(max_length=32, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} {self.at:%H:%M:%S}"
