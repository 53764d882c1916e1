"""The circuit breaker of an account's broker: what opens it, what still goes, what closes it, and refused keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from alerts.models import Alert
from orders import gate
from orders.breaker import (
    FAILURES_TO_OPEN,
    Health,
    Verdict,
    Way,
    after,
    judge,
    note_clock_skew,
    note_verdicts,
    take_probe,
    way_for,
)
from orders.brokers.headers import Heard, note_heard
from orders.budget import Need
from orders.errors import AccountRefused, LeaseOver, NotSent, OutcomeUnknown, RefusalKind, Refused, StillUnknown
from orders.metered import metered
from orders.models import Breaker, BrokerHealth, Order
from orders.submit import submit
from positions.models import Account
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, client_ids, to

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
STOP, EXIT, REST = Need.STOP, Need.EXIT, Need.REST
OK, FAILED, KEYS = Verdict.ANSWERED, Verdict.FAILED, Verdict.KEYS_REFUSED


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def chained(error: Exception) -> StillUnknown:
    made = StillUnknown("the lookup failed")
    made.__cause__ = error
    return made


@pytest.mark.parametrize(
    ("_case", "error", "verdict"),
    [
        ("an answer", None, OK),
        ("a refusal is an answer", Refused("no"), OK),
        ("so is being told to slow down", Refused("429", kind=RefusalKind.RATE_LIMITED), OK),
        ("nobody there", NotSent("refused"), FAILED),
        ("no answer, or one of a broken server", OutcomeUnknown("503"), FAILED),
        ("told to wait with a question", NotSent("429", retry_after=3.0), Verdict.NOTHING),
        ("nobody was asked", LeaseOver("slow"), Verdict.NOTHING),
        ("held back by ourselves", gate.HeldBack("open", retry_after=1.0), Verdict.NOTHING),
        ("the keys", AccountRefused("revoked"), KEYS),
        ("not found yet", StillUnknown("not found yet"), OK),
        ("a lookup without an answer", chained(OutcomeUnknown("lost")), FAILED),
        ("a lookup with refused keys", chained(AccountRefused("revoked")), KEYS),
    ],
)
def test_what_an_error_says_of_the_broker(_case, error, verdict):
    assert judge(error) is verdict


OPEN = Health(breaker=Breaker.OPEN, failures=5, opened_at=NOW, probe_at=NOW + seconds(2))
REFUSED = Health(breaker=Breaker.REFUSED, failures=1, opened_at=NOW, probe_at=NOW + seconds(60))


@pytest.mark.parametrize(
    ("_case", "health", "later", "ways"),
    [
        ("closed", Health(failures=4), 0, (Way.GO, Way.GO, Way.GO)),
        ("open", OPEN, 1, (Way.GO, Way.WAIT, Way.WAIT)),
        ("open, a probe is due", OPEN, 2, (Way.GO, Way.PROBE, Way.PROBE)),
        ("a probe is out", Health(breaker=Breaker.HALF_OPEN, probe_at=NOW + seconds(9)), 0, (Way.GO, *[Way.WAIT] * 2)),
        ("a probe was lost", Health(breaker=Breaker.HALF_OPEN, probe_at=NOW), 0, (Way.GO, *[Way.PROBE] * 2)),
        ("refused keys hold stops too", REFUSED, 1, (Way.WAIT,) * 3),
        ("new keys", Health(breaker=Breaker.REFUSED, probe_at=NOW + seconds(9), keys_changed=True), 0, [Way.PROBE] * 3),
        ("perhaps it was a mistake of theirs", REFUSED, 60, (Way.PROBE,) * 3),
    ],
)
def test_what_may_go(_case, health, later, ways):
    assert tuple(way_for(health, need, now=NOW + seconds(later)) for need in (STOP, EXIT, REST)) == tuple(ways)


@pytest.mark.parametrize(
    ("_case", "health", "verdicts", "expected"),
    [
        ("one failure", Health(), [FAILED], Health(failures=1)),
        ("not in a row", Health(failures=4), [FAILED, OK], Health()),
        ("the last one", Health(failures=4), [FAILED], OPEN),
        ("five at once", Health(), [FAILED] * 5, OPEN),
        (
            "a probe that failed keeps when it opened, and waits twice as long",
            Health(breaker=Breaker.HALF_OPEN, failures=5, opened_at=NOW - seconds(9)),
            [FAILED],
            Health(breaker=Breaker.OPEN, failures=6, opened_at=NOW - seconds(9), probe_at=NOW + seconds(4)),
        ),
        (
            "never longer than that",
            Health(breaker=Breaker.OPEN, failures=4000, opened_at=NOW),
            [FAILED],
            Health(breaker=Breaker.OPEN, failures=4001, opened_at=NOW, probe_at=NOW + seconds(10)),
        ),
        ("an answer closes it", OPEN, [OK], Health()),
        ("nothing said", OPEN, [Verdict.NOTHING], OPEN),
        ("refused keys", Health(), [OK, KEYS], REFUSED),
        ("an answer to new keys", REFUSED, [OK], Health()),
    ],
)
def test_a_step(_case, health, verdicts, expected):
    assert after(health, verdicts, now=NOW) == expected


# -- kept and told

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch):
    monkeypatch.setattr(gate, "_told_limits", {})
    monkeypatch.setattr(gate, "_noted_skews", {})


def fail_until_open(account, *, now=None):
    for _ in range(FAILURES_TO_OPEN):
        note_verdicts(account_id=account.pk, verdicts=[FAILED], why="503", now=now or f.utc_now())


def health_of(account):
    return BrokerHealth.objects.get(account=account)


def send(orders, broker):
    return submit(order_ids=[order.pk for order in orders], worker="w", connect=to(broker), clock=f.utc_now)


def probe_is_due(account):
    BrokerHealth.objects.filter(account=account).update(probe_at=f.utc_now() - seconds(1))


def due_again():
    Order.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=f.utc_now() - seconds(1))


def test_failures_open_it_and_a_person_hears_of_it_once():
    account, other = f.make_account(), f.make_account()
    fail_until_open(account)
    assert (health_of(account).breaker, health_of(account).failures, health_of(account).why) == ("open", 5, "503")
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.account_ref, alert.count) == (
        "broker_unreachable",
        "critical",
        account.pk,
        1,
    )
    note_verdicts(account_id=account.pk, verdicts=[OK], why="", now=f.utc_now())
    assert (health_of(account).breaker, health_of(account).failures, health_of(account).why) == ("closed", 0, "")
    assert f.read_again(alert).resolved_at is not None
    assert not BrokerHealth.objects.filter(account=other).exists()


def test_a_success_that_changes_nothing_is_written_twice_a_minute_at_most():
    account, now = f.make_account(), f.utc_now()
    assert note_verdicts(account_id=account.pk, verdicts=[OK], why="", now=now) == Health()
    assert note_verdicts(account_id=account.pk, verdicts=[OK], why="", now=now + seconds(29)) is None
    assert health_of(account).last_ok_at == now
    note_verdicts(account_id=account.pk, verdicts=[OK], why="", now=now + seconds(31))
    assert health_of(account).last_ok_at == now + seconds(31)


def test_one_probe_is_out_at_a_time_and_a_lost_one_is_followed_by_another():
    account, now = f.make_account(), f.utc_now()
    fail_until_open(account, now=now)
    assert not take_probe(account_id=account.pk, now=now)
    assert take_probe(account_id=account.pk, now=now + seconds(3))
    assert health_of(account).breaker == "half_open"
    assert not take_probe(account_id=account.pk, now=now + seconds(4))
    assert take_probe(account_id=account.pk, now=now + seconds(14))


def test_while_it_is_open_stops_go_and_entries_and_targets_wait():
    account = f.make_account()
    entry = f.entry_order(account=account, symbol="MSFT")
    target = f.exit_order(f.hold(account=account), reason="take_profit_1")
    stops = [f.exit_order(f.hold(account=account)) for _ in range(2)]
    fail_until_open(account)
    broker = ScriptedBroker(submits=[OutcomeUnknown("503")] * 2)
    assert send([entry, target, *stops], broker) == 2
    assert sorted(client_ids(broker.sent)) == sorted(order.client_order_id for order in stops)
    for held in (entry, target):
        kept = f.read_again(held)
        assert (kept.state, kept.epoch, kept.tries) == ("pending", 0, 0)
        assert "breaker" in kept.last_error
        assert kept.next_attempt_at is not None


def test_one_request_finds_out_and_lets_the_others_through():
    account = f.make_account()
    targets = [f.exit_order(f.hold(account=account), reason="take_profit_1") for _ in range(3)]
    fail_until_open(account)
    probe_is_due(account)
    broker = ScriptedBroker()
    assert send(targets, broker) == 1
    assert client_ids(broker.sent) == [targets[0].client_order_id]
    assert health_of(account).breaker == "closed"
    due_again()
    assert send(targets, broker) == 2
    assert {f.read_again(order).state for order in targets} == {"submitted"}
    assert Alert.objects.get(kind="broker_unreachable").resolved_at is not None


def test_another_account_is_not_held_up():
    broken, well = f.make_account(), f.make_account()
    fail_until_open(broken)
    orders = [f.entry_order(account=broken), f.entry_order(account=well)]
    broker = ScriptedBroker()
    assert send(orders, broker) == 1
    assert client_ids(broker.sent) == [orders[1].client_order_id]


def test_refused_keys_hold_every_order_and_new_keys_let_them_go():
    account = f.make_account()
    stops = [f.exit_order(f.hold(account=account)) for _ in range(2)]
    broker = ScriptedBroker(submits=[AccountRefused("revoked", permanent=True)])
    send(stops[:1], broker)
    kept = f.read_again(stops[0])
    assert (kept.state, kept.tries, kept.reserved, kept.ended_at) == ("pending", 0, 10, None)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("account_refused", "critical", True)
    for _ in range(3):
        due_again()
        assert send(stops, broker) == 0
    assert (len(broker.sent), Alert.objects.get().count) == (1, 1)

    Account.objects.filter(pk=account.pk).update(updated_at=f.utc_now() + seconds(1))
    due_again()
    assert send(stops, broker) == 1, "one finds out whether they are right now"
    assert health_of(account).breaker == "closed"
    due_again()
    send(stops, broker)
    assert {f.read_again(order).state for order in stops} == {"submitted"}
    assert f.read_again(alert).resolved_at is not None


def test_new_keys_that_are_refused_too_are_tried_once():
    account = f.make_account()
    stop = f.exit_order(f.hold(account=account))
    broker = ScriptedBroker(submits=[AccountRefused("revoked")], finds=[AccountRefused("revoked")] * 9)
    send([stop], broker)
    Account.objects.filter(pk=account.pk).update(updated_at=f.utc_now() + seconds(1))
    for _ in range(3):
        due_again()
        send([stop], broker)
    assert (len(broker.sent), len(broker.asked)) == (1, 1)
    assert health_of(account).breaker == "refused"


def test_questions_wait_while_it_is_open_and_their_answers_close_it():
    account = f.make_account()
    order = f.entry_order(account=account)
    ref = f.report_of(order)
    fail_until_open(account)
    broker = ScriptedBroker()
    with pytest.raises(gate.HeldBack):
        metered(to(broker), clock=f.utc_now)([account.pk])(account.pk).find_order(ref)
    assert broker.asked == []
    probe_is_due(account)
    asking = metered(to(broker), clock=f.utc_now)([account.pk])(account.pk)
    asking.find_order(ref)
    asking.find_order(ref)
    assert (len(broker.asked), health_of(account).breaker) == (2, "closed")


# -- clocks


def test_a_clock_that_is_off_is_warned_of_until_it_is_right():
    account = f.make_account()

    class Ahead(ScriptedBroker):
        ahead = 7.0

        def submit(self, request):
            note_heard(Heard(clock_ahead_seconds=self.ahead))
            return super().submit(request)

    broker = Ahead()
    for _ in range(2):
        send([f.exit_order(f.hold(account=account))], broker)
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.count) == ("clock_skew", "warning", 1)
    assert 6000 <= health_of(account).clock_skew_ms <= 8000
    broker.ahead = 0.0
    send([f.exit_order(f.hold(account=account))], broker)
    assert f.read_again(alert).resolved_at is not None
    assert abs(health_of(account).clock_skew_ms) <= 1000


def test_a_clock_within_bounds_is_written_down_once():
    account, now = f.make_account(), f.utc_now()
    BrokerHealth.objects.create(account=account)
    for skew in (2000, -3000):
        note_clock_skew(account_id=account.pk, skew_ms=skew, warn_above_ms=5000, now=now)
    assert (health_of(account).clock_skew_ms, Alert.objects.count()) == (2000, 0)
