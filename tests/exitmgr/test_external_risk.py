"""The external risk system over real HTTP: what it allows, refuses, signs, and what its silence does."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from alerts.models import Alert, Event
from exitmgr import external_risk
from exitmgr.account_models import RiskAnswer
from exitmgr.entries import EntryRefused
from exitmgr.external_risk import ask_about_exits, sign
from exitmgr.policy.current import forget
from orders.models import Order
from tests import factories as f

D = Decimal
SECRET = "shared by both sides"
ALLOW, REFUSE = {"allow": True}, {"allow": False, "reason": "sector limit"}
pytestmark = pytest.mark.django_db


class RiskSystem:
    """A risk system that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status, self.body, self.delay = 200, json.dumps(ALLOW).encode(), 0.0
        self.during: Callable[[], object] = lambda: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stamp = self.headers["X-Exitmgr-Timestamp"]
                wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
                genuine = hmac.compare_digest(self.headers["X-Exitmgr-Signature"], f"sha256={wanted}")
                outer.asked.append(json.loads(body))
                outer.during()
                time.sleep(outer.delay)
                self.send_response(outer.status if genuine else 401)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def says(self, said: object, *, status: int = 200, delay: float = 0.0) -> None:
        self.status, self.delay = status, delay
        self.body = said if isinstance(said, bytes) else json.dumps(said).encode()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[RiskSystem]:
    """Return a risk system that is asked about every order."""
    running = RiskSystem()
    monkeypatch.setenv(
        "EXITMGR_TRADING__EXIT_MANAGER__RISK__EXTERNAL__URL", f"http://127.0.0.1:{running.server.server_port}/check"
    )
    monkeypatch.setenv("EXITMGR_TRADING__EXIT_MANAGER__RISK__EXTERNAL__TIMEOUT_MS", "1000")
    monkeypatch.setenv("EXITMGR_RISK_SECRET", SECRET)
    forget()
    yield running
    running.stop()
    forget()


def refusal(**asked: Any) -> str:
    """Return why an entry was not made, having seen that nothing was written for it."""
    with pytest.raises(EntryRefused) as told:
        f.entry_order(**asked)
    assert (Order.objects.count(), RiskAnswer.objects.count()) == (0, 0)
    assert list(told.value.problems) == ["account"]
    return told.value.problems["account"]


def test_an_entry_is_asked_about_and_the_answer_kept(system: RiskSystem):
    order = f.entry_order(account=f.make_account(name="swing"), strategy="pairs")
    assert system.asked == [
        {
            "intent": "entry", "account": "swing", "symbol": "AAPL", "side": "buy", "quantity": "10", "price": "100",
            "order_type": "limit", "reason": "entry", "strategy": "pairs", "client_order_id": order.client_order_id,
        }
    ]  # fmt: skip
    answer = RiskAnswer.objects.get()
    assert (answer.order_id, answer.verdict, answer.reason) == (order.pk, "allowed", "")


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_it_is_asked(system: RiskSystem):
    open_ones: list[bool] = []
    system.during = lambda: open_ones.append(connection.in_atomic_block)
    real = external_risk.ask_system

    def asking(*arguments: Any, **options: Any) -> Any:
        open_ones.append(connection.in_atomic_block)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exitmgr.entries.ask_system", asking)
        f.entry_order()
    assert open_ones == [False, False]


def test_what_it_refuses_is_not_entered_and_its_reason_is_told(system: RiskSystem):
    system.says(REFUSE)
    assert refusal() == "the external risk system refused it: sector limit"
    told = Event.objects.get(kind="entry_not_allowed")
    assert told.data == {
        "verdict": "refused",
        "reason": "sector limit",
        "symbol": "AAPL",
        "side": "buy",
        "quantity": "10",
    }
    assert not Alert.objects.exists()


@pytest.mark.parametrize(
    ("_case", "said", "status", "delay", "why"),
    [
        ("a failure", ALLOW, 500, 0, "it answered with status 500"),
        ("sent elsewhere", ALLOW, 302, 0, "it answered with status 302"),
        ("too slow", ALLOW, 200, 1.3, "no answer within 1 s"),
        ("no JSON", b"<html>", 200, 0, "it answered without"),
        ("no verdict", {}, 200, 0, "it answered without"),
        ("a verdict that is none", {"allow": "true"}, 200, 0, "it answered without"),
        ("a list", [True], 200, 0, "it answered without"),
        ("endless", b" " * 70_000 + b'{"allow": true}', 200, 0, "it answered without"),
    ],
)
def test_silence_blocks_entries_and_calls_a_person(_case, said, status, delay, why, system: RiskSystem):
    system.says(said, status=status, delay=delay)
    assert refusal().startswith("the external risk system did not answer, so no entry is made: " + why)
    assert Alert.objects.get(resolved_at=None).kind == "risk_system_silent"
    system.says(ALLOW)
    f.entry_order()
    assert not Alert.objects.filter(resolved_at=None).exists()


def test_a_system_that_is_not_there_blocks_entries(monkeypatch: pytest.MonkeyPatch, system: RiskSystem):
    monkeypatch.setenv("EXITMGR_TRADING__EXIT_MANAGER__RISK__EXTERNAL__URL", f"{f.NOBODY}/check")
    forget()
    assert "it cannot be reached: ConnectionError" in refusal()


@pytest.mark.parametrize(
    ("secret", "why"), [("another", "it answered with status 401"), ("", "EXITMGR_RISK_SECRET is not set")]
)
def test_without_the_right_secret_nobody_answers(secret, why, system: RiskSystem, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXITMGR_RISK_SECRET", secret)
    told = refusal()
    assert why in told
    assert secret == "" or secret not in told


def test_what_our_own_limits_refuse_is_not_asked_about(system: RiskSystem):
    with pytest.raises(EntryRefused, match="halted"):
        f.entry_order(account=f.make_account(trading_state="halted"))
    assert system.asked == []


def test_a_refused_exit_goes_on_and_a_person_is_told(system: RiskSystem):
    system.says(REFUSE)
    order = f.exit_order(f.hold(), aged_seconds=0)
    assert ask_about_exits(now=f.utc_now()) == 1
    assert f.read_again(order).state == "pending"
    assert (system.asked[0]["intent"], system.asked[0]["reason"], system.asked[0]["side"]) == (
        "exit",
        "stop_loss",
        "sell",
    )
    alert = Alert.objects.get()
    assert (alert.kind, alert.order_ref, "sector limit" in alert.message) == (
        "exit_against_risk_system",
        order.pk,
        True,
    )
    assert ask_about_exits(now=f.utc_now()) == 0
    assert (len(system.asked), RiskAnswer.objects.get().verdict) == (1, "refused")


def test_silence_about_exits_means_nothing_and_they_are_asked_about_again(system: RiskSystem):
    system.says(ALLOW, delay=1.3)
    orders = [f.exit_order(f.hold(), aged_seconds=0) for _ in range(3)]
    began = time.monotonic()
    assert ask_about_exits(now=f.utc_now()) == 0
    assert time.monotonic() - began < 2, "all at once, so it costs one timeout"
    assert not Alert.objects.exists()
    system.says(ALLOW)
    assert ask_about_exits(now=f.utc_now()) == 3
    assert set(RiskAnswer.objects.values_list("order_id", "verdict")) == {(order.pk, "allowed") for order in orders}


def test_without_a_system_nobody_is_asked_and_no_order_is_looked_at(django_assert_num_queries):
    f.exit_order(f.hold(), aged_seconds=0)
    ask_about_exits(now=f.utc_now())
    with django_assert_num_queries(0):
        assert ask_about_exits(now=f.utc_now()) == 0


def test_the_signature_is_over_timestamp_and_body():
    signed = sign(b"{}", timestamp="2026-03-02T12:00:00+00:00", secret="s")
    assert signed == hmac.new(b"s", b"2026-03-02T12:00:00+00:00.{}", hashlib.sha256).hexdigest()


def test_the_database_refuses_a_verdict_nobody_knows():
    order = f.entry_order()
    with pytest.raises(IntegrityError, match="riskanswer_verdict_is_known"), transaction.atomic():
        RiskAnswer.objects.create(order=order, verdict="perhaps", asked_at=f.utc_now())
    assert not RiskAnswer.objects.exists()
