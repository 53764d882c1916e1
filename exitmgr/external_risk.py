"""The external risk system: asked before each order, signed, and given little time.

Its refusal, and its silence, stop an entry. No exit ever waits for it: a refusal of one is told to people and the exit
goes on, its silence means nothing. No transaction is open while it is asked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import requests

from alerts.events import Happening, write_events
from alerts.models import Severity
from alerts.notices import raise_alert, resolve_alerts
from exitmgr.account_models import RiskAnswer, Verdict
from exitmgr.policy.current import in_force, policy_for
from exitmgr.policy.schema import OVERRIDING
from orders.models import Intent, Order
from orders.states import LIVE

log = logging.getLogger(__name__)

#: The environment variable that holds the secret both sides sign with.
SECRET: Final = "EXITMGR_RISK_SECRET"  # noqa: S105 - the name of one
TIMESTAMP_HEADER: Final = "X-Exitmgr-Timestamp"
SIGNATURE_HEADER: Final = "X-Exitmgr-Signature"
#: Exits asked about in one round, and how old one may be to be worth asking about.
EXITS_AT_ONCE: Final = 40
WORTH_ASKING: Final = timedelta(seconds=60)
_AT_ONCE: Final = 8
_SILENT_KEY: Final = "risk_system_silent"
_LONGEST_ANSWER: Final = 64_000
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Where it answers, and how long it may take in seconds."""

    url: str
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One order as it is asked about; numbers go out as strings."""

    intent: str
    account: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal | None
    order_type: str
    reason: str
    strategy: str
    client_order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of asking; `reason` is the system's own, or why there is no answer."""

    verdict: Verdict
    reason: str = ""


def system_for(*, account: str, symbol: str, now: datetime) -> System | None:
    """Return the system that is asked about orders of an account in a symbol, None where none is."""
    external = policy_for(account=account, symbol=symbol, now=now).exit_manager.risk.external
    return System(url=external.url, timeout=external.timeout_ms / 1000) if external.url else None


def sign(body: bytes, *, timestamp: str, secret: str) -> str:
    """Return the signature of a request: HMAC-SHA256 over the timestamp, a point and the body, in hexadecimal."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def ask_system(system: System, question: Question, *, now: datetime) -> Answer:
    """Ask about one order; whatever is not a clear answer in time is silence."""
    return _put(system, question, now=now)()


def _put(system: System, question: Question, *, now: datetime) -> Callable[[], Answer]:
    """Send a question and return a function that waits for the answer, until the system's time is over."""
    secret = os.environ.get(SECRET, "")
    if not secret:
        return lambda: Answer(verdict=Verdict.SILENT, reason=f"{SECRET} is not set, so nothing can be signed")
    future = _pool(os.getpid()).submit(_post, system, question, timestamp=now.isoformat(), secret=secret)
    # of the whole exchange: a peer that sends a byte now and then must not keep anybody waiting
    over_at = time.monotonic() + system.timeout

    def wait() -> Answer:
        try:
            return future.result(timeout=max(0.0, over_at - time.monotonic()))
        except TooLate:
            future.cancel()
            return Answer(verdict=Verdict.SILENT, reason=f"no answer within {system.timeout:g} s")

    return wait


@lru_cache(maxsize=1)
def _pool(_process_id: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="risk")


def _post(system: System, question: Question, *, timestamp: str, secret: str) -> Answer:
    body = json.dumps(asdict(question), default=lambda number: f"{number:f}").encode()
    headers = {
        "Content-Type": "application/json",
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: f"sha256={sign(body, timestamp=timestamp, secret=secret)}",
    }
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc of whoever runs this
            with session.post(
                system.url, data=body, headers=headers, timeout=system.timeout, allow_redirects=False, stream=True
            ) as response:
                return _read(response.status_code, response.raw.read(_LONGEST_ANSWER + 1, decode_content=True))
    except (requests.RequestException, OSError) as error:
        return Answer(verdict=Verdict.SILENT, reason=f"it cannot be reached: {type(error).__name__}")


def _read(status: int, body: bytes) -> Answer:
    if status != 200:
        return Answer(verdict=Verdict.SILENT, reason=f"it answered with status {status}")
    try:
        said: Any = json.loads(body) if len(body) <= _LONGEST_ANSWER else None
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("allow"), bool):
        return Answer(verdict=Verdict.SILENT, reason='it answered without {"allow": true or false}')
    reason = said.get("reason")
    reason = reason[:_LONGEST_REASON].replace("\0", "") if isinstance(reason, str) else ""
    return Answer(verdict=Verdict.ALLOWED if said["allow"] else Verdict.REFUSED, reason=reason)


def entry_refusal(answer: Answer) -> str:
    """Return why an entry is not made, as the one who asked for it reads it."""
    if answer.verdict == Verdict.REFUSED:
        return f"the external risk system refused it: {answer.reason or 'it gave no reason'}"
    return f"the external risk system did not answer, so no entry is made: {answer.reason}"


def note_answer(answer: Answer, *, order_id: int, now: datetime) -> None:
    """Keep what was said of an entry, in the caller's transaction."""
    resolve_alerts(dedupe_key=_SILENT_KEY, now=now)
    RiskAnswer.objects.create(order_id=order_id, verdict=answer.verdict, reason=answer.reason, asked_at=now)


def note_entry_not_allowed(answer: Answer, question: Question, *, account_id: int, now: datetime) -> None:
    """Journal an entry that was not made; a silent system calls a person, because no entry is made meanwhile."""
    about = {"symbol": question.symbol, "side": question.side, "quantity": question.quantity}
    data = {"verdict": answer.verdict, "reason": answer.reason, **about}
    write_events([Happening(kind="entry_not_allowed", account_ref=account_id, data=data)], now=now)
    if answer.verdict == Verdict.SILENT:
        raise_alert(
            kind="risk_system_silent",
            severity=Severity.WARNING,
            title="The external risk system does not answer: no entries are made",
            message=f"{answer.reason}. Exits go on. Mend it, or set exit_manager.risk.external.url to null.",
            dedupe_key=_SILENT_KEY,
            requires_action=True,
            account_ref=account_id,
            now=now,
        )


def ask_about_exits(*, now: datetime) -> int:
    """Ask about live exits that were not asked about yet and call a person for each refusal; return how many.

    They are on their way meanwhile. All of a round are asked at once, so a dead system costs one timeout; whom it left
    without an answer is asked about again, for a minute.
    """
    if not _anybody_to_ask(now=now):
        return 0
    orders = list(
        Order.objects.filter(
            intent=Intent.EXIT, state__in=LIVE, created_at__gt=now - WORTH_ASKING, risk_answer__isnull=True
        )
        .select_related("instrument", "account")
        .defer("account__credentials")
        .order_by("urgency", "pk")[:EXITS_AT_ONCE]
    )
    asked = [
        (order, _put(system, _question_about(order), now=now))
        for order in orders
        if (system := system_for(account=order.account.name, symbol=order.instrument.symbol, now=now)) is not None
    ]
    answers = [(order, answer()) for order, answer in asked]
    heard = [(order, answer) for order, answer in answers if answer.verdict != Verdict.SILENT]
    for order, answer in heard:
        _note_exit(order, answer, now=now)
    if len(heard) < len(answers):
        log.warning("risk_system_silent exits=%s of=%s", len(answers) - len(heard), len(answers))
    return len(heard)


def _anybody_to_ask(*, now: datetime) -> bool:
    """Return whether any part of the configuration names a system."""
    found = in_force(now=now)
    if found.policy_for().exit_manager.risk.external.url:
        return True
    documents = (found.sources.file, found.sources.version)
    parts = (document.get(kind) or {} for document in documents for kind in OVERRIDING)
    return any(_names_a_system(partial) for part in parts for partial in part.values())


def _names_a_system(partial: Any) -> bool:
    for part in ("exit_manager", "risk", "external", "url"):
        partial = partial.get(part) if isinstance(partial, dict) else None
    return partial is not None


def _question_about(order: Order) -> Question:
    return Question(
        intent=order.intent, account=order.account.name, symbol=order.instrument.symbol, side=order.side,
        quantity=order.quantity, price=order.limit_price or order.expected_price, order_type=order.order_type,
        reason=order.reason, strategy=order.strategy, client_order_id=order.client_order_id,
    )  # fmt: skip


def _note_exit(order: Order, answer: Answer, *, now: datetime) -> None:
    _, new = RiskAnswer.objects.get_or_create(
        order=order, defaults={"verdict": answer.verdict, "reason": answer.reason, "asked_at": now}
    )
    if not new or answer.verdict != Verdict.REFUSED:
        return
    raise_alert(
        kind="exit_against_risk_system",
        severity=Severity.WARNING,
        title=f"The external risk system refused exit {order.pk} in {order.instrument}; it goes on",
        message=f"It said: {answer.reason or 'no reason'}. Exits are never stopped for it; look whether it is right.",
        dedupe_key=f"exit_against_risk_system:{order.pk}",
        account_ref=order.account_id,
        position_ref=order.position_id,
        order_ref=order.pk,
        now=now,
    )
