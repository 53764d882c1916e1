"""Django app of the positions room."""

from django.apps import AppConfig


class PositionsConfig(AppConfig):
    """What we hold and what it is worth."""

    name = "positions"
