"""Raising and settling alerts. One unresolved alert per key: repeats are counted, not multiplied."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

from alerts.models import Alert, Severity

log = logging.getLogger(__name__)
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.CRITICAL}


def raise_alert(
    *,
    kind: str,
    severity: Severity,
    title: str,
    message: str,
    dedupe_key: str,
    now: datetime,
    requires_action: bool = False,
    data: Mapping[str, Any] | None = None,
    account_ref: int | None = None,
    position_ref: int | None = None,
    order_ref: int | None = None,
) -> int:
    """Record an alert, or count a repeat on the unresolved one with the same key; return its id.

    The message says what happened and what a person can do about it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO alerts_alert (kind, severity, title, message, data, requires_action, dedupe_key, count,
                                      account_ref, position_ref, order_ref, raised_at, last_seen_at, deliveries)
            VALUES (%s, %s, %s, %s, %s::jsonb, %s, %s, 1, %s, %s, %s, %s, %s, '[]')
            ON CONFLICT (dedupe_key) WHERE resolved_at IS NULL
            DO UPDATE SET count = alerts_alert.count + 1, last_seen_at = EXCLUDED.last_seen_at,
                          message = EXCLUDED.message, data = EXCLUDED.data, severity = EXCLUDED.severity
            RETURNING id, count
            """,
            [
                kind,
                severity,
                title,
                message,
                json.dumps(dict(data or {}), cls=DjangoJSONEncoder),
                requires_action,
                dedupe_key,
                account_ref,
                position_ref,
                order_ref,
                now,
                now,
            ],
        )
        alert_id, count = cursor.fetchone()
    if count == 1:
        log.log(_LEVELS[severity], "alert_raised kind=%s key=%s title=%s", kind, dedupe_key, title)
    return int(alert_id)


def resolve_alerts(*, dedupe_key: str, now: datetime) -> int:
    """Mark the unresolved alert with this key as resolved by the system; return how many there were."""
    return Alert.objects.filter(dedupe_key=dedupe_key, resolved_at__isnull=True).update(resolved_at=now)
