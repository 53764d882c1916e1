"""Reading the journal: in its order, without skipping what a transaction that is still open has yet to tell."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q, QuerySet

from alerts.models import Event

#: Longer than a transaction of ours stays open: a task is killed after 30 seconds.
OPEN_AT_MOST: Final = timedelta(seconds=30)
MOST_EVENTS: Final = 1_000


def events_after(*, after: int, limit: int, now: datetime) -> list[Event]:
    """Return the events that follow an id, oldest first.

    Ids are drawn before their transactions commit, so a missing id may still appear. The list therefore ends before
    a gap until what follows it is older than any open transaction; whoever asks again with the last id misses nothing.
    """
    found: list[Event] = []
    last = after
    for event in Event.objects.filter(pk__gt=after).order_by("pk")[:limit]:
        gap = event.pk > last + 1 and last > 0
        if gap and event.at > now - OPEN_AT_MOST:
            break
        found.append(event)
        last = event.pk
    return found


def events_about(*, position_id: int | None = None, order_ids: Collection[int] = ()) -> QuerySet[Event]:
    """Return what happened to a position or to orders, in no particular order."""
    about = Q(order_ref__in=list(order_ids))
    if position_id is not None:
        about |= Q(position_ref=position_id)
    return Event.objects.filter(about)
