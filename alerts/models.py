"""What happened (append-only) and what a person should know. Subjects are plain ids: this room knows no other."""

from __future__ import annotations

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import CheckConstraint, Q, UniqueConstraint


class Event(models.Model):
    """One thing that happened: who, what, when, before and after. Rows are never changed nor deleted."""

    at = models.DateTimeField()
    kind = models.CharField(max_length=48)
    actor = models.CharField(max_length=64, help_text="A user's name, or the part of the system that acted.")
    account_ref = models.BigIntegerField(null=True, blank=True)
    position_ref = models.BigIntegerField(null=True, blank=True)
    order_ref = models.BigIntegerField(null=True, blank=True)
    bracket_ref = models.BigIntegerField(null=True, blank=True)
    data = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(
                fields=["position_ref", "id"], name="event_by_position", condition=Q(position_ref__isnull=False)
            ),
            models.Index(fields=["order_ref", "id"], name="event_by_order", condition=Q(order_ref__isnull=False)),
        ]
        triggers = [
            pgtrigger.Protect(name="event_is_append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            pgtrigger.Trigger(
                name="event_is_never_emptied",
                when=pgtrigger.Before,
                operation=pgtrigger.Truncate,
                level=pgtrigger.Statement,
                func="RAISE EXCEPTION 'the journal is append-only';",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S} {self.kind}"


class Severity(models.TextChoices):
    """How loud an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Alert(models.Model):
    """Something a person should know. One unresolved alert per dedupe key; repeats are counted on it."""

    kind = models.CharField(max_length=48)
    severity = models.CharField(max_length=16, choices=Severity.choices)
    title = models.CharField(max_length=200)
    message = models.TextField()
    data = models.JSONField(default=dict)
    requires_action = models.BooleanField(default=False)
    dedupe_key = models.CharField(max_length=128)
    count = models.PositiveIntegerField(default=1)
    account_ref = models.BigIntegerField(null=True, blank=True)
    position_ref = models.BigIntegerField(null=True, blank=True)
    order_ref = models.BigIntegerField(null=True, blank=True)
    raised_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    deliveries = models.JSONField(default=list)

    class Meta:
        constraints = [
            UniqueConstraint(
                name="alert_is_open_once_per_key", fields=["dedupe_key"], condition=Q(resolved_at__isnull=True)
            ),
            CheckConstraint(name="alert_severity_is_known", condition=Q(severity__in=Severity.values)),
        ]
        indexes = [models.Index(fields=["-raised_at"], name="alert_by_time")]

    def __str__(self) -> str:
        return f"{self.severity}: {self.title}"
