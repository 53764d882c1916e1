"""Owns the loopback ports of one installation: chosen once, kept in var/run/services.json.

Ports lie below the range the kernel hands out to outgoing connections, so a restart finds its port free.
"""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20000, 31999


class PortsError(RuntimeError):
    """No port can be had; the message says why."""


def read_ports(var: Path) -> dict[str, int]:
    """Return the ports chosen so far, by process name."""
    try:
        ports = json.loads(_file(var).read_text())
    except FileNotFoundError:
        return {}
    return {str(name): int(port) for name, port in ports.items()}


def claim_ports(var: Path, names: Iterable[str]) -> dict[str, int]:
    """Return a port per name: the one used before where it is still free, else a new one, which is kept.

    Call it while the named processes are stopped.

    :raises PortsError: nothing is free.
    """
    _file(var).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(_file(var).parent / ".ports.lock", os.O_CREAT | os.O_RDWR, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ports = read_ports(var)
        wanted = list(names)
        for name in wanted:
            if name not in ports or not is_free(ports[name]):
                ports[name] = _choose(set(ports.values()))
        draft = _file(var).with_suffix(".new")
        draft.write_text(json.dumps(ports, indent=2))
        draft.replace(_file(var))
    return {name: ports[name] for name in wanted}


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _choose(taken: set[int]) -> int:
    for _ in range(200):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if port not in taken and is_free(port):
            return port
    raise PortsError(f"no free port found between {FIRST_PORT} and {LAST_PORT} on {LOOPBACK}")


def _file(var: Path) -> Path:
    return var / "run" / "services.json"
