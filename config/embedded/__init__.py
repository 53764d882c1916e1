"""Owns the embedded Postgres and Redis: their addresses, and a way to run them.

Settings import this package, so it loads neither Django nor a driver.
"""

from config.embedded.addresses import UnknownAddress, embedded_names, require_url, service_urls
from config.embedded.home import (
    MARK,
    ROOT,
    EmbeddedError,
    default_var,
    discard_home,
    is_alive,
    is_running,
    make_var,
    stop_orphan,
)
from config.embedded.running import Services, serve, start_services

__all__ = [
    "MARK",
    "ROOT",
    "EmbeddedError",
    "Services",
    "UnknownAddress",
    "default_var",
    "discard_home",
    "embedded_names",
    "is_alive",
    "is_running",
    "make_var",
    "require_url",
    "serve",
    "service_urls",
    "start_services",
    "stop_orphan",
]
