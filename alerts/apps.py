"""Django app of the alerts room."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Telling people."""

    name = "alerts"
