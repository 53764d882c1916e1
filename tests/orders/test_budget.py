"""One budget of requests an account: who may spend how much of it, what the broker says of it, and Redis away."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import settings

from alerts.models import Alert
from orders import gate
from orders.brokers.headers import Heard, note_heard
from orders.brokers.protocol import OrderRef
from orders.budget import EXIT_SHARE, STOP_SHARE, Budget, Need
from orders.errors import NotSent, OutcomeUnknown, RefusalKind, Refused
from orders.gate import need_of
from orders.metered import metered
from orders.models import Order
from orders.submit import submit
from tests import factories as f
from tests.orders.scripted import ScriptedBroker, client_ids, to
from tests.simulator.box import free_port

ACCOUNT = 7
STOP, EXIT, REST = Need.STOP, Need.EXIT, Need.REST


@pytest.fixture
def budget():
    """Return budgets under a name of their own, which are gone afterwards."""
    made = Budget(url=settings.REDIS_URL, prefix=f"exitmgr:test:{secrets.token_hex(6)}:")
    yield made
    client = made._client
    for key in client.scan_iter(f"{made.prefix}*"):
        client.delete(key)


@pytest.fixture
def shared(budget, monkeypatch):
    """Let the gate use these budgets, and forget what it was told of limits."""
    monkeypatch.setattr(gate, "shared_budget", lambda: budget)
    monkeypatch.setattr("orders.metered.shared_budget", lambda: budget)
    monkeypatch.setattr(gate, "_told_limits", {})
    monkeypatch.setattr(gate, "_told_of_store", {})
    return budget


def passed(budget, *needs, limit=200):
    """Return how many of these requests may go, of each need."""
    waits = budget.take(account_id=ACCOUNT, limit=limit, needs=[(need, 1) for need in needs])
    return {need: sum(not wait for one, wait in zip(needs, waits, strict=True) if one is need) for need in set(needs)}


def hear(budget, *, remaining, reset=30.0, limit=200, turned_away=False):
    budget.learn(
        account_id=ACCOUNT,
        heard=Heard(limit=limit, remaining=remaining, reset_seconds=reset, turned_away=turned_away),
    )


def shift(budget, **milliseconds):
    """Move moments that Redis keeps of the budget, as if that time had passed."""
    key = f"{budget.prefix}{ACCOUNT}"
    for name, span in milliseconds.items():
        if budget._client.hexists(key, name):
            budget._client.hincrbyfloat(key, name, -span)


@pytest.mark.parametrize(
    ("_case", "urgency", "need"),
    [
        ("emergency", 0, STOP),
        ("stop", 10, STOP),
        ("manual", 20, STOP),
        ("timed", 30, EXIT),
        ("target", 40, EXIT),
        ("entry", 50, REST),
    ],
)
def test_an_order_spends_by_its_lane(_case, urgency, need):
    assert need_of(urgency) is need


def test_entries_starve_first_then_targets_and_stops_last(budget):
    hear(budget, remaining=200)
    assert passed(budget, *[REST] * 250) == {REST: 110}
    assert passed(budget, *[EXIT] * 250) == {EXIT: 30}
    assert passed(budget, *[STOP] * 250) == {STOP: 60}
    assert (STOP_SHARE, EXIT_SHARE) == (0.30, 0.15)


def test_who_waits_is_not_overtaken_by_the_less_urgent(budget):
    hear(budget, remaining=0)
    assert passed(budget, STOP) == {STOP: 0}
    shift(budget, reset=40_000)
    assert passed(budget, EXIT, REST) == {EXIT: 0, REST: 0}, "the window is new, but a stop waits"
    assert passed(budget, STOP) == {STOP: 1}
    shift(budget, want0=60_000)
    assert passed(budget, EXIT) == {EXIT: 1}


def test_a_target_that_waits_is_not_overtaken_by_an_entry(budget):
    hear(budget, remaining=60)
    assert passed(budget, EXIT) == {EXIT: 0}
    shift(budget, reset=40_000)
    assert passed(budget, REST) == {REST: 0}
    assert passed(budget, STOP, EXIT) == {STOP: 1, EXIT: 1}


def test_a_broker_that_tells_no_window_gets_no_more_than_its_limit_in_any_minute(budget):
    assert passed(budget, *[STOP] * 300) == {STOP: 50}
    shift(budget, at=60_000, want0=60_000)
    assert passed(budget, *[STOP] * 300) == {STOP: 50}
    shift(budget, at=1_000, want0=60_000)
    assert passed(budget, *[STOP] * 10) == {STOP: 2}, "three quarters of 200 a minute are 2.5 a second"


def test_waits_of_a_bucket_are_one_behind_the_other(budget):
    passed(budget, *[STOP] * 50)
    waits = budget.take(account_id=ACCOUNT, limit=200, needs=[(STOP, 1)] * 3)
    assert [round(wait, 1) for wait in waits] == [0.4, 0.8, 1.2]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_a_full_budget_lets_anything_through_however_small_it_is(budget, limit):
    assert budget.take(account_id=ACCOUNT, limit=limit, needs=[(REST, 2)]) == [0]


def test_all_workers_spend_one_budget(budget):
    other = Budget(url=settings.REDIS_URL, prefix=budget.prefix)
    hear(budget, remaining=200)
    assert passed(budget, *[STOP] * 150) == {STOP: 150}
    assert passed(other, *[STOP] * 150) == {STOP: 50}


def test_accounts_have_budgets_of_their_own(budget):
    passed(budget, *[STOP] * 60)
    assert budget.take(account_id=ACCOUNT + 1, limit=200, needs=[(STOP, 1)]) == [0]


@pytest.mark.parametrize(
    ("_case", "said", "left"),
    [
        ("somebody else spends too", [(150, 30), (20, 30)], 20),
        ("an answer that was overtaken", [(20, 30), (150, 30)], 20),
        ("a new window", [(20, 10), (199, 70)], 199),
        ("an answer of the window before", [(199, 70), (5, 10)], 199),
    ],
)
def test_the_broker_knows_better(budget, _case, said, left):
    for remaining, reset in said:
        hear(budget, remaining=remaining, reset=float(reset))
    assert budget.level(account_id=ACCOUNT, limit=200).left == left


def test_the_limit_the_broker_names_counts(budget):
    hear(budget, remaining=1000, limit=1000)
    level = budget.level(account_id=ACCOUNT, limit=200)
    assert (level.limit, level.left) == (1000, 1000)
    assert 29 < level.resets_in <= 30


def test_a_window_that_is_over_is_full_again(budget):
    hear(budget, remaining=0)
    assert passed(budget, STOP) == {STOP: 0}
    shift(budget, reset=30_000)
    assert passed(budget, *[STOP] * 201) == {STOP: 200}
    assert 59 < budget.level(account_id=ACCOUNT, limit=200).resets_in <= 60


def test_being_turned_away_empties_the_budget_until_the_reset(budget):
    hear(budget, remaining=0, reset=3.0, turned_away=True)
    (wait,) = budget.take(account_id=ACCOUNT, limit=200, needs=[(STOP, 1)])
    assert 2 < wait <= 3
    assert budget.level(account_id=ACCOUNT, limit=200).left == 0
    shift(budget, blocked=3_000, reset=3_000)
    assert passed(budget, STOP) == {STOP: 1}


def test_what_was_not_spent_is_given_back(budget):
    hear(budget, remaining=200)
    passed(budget, *[STOP] * 10)
    budget.give_back(account_id=ACCOUNT, cost=4)
    assert budget.level(account_id=ACCOUNT, limit=200).left == 194


def test_without_redis_stops_always_go_and_the_rest_keeps_to_a_small_share(caplog):
    away = Budget(url=f"redis://127.0.0.1:{free_port()}/0")
    assert passed(away, *[STOP] * 500) == {STOP: 500}
    assert passed(away, EXIT, REST) == {EXIT: 0, REST: 0}
    fresh = Budget(url=f"redis://127.0.0.1:{free_port()}/0")
    assert passed(fresh, *[REST] * 50) == {REST: 11}
    assert passed(fresh, *[EXIT] * 50) == {EXIT: 3}
    assert (fresh.is_away, fresh.level(account_id=ACCOUNT, limit=200)) == (True, None)
    assert caplog.text.count("budget_store_away") == 2, "once for each"


# -- orders


@pytest.fixture
def limited(shared, db):
    """Return a broker with a limit of its own."""
    broker = ScriptedBroker()
    broker.capabilities = replace(broker.capabilities, requests_per_minute=200)
    return broker


def empty(shared, account):
    """Spend all of an account's budget; nothing is left for a while."""
    shared.learn(account_id=account.pk, heard=Heard(limit=200, remaining=0, reset_seconds=30.0))


def send(orders, broker):
    return submit(order_ids=[order.pk for order in orders], worker="w", connect=to(broker), clock=f.utc_now)


@pytest.mark.django_db
def test_an_order_without_budget_is_not_claimed_and_costs_no_try(shared, limited):
    position = f.hold()
    order = f.exit_order(position)
    empty(shared, position.account)
    assert send([order], limited) == 0
    kept = f.read_again(order)
    assert (kept.state, kept.epoch, kept.tries, kept.lease_until, kept.reserved) == ("pending", 0, 0, None, 10)
    assert timedelta(seconds=3) < kept.next_attempt_at - f.utc_now() <= timedelta(seconds=5)
    assert "200 requests a minute" in kept.last_error
    assert (limited.sent, limited.asked, Alert.objects.count()) == ([], [], 0)
    Order.objects.update(next_attempt_at=None)
    shared._client.delete(f"{shared.prefix}{position.account_id}")
    assert send([order], limited) == 1
    assert (client_ids(limited.sent), limited.asked) == ([order.client_order_id], []), "its first claim: no lookup"


@pytest.mark.django_db
def test_of_one_doorbell_the_most_urgent_leave(shared, limited):
    account = f.make_account()
    entries = [f.entry_order(account=account, symbol=f"E{n}") for n in range(2)]
    targets = [f.exit_order(f.hold(account=account), reason="take_profit_1") for _ in range(2)]
    stops = [f.exit_order(f.hold(account=account)) for _ in range(3)]
    shared.learn(account_id=account.pk, heard=Heard(limit=200, remaining=2, reset_seconds=30.0))
    assert send(entries + targets + stops, limited) == 2
    assert sorted(client_ids(limited.sent)) == sorted(order.client_order_id for order in stops[:2])
    assert set(Order.objects.filter(state="pending", epoch=0).values_list("pk", flat=True)) == {
        order.pk for order in [*entries, *targets, stops[2]]
    }


@pytest.mark.django_db
def test_a_lookup_is_paid_for_and_what_nobody_claims_is_given_back(shared, limited):
    position = f.hold()
    order, held = f.exit_order(position), f.entry_order(account=position.account, symbol="MSFT")
    account = position.account
    shared.learn(account_id=account.pk, heard=Heard(limit=200, remaining=200, reset_seconds=30.0))
    type(account).objects.filter(pk=account.pk).update(trading_state="reduce_only")
    Order.objects.filter(pk=order.pk).update(epoch=1)
    assert send([order, held], limited) == 1
    assert (len(limited.asked), len(limited.sent)) == (1, 1)
    assert shared.level(account_id=account.pk, limit=200).left == 198


@pytest.mark.django_db
def test_a_limit_the_broker_tells_is_kept_to(shared, db):
    account = f.make_account()
    stops = [f.exit_order(f.hold(account=account)) for _ in range(3)]

    class Telling(ScriptedBroker):
        def submit(self, request):
            note_heard(Heard(limit=60, remaining=1, reset_seconds=20.0))
            return super().submit(request)

    broker = Telling()
    assert send(stops[:1], broker) == 1
    assert gate.levels(to(broker), [account.pk])[account.pk].left == 1
    assert send(stops[1:], broker) == 1
    assert len(broker.sent) == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("_case", "error"),
    [
        ("told by headers and status", Refused("429", kind=RefusalKind.RATE_LIMITED)),
        ("told by the error alone", Refused("slow down", kind=RefusalKind.RATE_LIMITED, retry_after=4.0)),
    ],
)
def test_a_broker_that_turns_us_away_is_left_alone(shared, limited, _case, error):
    account = f.make_account()
    first, second = (f.exit_order(f.hold(account=account)) for _ in range(2))
    limited.submits = [error]
    send([first], limited)
    assert send([second], limited) == 0
    assert [f.read_again(order).tries for order in (first, second)] == [0, 0]
    assert len(limited.sent) == 1


@pytest.mark.django_db
def test_redis_away_is_told_once_and_settled_when_it_is_back(shared, limited, monkeypatch):
    account = f.make_account()
    away = Budget(url=f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(gate, "shared_budget", lambda: away)
    for _ in range(2):
        assert send([f.exit_order(f.hold(account=account))], limited) == 1
    alert = Alert.objects.get()
    assert (alert.kind, alert.count, alert.resolved_at) == ("budget_store_away", 1, None)
    away._away_until = 0.0
    monkeypatch.setattr(away, "_take", shared._take)
    monkeypatch.setattr(away, "_learn", shared._learn)
    send([f.exit_order(f.hold(account=account))], limited)
    assert f.read_again(alert).resolved_at is not None


# -- questions


@pytest.mark.django_db
def test_questions_spend_as_their_order_would(shared, limited):
    position = f.hold()
    stop = f.exit_order(position, fraction_pct="50")
    target = f.exit_order(position, reason="take_profit_1", fraction_pct="50")
    account_id = position.account_id
    shared.learn(account_id=account_id, heard=Heard(limit=200, remaining=60, reset_seconds=30.0))
    broker = metered(to(limited), clock=f.utc_now)([account_id])(account_id)
    ref = f.report_of(target)
    for nobody_waits_for in (ref, OrderRef(client_order_id="of somebody else")):
        with pytest.raises(gate.HeldBack):
            broker.find_order(nobody_waits_for)
    assert limited.asked == []
    broker.find_order(f.report_of(stop))
    broker.cancel(ref)
    assert (limited.asked, limited.cancelled) == ([stop.client_order_id], [target.client_order_id])
    assert shared.level(account_id=account_id, limit=200).left == 58


@pytest.mark.django_db
@pytest.mark.parametrize("error", [NotSent("gone"), OutcomeUnknown("lost")])
def test_a_question_that_fails_is_told_as_it_came(shared, limited, error):
    account = f.make_account()
    limited.finds = [error]
    broker = metered(to(limited), clock=f.utc_now)([account.pk])(account.pk)
    with pytest.raises(type(error)):
        broker.find_order(f.report_of(f.entry_order(account=account)))
    account.refresh_from_db()
    assert account.broker_health.failures == 1
