"""Tasks of the positions room: doors, nothing else."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from positions import bars


@shared_task(name="positions.roll_bars", ignore_result=True)
def roll_bars(**_later: object) -> None:
    """Turn the accumulators of finished minutes into bars, and note the extremes of positions that were closed."""
    bars.roll_bars(now=timezone.now())
    bars.note_extremes()
