"""Differences as rows: seen, settled, handled, gone. Nothing is done about one that has not stood still."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.models import Difference as Row
from exitmgr.reconcile.books import SETTLE
from exitmgr.reconcile.compare import plain_symbol
from exitmgr.reconcile.differences import Difference, Kind

#: A row is no history: what is gone for so long is forgotten, the journal keeps it.
KEPT: Final = timedelta(days=30)
_HOLDING: Final = "holding:"


def note_sightings(
    *, account_id: int, found: Sequence[Difference], left_out: Collection[str], now: datetime
) -> tuple[list[tuple[Difference, Row]], list[str]]:
    """Write a look down; return all that stands, with their rows, and the keys of what is gone.

    Holdings in symbols that were left out stay as they are.
    """
    with transaction.atomic():
        standing = {
            row.key: row
            for row in Row.objects.select_for_update(no_key=True).filter(
                account_id=account_id, resolved_at__isnull=True
            )
        }
        seen = [(one, _sight(account_id, one, standing.get(one.key), now=now)) for one in found]
        keys = {one.key for one in found}
        gone = [row for key, row in standing.items() if key not in keys and not _is_left_out(key, left_out)]
        for row in gone:
            _resolve(row, now=now)
        Row.objects.filter(account_id=account_id, resolved_at__lt=now - KEPT).delete()
    return seen, [row.key for row in gone]


def is_settled(row: Row, *, now: datetime, after: timedelta = SETTLE) -> bool:
    """Return whether a difference has had the same figures for long enough, and nothing was done about it yet."""
    return row.handled_at is None and now - row.seen_at >= after


def note_handled(row: Row, difference: Difference, *, done: str, actor: str, now: datetime) -> None:
    """Write down what was done about a difference; it is told once, until its figures change."""
    Row.objects.filter(pk=row.pk).update(handled_at=now)
    write_events(
        [
            Happening(
                kind="difference_handled",
                actor=actor,
                account_ref=row.account_id,
                position_ref=difference.position_ids[0] if len(difference.position_ids) == 1 else None,
                order_ref=difference.order_id,
                data={"difference": row.kind, "about": row.key, **row.figures, "done": done},
            )
        ],
        now=now,
    )


def tell(
    difference: Difference,
    *,
    account_id: int,
    title: str,
    message: str,
    now: datetime,
    severity: Severity = Severity.CRITICAL,
    requires_action: bool = True,
) -> None:
    """Call a person about a difference that stands; the alert is settled by itself when the difference is gone."""
    raise_alert(
        kind="books_differ",
        severity=severity,
        title=title[:200],
        message=message,
        dedupe_key=alert_key(account_id, difference.key),
        requires_action=requires_action,
        data={"difference": str(difference.kind), **difference.figures},
        account_ref=account_id,
        position_ref=difference.position_ids[0] if difference.position_ids else None,
        order_ref=difference.order_id,
        now=now,
    )


def alert_key(account_id: int, key: str) -> str:
    """Return the key under which a difference is one alert."""
    return f"reconcile:{account_id}:{key}"[:128]


def standing_split(account_id: int, symbol: str) -> str | None:
    """Return the ratio of the split that an account waits to have confirmed in a symbol."""
    row = Row.objects.filter(
        account_id=account_id, key=f"{_HOLDING}{symbol}", kind=Kind.SPLIT, resolved_at__isnull=True
    ).first()
    return None if row is None else str(row.figures.get("ratio", ""))


def _sight(account_id: int, one: Difference, row: Row | None, *, now: datetime) -> Row:
    figures = dict(one.figures)
    if row is None:
        return Row.objects.create(
            account_id=account_id, key=one.key, kind=one.kind, figures=figures, seen_at=now, last_seen_at=now
        )
    if (row.kind, row.figures) != (str(one.kind), figures):
        row.kind, row.figures, row.seen_at, row.handled_at = str(one.kind), figures, now, None
    row.last_seen_at = now
    row.save(update_fields=["kind", "figures", "seen_at", "last_seen_at", "handled_at"])
    return row


def _is_left_out(key: str, left_out: Collection[str]) -> bool:
    return key.startswith(_HOLDING) and plain_symbol(key.removeprefix(_HOLDING)) in left_out


def _resolve(row: Row, *, now: datetime) -> None:
    row.resolved_at = now
    row.save(update_fields=["resolved_at"])
    resolve_alerts(dedupe_key=alert_key(row.account_id, row.key), now=now)
    if row.handled_at is not None:
        write_events(
            [
                Happening(
                    kind="difference_resolved",
                    actor="reconcile",
                    account_ref=row.account_id,
                    data={"difference": row.kind, "about": row.key},
                )
            ],
            now=now,
        )
