"""Which configuration is in force in this process. What is wrong is told to people and never stops an exit.

File and active version are looked at again when the last look is 0.7 s ago: a change holds everywhere within a second.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import transaction

from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.models import PolicyVersion
from exitmgr.policy.layers import NOTHING, Explanation, Partial, Sources, effective, explain
from exitmgr.policy.local import VARIABLE, Local, Signature, keep_good, kept_good, read_local, signature_of
from exitmgr.policy.schema import InvalidPolicy, Policy
from exitmgr.policy.validation import conflicts_in, override_problems, problems_of
from exitmgr.states import PolicyStatus

LOOK_AGAIN_SECONDS: Final = 0.7
#: What stays wrong is told again this often; another process may have thought it mended.
REMIND_SECONDS: Final = 60.0

_Key = tuple[int, datetime | None] | None


@dataclass(frozen=True)
class InForce:
    """A configuration that holds: ask it what applies to whom. `version_id` is None when no version is active."""

    sources: Sources
    version_id: int | None = None
    _policies: dict[tuple[str, str], Policy] = field(default_factory=dict, repr=False, compare=False)

    def policy_for(self, *, account: str = "", symbol: str = "", overrides: Partial = NOTHING) -> Policy:
        """Return what holds for a position of this account in this symbol, with settings of its own; never refuses.

        Of a position's own settings those that have become wrong since they were made are left out as a whole.
        """
        account = account if self._names("accounts", account) else ""
        symbol = symbol if self._names("symbols", symbol) else ""
        if overrides and not override_problems(overrides):
            return effective(self.sources.layers(account=account, symbol=symbol, overrides=overrides), lenient=True)
        found = self._policies.get((account, symbol))
        if found is None:
            found = effective(self.sources.layers(account=account, symbol=symbol), lenient=True)
            self._policies[account, symbol] = found
        return found

    def explain(
        self, path: str, *, account: str = "", symbol: str = "", overrides: Partial = NOTHING
    ) -> list[Explanation]:
        """Return where a value, or each value of a section, comes from.

        :raises InvalidPolicy: there is no such key.
        """
        layers = self.sources.layers(account=account, symbol=symbol, overrides=overrides)
        return explain(path, layers, policy=effective(layers, lenient=True))

    @property
    def names_accounts(self) -> bool:
        """Return whether any account has settings of its own."""
        return any(document.get("accounts") for document in (self.sources.file, self.sources.version))

    def _names(self, kind: str, name: str) -> bool:
        return any(name in (document.get(kind) or {}) for document in (self.sources.file, self.sources.version))


def in_force(*, now: datetime) -> InForce:
    """Return the configuration in force."""
    return _keeper.look(now=now)


def policy_for(*, account: str, symbol: str, now: datetime, overrides: Partial = NOTHING) -> Policy:
    """Return the configuration in force for an account's name, a symbol and a position's own settings."""
    return in_force(now=now).policy_for(account=account, symbol=symbol, overrides=overrides)


def forget() -> None:
    """Have everything looked up anew, as a process that has just started would."""
    global _keeper  # noqa: PLW0603 - one a process
    _keeper = _Keeper()


def look_again() -> None:
    """Have changes seen at the next call rather than within a second."""
    _keeper.due_at = 0.0


def trading_file() -> Path:
    """Return where the file is."""
    return Path(os.environ.get(VARIABLE) or settings.BASE_DIR / "config" / "trading.yaml")


def local_now() -> Local:
    """Return what file and environment say now, right or wrong.

    :raises InvalidPolicy: one of them is wrong.
    """
    return read_local(trading_file(), os.environ, required=VARIABLE in os.environ)


class _Keeper:
    """One process's view: what is in force, what it was made from, and what people have yet to be told."""

    def __init__(self) -> None:
        self.due_at = 0.0
        self._lock = threading.Lock()
        self._seen: tuple[Signature, _Key] | None = None
        self._local: Local | None = None
        self._now: InForce | None = None
        self._untold: list[Callable[[datetime], object]] = []
        self._wrong: dict[str, Callable[[datetime], object]] = {}
        self._remind_at = 0.0

    def look(self, *, now: datetime) -> InForce:
        """Return what is in force, after a look at what may have changed when the last one is long enough ago."""
        if self._now is None or time.monotonic() >= self.due_at:
            with self._lock:
                self._look(now=now)
        assert self._now is not None  # noqa: S101 - the look found something or raised
        return self._now

    def _look(self, *, now: datetime) -> None:
        active = PolicyVersion.objects.filter(status=PolicyStatus.ACTIVE).values_list("pk", "activated_at").first()
        seen = (signature_of(trading_file()), active)
        if seen != self._seen:
            self._read(seen)
            self._seen = seen
        self.due_at = time.monotonic() + LOOK_AGAIN_SECONDS
        if self._wrong and time.monotonic() >= self._remind_at:
            self._untold += self._wrong.values()
            self._remind_at = time.monotonic() + REMIND_SECONDS
        if self._untold:
            # what is told in a transaction that fails was not told: it stays in the list until a commit
            transaction.on_commit(partial(self._tell, now=now), robust=True)

    def _read(self, seen: tuple[Signature, _Key]) -> None:
        folder = settings.VAR / "policy"
        fallback = self._local or kept_good(folder) or Local()
        problems: dict[str, str] = {}
        try:
            # a file that is gone was not meant to go: the defaults are for an installation that never had one
            local = read_local(trading_file(), os.environ, required=VARIABLE in os.environ or bool(fallback.file))
            problems = conflicts_in(Sources(local.file, local.environment))
        except InvalidPolicy as error:
            local, problems = fallback, error.problems
        if problems:
            local = fallback
        version = self._version(seen[1])
        chosen, told = _fit(local, version, fallback=fallback)
        if told.blames_local and not problems:
            local, problems = fallback, told.problems
        self._local = local
        self._now = chosen or self._last_version(local)
        if not problems:
            keep_good(local, folder)
        self._note(_file_key(), _file_alert, problems)
        self._note("policy_version", _version_alert, {} if told.blames_local else told.problems)

    def _version(self, key: _Key) -> PolicyVersion | None:
        return None if key is None else PolicyVersion.objects.filter(pk=key[0]).first()

    def _last_version(self, local: Local) -> InForce:
        """Return what to go by while the active version is not usable: what this process had, else what was before."""
        if self._now is not None:
            before = self._now.sources
            sources = Sources(local.file, local.environment, before.version, before.number)
            if not conflicts_in(sources):
                return InForce(sources, self._now.version_id)
        earlier = PolicyVersion.objects.filter(status=PolicyStatus.SUPERSEDED).order_by("-superseded_at")
        for version in earlier[:20]:
            chosen, _ = _fit(local, version, fallback=local)
            if chosen is not None:
                return chosen
        return InForce(Sources(local.file, local.environment))

    def _note(
        self, key: str, alert: Callable[[str, dict[str, str], datetime], object], problems: dict[str, str]
    ) -> None:
        self._wrong.pop(key, None)
        if problems:
            self._wrong[key] = lambda now: alert(key, problems, now)
        self._untold.append(self._wrong.get(key, lambda now: resolve_alerts(dedupe_key=key, now=now)))
        self._remind_at = time.monotonic() + REMIND_SECONDS

    def _tell(self, *, now: datetime) -> None:
        while self._untold:
            tell = self._untold.pop(0)
            try:
                tell(now)
            except Exception:
                self._untold.insert(0, tell)
                raise


@dataclass(frozen=True)
class _Told:
    """What a version and the local layers have against each other."""

    problems: dict[str, str] = field(default_factory=dict)
    blames_local: bool = False


def _fit(local: Local, version: PolicyVersion | None, *, fallback: Local) -> tuple[InForce | None, _Told]:
    """Return what a version comes to over the local layers, which are to blame if it fitted the former ones."""
    if version is None:
        return InForce(Sources(local.file, local.environment)), _Told()
    wrong = problems_of(version.document)
    if wrong:
        return None, _Told(wrong)
    sources = Sources(local.file, local.environment, version.document, version.number)
    wrong = conflicts_in(sources)
    if not wrong:
        return InForce(sources, version.pk), _Told()
    former = Sources(fallback.file, fallback.environment, version.document, version.number)
    if local != fallback and not conflicts_in(former):
        return InForce(former, version.pk), _Told(wrong, blames_local=True)
    return None, _Told(wrong)


def _file_key() -> str:
    return f"policy_file:{platform.node()}"[:128]


def _file_alert(key: str, problems: dict[str, str], now: datetime) -> None:
    raise_alert(
        kind="policy_file_invalid",
        severity=Severity.CRITICAL,
        title=f"The configuration on {platform.node()} is wrong; the last good one stays in force"[:200],
        message=f"{_listed(problems)}. Mend {trading_file().name} or the environment; `manage.py policy check` tells "
        "what is wrong, and a mended file holds at once.",
        data={"problems": problems, "file": str(trading_file())},
        dedupe_key=key,
        requires_action=True,
        now=now,
    )


def _version_alert(key: str, problems: dict[str, str], now: datetime) -> None:
    raise_alert(
        kind="policy_version_invalid",
        severity=Severity.CRITICAL,
        title="The active configuration version is wrong; the last good one stays in force",
        message=f"{_listed(problems)}. Activate another version or roll back.",
        data={"problems": problems},
        dedupe_key=key,
        requires_action=True,
        now=now,
    )


def _listed(problems: dict[str, str]) -> str:
    first = [f"{path}: {text}" for path, text in list(problems.items())[:3]]
    more = len(problems) - len(first)
    return "; ".join(first) + (f"; and {more} more" if more else "")


_keeper = _Keeper()
