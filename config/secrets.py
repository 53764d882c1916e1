"""Owns the generated secrets of one installation: made once, kept in var/secrets.json with mode 0600.

An environment variable of the same name wins over the file, so a deployment can keep its secrets elsewhere.
"""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "secrets.json"


class SecretsError(RuntimeError):
    """The secrets cannot be read or written; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every secret of one installation; the upper-case field names are also the environment's names."""

    secret_key: str  #: signs sessions and tokens
    exitmgr_keys: tuple[str, ...]  #: encrypt broker credentials; urlsafe base64 of 32 bytes; the first encrypts
    postgres_owner_password: str  #: superuser of the embedded Postgres, used only to provision
    postgres_app_password: str  #: the plain role the programs connect with
    redis_password: str
    admin_password: str  #: first login of the admin site
    flower_password: str
    simulator_key: str
    simulator_secret: str
    simulator_control_token: str  #: guards the simulator's fault controls


def _password() -> str:
    return secrets.token_urlsafe(24)


def _encryption_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


_MAKERS: Mapping[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "EXITMGR_KEYS": _encryption_key,
    "POSTGRES_OWNER_PASSWORD": _password,
    "POSTGRES_APP_PASSWORD": _password,
    "REDIS_PASSWORD": _password,
    "ADMIN_PASSWORD": lambda: secrets.token_hex(8),
    "FLOWER_PASSWORD": lambda: secrets.token_hex(8),
    "SIMULATOR_KEY": lambda: "SIM" + secrets.token_hex(8).upper(),
    "SIMULATOR_SECRET": _password,
    "SIMULATOR_CONTROL_TOKEN": _password,
}


def load_secrets(*, var: Path, environ: Mapping[str, str] = os.environ) -> Secrets:
    """Return the installation's secrets, making the missing ones first.

    EXITMGR_KEYS is a comma-separated list, newest first.

    :raises SecretsError: the file is damaged, or belongs to somebody else.
    """
    given = {name: environ[name] for name in _MAKERS if environ.get(name)}
    stored = {} if len(given) == len(_MAKERS) else _stored(var)
    values = {**stored, **given}
    keys = tuple(key.strip() for key in values["EXITMGR_KEYS"].split(",") if key.strip())
    _check_keys(keys)
    single = {name.lower(): value for name, value in values.items() if name != "EXITMGR_KEYS"}
    return Secrets(exitmgr_keys=keys, **single)


def _stored(var: Path) -> dict[str, str]:
    path = var / FILE_NAME
    values = _read(path)
    if values.keys() >= _MAKERS.keys():
        return {name: values[name] for name in _MAKERS}
    try:
        var.mkdir(mode=0o711, parents=True, exist_ok=True)
        with os.fdopen(os.open(var / ".secrets.lock", os.O_CREAT | os.O_RDWR, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may start at once; one of them makes the file
            values = _read(path)
            values = {name: values.get(name) or make() for name, make in _MAKERS.items()}
            _write(path, values)
    except OSError as error:
        raise SecretsError(f"cannot write {path}: {error.strerror}; is it another user's folder?") from error
    return values


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        values = json.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SecretsError(f"cannot read {path}: {error.strerror}; is it another user's folder?") from error
    except ValueError as error:
        raise SecretsError(f"{path} is not valid JSON; restore it, or delete it to start afresh") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise SecretsError(f"{path} must hold one JSON object of strings; restore it, or delete it")
    return values


def _write(path: Path, values: Mapping[str, str]) -> None:
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(values, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _check_keys(keys: tuple[str, ...]) -> None:
    for position, key in enumerate(keys, start=1):
        try:
            size = len(base64.urlsafe_b64decode(key))
        except ValueError:
            size = 0
        if size != 32:
            raise SecretsError(f"EXITMGR_KEYS: key {position} is not urlsafe base64 of 32 bytes")
    if not keys:
        raise SecretsError("EXITMGR_KEYS is empty; give at least one key, or unset it to use var/secrets.json")
