"""Django app of the exitmgr room."""

from django.apps import AppConfig


class ExitmgrConfig(AppConfig):
    """When and how we leave a position."""

    name = "exitmgr"
