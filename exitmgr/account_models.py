"""What people and other systems have said about whole accounts and single orders; rows of this room."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Q, UniqueConstraint

from orders.models import Order
from positions.models import Account


class Flatten(models.Model):
    """A person's wish that an account, or all of them, hold nothing; it lasts until that is so or it is called off."""

    account = models.ForeignKey(
        Account, null=True, blank=True, on_delete=models.CASCADE, related_name="flattens", help_text="Empty: all."
    )
    note = models.TextField(help_text="Why.")
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_why = models.CharField(max_length=200, blank=True)

    class Meta:
        app_label = "exitmgr"
        constraints = [
            UniqueConstraint(
                name="flatten_open_once", fields=["account"], condition=Q(ended_at__isnull=True), nulls_distinct=False
            ),
            CheckConstraint(name="flatten_has_a_reason", condition=~Q(note="")),
        ]

    def __str__(self) -> str:
        return f"flatten {self.account or 'everything'}"


class Verdict(models.TextChoices):
    """What the external risk system made of an order."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    SILENT = "silent"


class RiskAnswer(models.Model):
    """What the external risk system said of an order; an order is asked about once."""

    order = models.OneToOneField(Order, primary_key=True, on_delete=models.CASCADE, related_name="risk_answer")
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    reason = models.TextField(blank=True)
    asked_at = models.DateTimeField()

    class Meta:
        app_label = "exitmgr"
        constraints = [CheckConstraint(name="riskanswer_verdict_is_known", condition=Q(verdict__in=Verdict.values))]

    def __str__(self) -> str:
        return f"order {self.order_id}: {self.verdict}"
