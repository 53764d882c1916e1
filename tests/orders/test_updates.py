"""Reports of the broker: a fill books once, order does not matter, an end is believed once its fills are booked."""

from __future__ import annotations

import itertools
import logging
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.models import Alert, Event
from orders.brokers.protocol import ReportedState
from orders.models import Fill, Order
from orders.updates import apply_reports
from positions.models import Position
from tests import factories as f

D = Decimal
S = ReportedState
pytestmark = pytest.mark.django_db


def tell(order, *reports):
    """Apply reports of one order's account."""
    return apply_reports(account_id=order.account_id, reports=list(reports), now=f.utc_now())


def sent_exit(position, **fields):
    """Return an exit that the broker has acknowledged."""
    order = f.exit_order(position, **fields)
    tell(order, f.report_of(order))
    return f.read_again(order)


def sent_entry(**fields):
    """Return an entry that the broker has acknowledged."""
    order = f.entry_order(**fields)
    tell(order, f.report_of(order))
    return f.read_again(order)


# -- fills


def test_a_fill_told_twice_is_booked_once():
    position = f.hold()
    order = sent_exit(position)
    filled = f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")])
    assert [tell(order, filled).fills for _ in range(3)] == [1, 0, 0]
    assert tell(order, filled, filled).fills == 0
    kept, closed = f.read_again(order), f.read_again(position)
    assert (kept.state, kept.filled_quantity, kept.filled_value, kept.reserved) == ("filled", D(10), D(990), D(0))
    assert (closed.status, closed.exited, closed.reserved, closed.realized_pnl) == ("closed", D(10), D(0), D(-10))
    assert Fill.objects.count() == 1
    assert Event.objects.filter(kind="order_fill").count() == 1


def test_the_same_execution_twice_in_one_batch_is_booked_once():
    position = f.hold()
    order = sent_exit(position)
    half = f.report_of(order, executions=[f.fill_of("5", "99")])
    assert tell(order, half, half).fills == 1
    assert f.read_again(position).exited == 5


def test_fills_overtake_their_acknowledgement():
    position = f.hold()
    order = f.exit_order(position)
    Order.objects.filter(pk=order.pk).update(state="submitting", epoch=1)
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("10")]), f.report_of(order, S.WORKING))
    assert f.read_again(order).state == "filled"
    assert f.read_again(position).status == "closed"


@pytest.mark.parametrize("end", [S.CANCELLED, S.REJECTED, S.EXPIRED, S.FILLED])
def test_an_end_is_believed_only_once_all_its_fills_are_booked(end):
    position = f.hold()
    order = sent_exit(position)
    tell(order, f.report_of(order, end, filled="4"))
    waiting = f.read_again(order)
    assert (waiting.state, waiting.heard_at, waiting.reserved) == ("submitted", None, D(10))
    assert f.read_again(position).reserved == 10
    tell(order, f.report_of(order, S.CANCELLED, executions=[f.fill_of("4")]))
    ended = f.read_again(order)
    assert (ended.state, ended.filled_quantity, ended.reserved) == ("cancelled", D(4), D(0))
    part = f.read_again(position)
    assert (part.status, part.remaining, part.reserved) == ("partial_exit", D(6), D(0))


def test_old_news_changes_nothing():
    order = sent_exit(f.hold())
    tell(order, f.report_of(order, executions=[f.fill_of("4")]))
    before = Order.objects.filter(pk=order.pk).values("state", "filled_quantity", "reserved", "accepted_at").get()
    tell(order, f.report_of(order, S.WORKING, filled="0"))
    assert Order.objects.filter(pk=order.pk).values(*before).get() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pending", "submitted"),
        ("submitting", "submitted"),
        ("unknown", "submitted"),
        ("submitted", "submitted"),
        ("partially_filled", "partially_filled"),
        ("cancel_requested", "cancel_requested"),
        ("filled", "filled"),
        ("cancelled", "cancelled"),
    ],
)
def test_an_acknowledgement_moves_an_order_as_its_table_says(before, after):
    ended = f.utc_now() if before in ("filled", "cancelled") else None
    order = f.raw_order(f.hold(), state=before, ended_at=ended, lease_until=f.utc_now())
    for _ in range(2):
        tell(order, f.report_of(order))
    kept = f.read_again(order)
    assert (kept.state, kept.broker_order_id, kept.ended_at) == (after, f"broker-{order.pk}", ended)
    assert kept.lease_until is None
    assert Event.objects.filter(kind="order_accepted", order_ref=order.pk).count() == 1


def test_acknowledgements_fills_and_strangers_of_one_batch_are_each_booked():
    account = f.make_account()
    first, second, third = (f.exit_order(f.hold(account=account)) for _ in range(3))
    stranger = f.report_of(f.exit_order(f.hold()))
    applied = apply_reports(
        account_id=account.pk,
        reports=[
            f.report_of(first),
            f.report_of(second),
            f.report_of(second, S.FILLED, executions=[f.fill_of("10")]),
            stranger,
            f.report_of(third, executions=[f.fill_of("4")]),
        ],
        now=f.utc_now(),
    )
    states = [f.read_again(order).state for order in (first, second, third)]
    assert (states, applied.unmatched) == (["submitted", "filled", "partially_filled"], [stranger])


def test_a_fill_after_the_end_is_still_a_fill():
    position = f.hold()
    order = sent_exit(position)
    tell(order, f.report_of(order, S.CANCELLED))
    assert f.read_again(position).status == "open"
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("10", "99")]))
    assert f.read_again(order).state == "filled"
    assert (f.read_again(position).status, f.read_again(position).realized_pnl) == ("closed", D(-10))


def test_a_fill_after_the_end_takes_back_the_unsent_exit_that_replaced_it():
    position = f.hold()
    first = sent_exit(position)
    tell(first, f.report_of(first, S.CANCELLED))
    second = f.exit_order(position)
    tell(first, f.report_of(first, S.FILLED, executions=[f.fill_of("10")]))
    gone = f.read_again(second)
    assert (gone.state, gone.reserved, gone.news) == ("cancelled", D(0), True)
    assert (f.read_again(position).status, f.read_again(position).reserved) == ("closed", D(0))
    assert Alert.objects.count() == 0


def test_a_partial_fill_after_the_end_shrinks_the_unsent_exit():
    position = f.hold()
    first = sent_exit(position)
    tell(first, f.report_of(first, S.CANCELLED))
    second = f.exit_order(position)
    tell(first, f.report_of(first, S.CANCELLED, executions=[f.fill_of("4")]))
    shrunk = f.read_again(second)
    assert (shrunk.state, shrunk.quantity, shrunk.reserved) == ("pending", D(6), D(6))
    assert (f.read_again(position).remaining, f.read_again(position).reserved) == (D(6), D(6))


def test_a_fill_after_the_end_takes_from_the_least_urgent_first():
    position = f.hold()
    first = sent_exit(position, fraction_pct="50")
    tell(first, f.report_of(first, S.CANCELLED))
    stop = f.exit_order(position, fraction_pct="50")
    target = f.exit_order(position, reason="take_profit_1")
    tell(first, f.report_of(first, S.CANCELLED, executions=[f.fill_of("2")]))
    assert (f.read_again(stop).quantity, f.read_again(target).quantity) == (D(5), D(3))


def test_a_sale_beyond_the_position_is_booked_on_the_order_and_calls_a_person():
    position = f.hold()
    first = sent_exit(position)
    tell(first, f.report_of(first, S.CANCELLED))
    second = sent_exit(position)
    tell(second, f.report_of(second, S.FILLED, executions=[f.fill_of("10", "99")]))
    tell(first, f.report_of(first, S.FILLED, executions=[f.fill_of("10", "98")]))
    closed = f.read_again(position)
    assert (closed.status, closed.exited, closed.realized_pnl) == ("closed", D(10), D(-10))
    assert f.read_again(first).filled_quantity == 10
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity, alert.requires_action) == ("position_oversold", "critical", True)
    assert "10" in alert.message


def test_more_than_was_ordered_is_booked_as_far_as_it_was_held_and_calls_a_person():
    position = f.hold()
    order = sent_exit(position, reason="take_profit_1", fraction_pct="50")
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("7", "101")]))
    kept, open_ = f.read_again(order), f.read_again(position)
    assert (kept.state, kept.quantity, kept.filled_quantity, kept.reserved) == ("filled", D(7), D(7), D(0))
    assert (open_.exited, open_.remaining, open_.reserved, open_.realized_pnl) == (D(7), D(3), D(0), D(7))
    assert Alert.objects.get().kind == "order_overfilled"


def test_more_than_was_held_closes_the_position_and_names_what_is_beyond():
    position = f.hold()
    order = sent_exit(position)
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("8", "99"), f.fill_of("5", "98", fee="1")]))
    kept, closed = f.read_again(order), f.read_again(position)
    assert (kept.state, kept.filled_quantity, kept.filled_value) == ("filled", D(13), D(1282))
    assert (closed.status, closed.exited, closed.exit_value, closed.fees) == ("closed", D(10), D(988), D(1))
    oversold = Alert.objects.get(kind="position_oversold")
    assert (oversold.requires_action, oversold.data) == (True, {"beyond": "3"})


def test_more_than_an_entry_asked_for_is_held_and_protected():
    order = sent_entry()
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("12", "100")]))
    assert (Position.objects.get().quantity, f.read_again(order).quantity) == (D(12), D(12))
    assert Alert.objects.get().kind == "order_overfilled"


def test_dust_closes_a_position_and_nothing_stays_reserved():
    position = f.hold(quantity="10.0005")
    order = sent_exit(position)
    tell(order, f.report_of(order, S.CANCELLED, executions=[f.fill_of("10")]))
    closed = f.read_again(position)
    assert (closed.status, closed.remaining, closed.reserved) == ("closed", D("0.0005"), D(0))


# -- entries


def test_the_first_entry_fill_opens_the_position_and_later_ones_add_to_it():
    order = sent_entry()
    tell(order, f.report_of(order, executions=[f.fill_of("4", "100", fee="0.5")]))
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("6", "101")]))
    kept = f.read_again(order)
    position = kept.position
    assert (kept.state, position.quantity, position.entry_cost) == ("filled", D(10), D(1006))
    assert (position.fees, position.average_entry, Position.objects.count()) == (D("0.5"), D("100.6"), 1)


def test_two_fills_of_a_new_entry_in_one_batch_make_one_position():
    order = sent_entry()
    tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("4", "100"), f.fill_of("6", "100")]))
    assert Position.objects.get().quantity == 10


def test_an_entry_fill_after_the_position_was_left_opens_a_new_one():
    order = sent_entry()
    tell(order, f.report_of(order, executions=[f.fill_of("4", "100")]))
    first = f.read_again(order).position
    leaving = sent_exit(first)
    tell(leaving, f.report_of(leaving, S.FILLED, executions=[f.fill_of("4", "99")]))
    tell(order, f.report_of(order, executions=[f.fill_of("6", "98")]))
    second = f.read_again(order).position
    assert second.pk != first.pk
    assert (second.quantity, second.status) == (D(6), "open")
    assert (f.read_again(first).status, f.read_again(first).quantity) == ("closed", D(4))


# -- who it is about


def test_an_order_is_found_by_the_brokers_id_too():
    order = sent_exit(f.hold())
    nameless = f.report_of(order, S.FILLED, executions=[f.fill_of("10")])
    object.__setattr__(nameless, "client_order_id", "")
    tell(order, nameless)
    assert f.read_again(order).state == "filled"


def test_an_order_of_somebody_else_is_handed_back_and_nothing_is_booked():
    order, other = f.exit_order(f.hold()), f.make_account()
    stranger = f.report_of(order, S.FILLED, executions=[f.fill_of("10")])
    applied = apply_reports(account_id=other.pk, reports=[stranger], now=f.utc_now())
    assert (applied.unmatched, applied.fills) == ([stranger], 0)
    assert f.read_again(order).state == "pending"
    assert Fill.objects.count() == 0


def test_the_same_execution_id_at_two_accounts_is_two_fills():
    one, two = sent_exit(f.hold()), sent_exit(f.hold())
    for order in (one, two):
        tell(order, f.report_of(order, S.FILLED, executions=[f.fill_of("10", execution_id="1")]))
    assert Fill.objects.count() == 2
    assert [f.read_again(order).state for order in (one, two)] == ["filled", "filled"]


def test_a_word_never_heard_before_leaves_the_order_working(caplog):
    order = sent_exit(f.hold())
    with caplog.at_level(logging.ERROR):
        tell(order, f.report_of(order, S.UNRECOGNISED))
    assert f.read_again(order).state == "submitted"
    assert f"broker_status_unrecognised order_id={order.pk}" in caplog.text


def test_a_report_that_cannot_be_booked_calls_a_person_and_spares_its_neighbours():
    account = f.make_account()
    good, bad, also_good = (sent_exit(f.hold(account=account)) for _ in range(3))
    tell(
        good,
        f.report_of(good, S.FILLED, executions=[f.fill_of("10")]),
        f.report_of(bad, S.FILLED, executions=[f.fill_of("10", "0")]),  # for nothing
        f.report_of(also_good, S.FILLED, executions=[f.fill_of("10")]),
    )
    assert [f.read_again(order).state for order in (good, bad, also_good)] == ["filled", "submitted", "filled"]
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity) == ("report_not_applied", "critical")
    assert bad.client_order_id in alert.title
    assert Fill.objects.filter(order=bad).count() == 0


def test_a_fill_and_an_end_are_news_for_the_room_above():
    order = sent_exit(f.hold())
    assert not order.news
    tell(order, f.report_of(order, executions=[f.fill_of("4")]))
    assert f.read_again(order).news
    Order.objects.update(news=False)
    tell(order, f.report_of(order, S.CANCELLED, filled="4"))
    assert f.read_again(order).news


# -- any order, any repetition


def books(order):
    """Return what must not depend on how the news came in."""
    kept = f.read_again(order)
    position = f.read_again(kept.position)
    return (
        kept.state, kept.filled_quantity, kept.filled_value, kept.reserved,
        position.status, position.quantity, position.exited, position.reserved,
        position.entry_cost, position.exit_value, position.fees, position.realized_pnl,
    )  # fmt: skip


def story_of(order, *, parts, end):
    """Return the reports an order makes in their order: accepted, its fills one by one, its end."""
    fills = [f.fill_of(quantity, price, fee="0.01") for quantity, price in parts]
    reports = [f.report_of(order)]
    for count in range(1, len(fills) + 1):
        report = f.report_of(order, executions=[fills[count - 1]], filled=str(f.sum_of(fills[:count])))
        reports.append(report)
    return [*reports, f.report_of(order, end, executions=fills)]


PARTS = [("3", "99.5"), ("2", "99.25"), ("5", "98.75")]


def test_every_order_of_the_news_ends_the_same():
    seen = set()
    for shuffled in itertools.permutations(range(4)):
        order = f.exit_order(f.hold())
        story = story_of(order, parts=[("4", "99.5"), ("6", "98.75")], end=S.FILLED)
        for index in shuffled:
            tell(order, story[index])
        seen.add(books(order))
    assert len(seen) == 1
    assert next(iter(seen))[0] == "filled"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_repeated_reordered_and_delayed_reports_end_as_the_ordered_ones(data):
    entry_parts = data.draw(st.sampled_from([[("10", "100")], [("4", "100"), ("6", "101")], PARTS]))
    exit_parts, end = data.draw(
        st.sampled_from([(PARTS, S.FILLED), (PARTS[:2], S.CANCELLED), ([], S.EXPIRED), ([("10", "99")], S.FILLED)])
    )
    ends = []
    for shuffled in (False, True):
        entry = f.entry_order()
        _play(data, entry, story_of(entry, parts=entry_parts, end=S.FILLED), shuffled=shuffled)
        leaving = f.exit_order(f.read_again(entry).position)
        _play(data, leaving, story_of(leaving, parts=exit_parts, end=end), shuffled=shuffled)
        ends.append((books(entry)[:4], books(leaving)))
        assert Fill.objects.filter(order__in=[entry, leaving]).count() == len(entry_parts) + len(exit_parts)
    assert ends[0] == ends[1]


def _play(data, order, story, *, shuffled):
    """Tell a story; shuffled, each report comes once or more, anywhere, in batches of any size."""
    if not shuffled:
        for report in story:
            tell(order, report)
        return
    extra = data.draw(st.lists(st.sampled_from(range(len(story))), max_size=6))
    places = data.draw(st.permutations([*range(len(story)), *extra]))
    while places:
        size = data.draw(st.integers(1, len(places)))
        tell(order, *(story[place] for place in places[:size]))
        places = places[size:]
