"""Owns the addresses of Postgres and Redis: the environment's, else those of the embedded servers."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from config.embedded.postgres_server import APP, DATABASE
from config.ports import LOOPBACK, read_ports
from config.secrets import load_secrets


class UnknownAddress(RuntimeError):
    """Nobody has said where a service is."""


VARIABLES = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}


def embedded_names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the services that are ours to run: those whose address the environment does not give."""
    return [name for name, variable in VARIABLES.items() if not environ.get(variable)]


def service_urls(*, var: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Return DATABASE_URL and REDIS_URL, without what is neither given nor was ever started; None if both."""
    urls = {variable: environ[variable] for variable in VARIABLES.values() if environ.get(variable)}
    ports = read_ports(var)
    for name in embedded_names(environ):
        if name not in ports:
            continue
        secrets = load_secrets(var=var, environ=environ)
        if name == "postgres":
            password = quote(secrets.postgres_app_password, safe="")
            urls["DATABASE_URL"] = f"postgresql://{APP}:{password}@{LOOPBACK}:{ports[name]}/{DATABASE}"
        else:
            urls["REDIS_URL"] = f"redis://:{quote(secrets.redis_password, safe='')}@{LOOPBACK}:{ports[name]}/0"
    return urls or None


def require_url(variable: str, *, var: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return DATABASE_URL or REDIS_URL.

    :raises UnknownAddress: it is not set, and no embedded server was ever started for this folder.
    """
    urls = service_urls(var=var, environ=environ) or {}
    if variable not in urls:
        raise UnknownAddress(
            f"{variable} is not set and no embedded server was started in {var}; run script/up or set it"
        )
    return urls[variable]
