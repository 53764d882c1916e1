"""Django app of the orders room."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """What we asked a broker to do, and what became of it."""

    name = "orders"
