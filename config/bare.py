"""The Celery app for processes that send or watch tasks but run none: beat and Flower do without Django's memory."""

from __future__ import annotations

from celery import Celery

app = Celery("exitmgr", fixups=[])
app.config_from_object("config.celery_settings")
