"""What the API shows: rows with exact numbers, filtered, paged, in a bounded number of queries, never a secret."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from alerts.events import Happening, write_events
from alerts.models import Event, Severity
from alerts.notices import raise_alert
from alerts.queries import OPEN_AT_MOST, events_after
from exitmgr.exits import request_exit
from positions.bars import save_bars
from positions.models import Account, Bar, Instrument, Position
from positions.values import Side
from tests.doors.conftest import NOW, push

Hold = Callable[..., Position]
PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"rr": "3"}]}


def test_a_position_shows_what_it_is_worth_and_how_it_is_protected(viewer: APIClient, hold: Hold) -> None:
    position = hold("3", plan=PLAN, strategy="momentum")
    shown = viewer.get(f"/api/v1/positions/{position.pk}").json()
    bracket, orders = shown.pop("bracket"), shown.pop("live_orders")
    assert {name: shown[name] for name in shown if not name.endswith("_at")} == {
        "id": position.pk,
        "account": "paper",
        "symbol": "AAPL",
        "side": "long",
        "strategy": "momentum",
        "status": "open",
        "quantity": "3",
        "exited": "0",
        "remaining": "3",
        "reserved": "0",
        "available": "3",
        "average_entry": "100",
        "entry_cost": "300",
        "exit_value": "0",
        "fees": "0",
        "realized_pnl": "0",
        "price": "99.9",
        "unrealized_pnl": "-0.3",
        "unrealized_pct": "-0.1",
        "exit_reason": "",
        "last_exit_price": None,
        "peak": "100",
        "trough": "100",
    }
    assert orders == []
    assert (bracket["status"], bracket["stop_price"], bracket["target_prices"]) == ("active", "99", ["102", "103"])
    assert [(one["reason"], one["level"], one["fraction_pct"], one["status"]) for one in bracket["triggers"]] == [
        ("stop_loss", "99", "100", "armed"),
        ("take_profit_1", "102", "50", "armed"),
        ("take_profit_2", "103", "100", "armed"),
    ]


def test_a_short_is_worth_what_it_could_be_bought_back_for(viewer: APIClient, hold: Hold) -> None:
    position = hold("10", side=Side.SHORT)
    shown = viewer.get(f"/api/v1/positions/{position.pk}").json()
    assert (shown["side"], shown["price"], shown["unrealized_pnl"]) == ("short", "100.1", "-1")


def test_a_position_without_a_price_says_so(viewer: APIClient, hold: Hold, db: None) -> None:
    Instrument.objects.create(symbol="DARK")
    position = hold(symbol="DARK")
    shown = viewer.get(f"/api/v1/positions/{position.pk}").json()
    assert [shown[name] for name in ("price", "priced_at", "unrealized_pnl", "unrealized_pct")] == [None] * 4


def test_an_average_that_does_not_end_is_rounded(viewer: APIClient, hold: Hold) -> None:
    position = hold("3")
    Position.objects.filter(pk=position.pk).update(entry_cost=Decimal(100))
    assert viewer.get(f"/api/v1/positions/{position.pk}").json()["average_entry"] == "33.33333333"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"a", "b", "c"}),
        ("?symbol=IBM", {"b"}),
        ("?side=short", {"c"}),
        ("?strategy=b", {"b"}),
        ("?account=paper", {"a", "b", "c"}),
        ("?account=other", set()),
        ("?status=open", {"a", "b"}),
        ("?status=exit_pending", {"c"}),
        ("?status=open&status=exit_pending&side=long", {"a", "b"}),
    ],
)
def test_positions_can_be_filtered(query: str, expected: set[str], viewer: APIClient, hold: Hold) -> None:
    Instrument.objects.create(symbol="IBM")
    hold(strategy="a")
    hold(strategy="b", symbol="IBM")
    leaving = hold(strategy="c", side=Side.SHORT)
    request_exit(position_id=leaving.pk, now=NOW, actor="test")
    found = viewer.get(f"/api/v1/positions{query}").json()["results"]
    assert {one["strategy"] for one in found} == expected


@pytest.mark.parametrize("ordering", ["", "&ordering=opened_at", "&ordering=-opened_at"])
def test_pages_hold_each_row_once_also_when_times_tie(ordering: str, viewer: APIClient, hold: Hold) -> None:
    wanted = {hold().pk for _ in range(7)}
    seen: list[int] = []
    url: str | None = f"/api/v1/positions?limit=3{ordering}"
    while url:
        page = viewer.get(url).json()
        seen += [one["id"] for one in page["results"]]
        url = page["next"]
    assert len(seen) == 7
    assert set(seen) == wanted


def count_queries(client: APIClient, url: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


@pytest.mark.parametrize("path", ["positions", "orders", "brackets", "quotes", "alerts", "events?after=0"])
def test_lists_take_as_many_queries_for_nine_rows_as_for_one(path: str, viewer: APIClient, hold: Hold) -> None:
    def add(number: int) -> None:
        position = hold(plan=PLAN)
        request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(10))
        Instrument.objects.create(symbol=f"S{number}")
        push(f"S{number}", bid="1", ask="2")
        raise_alert(
            kind="test", severity=Severity.INFO, title="t", message="m", dedupe_key=str(number), position_ref=1, now=NOW
        )

    add(0)
    few = count_queries(viewer, f"/api/v1/{path}")
    for number in range(1, 9):
        add(number)
    assert count_queries(viewer, f"/api/v1/{path}") == few
    assert few <= 8


def test_the_page_of_a_position_takes_a_bounded_number_of_queries(viewer: APIClient, hold: Hold) -> None:
    position = hold(plan=PLAN)
    few = count_queries(viewer, f"/api/v1/positions/{position.pk}")
    request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(10))
    request_exit(position_id=position.pk, now=NOW, actor="test", reason="emergency")
    assert count_queries(viewer, f"/api/v1/positions/{position.pk}") == few


def test_an_order_shows_its_quote_and_its_events(viewer: APIClient, hold: Hold) -> None:
    order = request_exit(position_id=hold("8").pk, now=NOW, actor="ann", percentage=Decimal(50))
    shown = viewer.get(f"/api/v1/orders/{order.pk}").json()
    wanted = {
        "symbol": "AAPL", "side": "sell", "intent": "exit", "reason": "manual", "quantity": "4", "reserved": "4",
        "state": "pending", "is_live": True, "expected_price": "99.9", "max_slippage_bps": 150, "fills": [],
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["priced_from"]["bid"] == "99.9"
    assert [(one["kind"], one["actor"]) for one in shown["events"]] == [("exit_requested", "ann")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 2),
        ("?state=pending", 2),
        ("?state=filled", 0),
        ("?intent=exit", 2),
        ("?intent=entry", 0),
        ("?reason=emergency", 1),
        ("?symbol=AAPL&account=paper", 2),
        ("?symbol=IBM", 0),
        ("?position=999999", 0),
    ],
)
def test_orders_can_be_filtered(query: str, found: int, viewer: APIClient, hold: Hold) -> None:
    request_exit(position_id=hold().pk, now=NOW, actor="test")
    request_exit(position_id=hold().pk, now=NOW, actor="test", reason="emergency")
    assert len(viewer.get(f"/api/v1/orders{query}").json()["results"]) == found


def test_credentials_are_shown_nowhere(admin: APIClient, hold: Hold, account: Account) -> None:
    position = hold()
    admin.patch(f"/api/v1/instruments/{position.instrument_id}", {"tradable": False}, format="json")
    for path in ("accounts", f"accounts/{account.pk}", "positions", f"positions/{position.pk}", "events?after=0"):
        response = admin.get(f"/api/v1/{path}")
        assert response.status_code == 200
        assert b"PLANTED" not in response.content
        assert b"credentials" not in response.content


def test_bars_are_of_one_symbol_and_span(viewer: APIClient, instrument: Instrument) -> None:
    start = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
    numbers = {"open": Decimal(1), "high": Decimal("2.50"), "low": Decimal("0.5"), "close": Decimal(2)}
    bars = [
        Bar(instrument=instrument, start=start + timedelta(minutes=index), seconds=60, volume=Decimal(10), **numbers)
        for index in range(3)
    ]
    save_bars(instrument_id=instrument.pk, seconds=60, bars=bars)
    found = viewer.get("/api/v1/bars?symbol=AAPL&seconds=60&since=2026-03-02T15:31:00Z").json()["results"]
    assert [one["start"] for one in found] == ["2026-03-02T15:32:00Z", "2026-03-02T15:31:00Z"]
    assert (found[0]["high"], found[0]["volume"]) == ("2.5", "10")
    assert viewer.get("/api/v1/bars?symbol=AAPL&seconds=300").json()["results"] == []


def test_alerts_can_be_filtered(viewer: APIClient) -> None:
    for key, severity in (("a", Severity.CRITICAL), ("b", Severity.INFO)):
        raise_alert(kind="k", severity=severity, title=key, message="m", dedupe_key=key, position_ref=7, now=NOW)

    def titles(query: str) -> list[str]:
        return [one["title"] for one in viewer.get(f"/api/v1/alerts{query}").json()["results"]]

    assert titles("?severity=critical") == ["a"]
    assert titles("?position=7&resolved=false") == ["b", "a"]
    assert titles("?resolved=true") == []
    assert titles("?acknowledged=true") == []


def test_the_timeline_of_a_position_runs_from_its_first_event(viewer: APIClient, hold: Hold) -> None:
    position = hold()
    request_exit(position_id=position.pk, now=NOW, actor="ann")
    page = viewer.get(f"/api/v1/positions/{position.pk}/events?limit=3").json()
    kinds = [one["kind"] for one in page["results"]]
    kinds += [one["kind"] for one in viewer.get(page["next"]).json()["results"]]
    assert kinds == ["position_registered", "bracket_created", "bracket_armed", "exit_requested"]


def tell(*kinds: str, at: datetime = NOW) -> list[int]:
    write_events([Happening(kind=kind, data={"price": Decimal("1.50")}) for kind in kinds], now=at)
    return list(Event.objects.order_by("-pk").values_list("pk", flat=True)[: len(kinds)])[::-1]


def test_the_feed_goes_on_where_it_was_left(viewer: APIClient) -> None:
    first, second, third = tell("a", "b", "c")
    page = viewer.get("/api/v1/events", {"after": first - 1, "limit": 2}).json()
    assert [one["id"] for one in page["results"]] == [first, second]
    assert page["next_after"] == second
    assert page["results"][0]["data"] == {"price": "1.50"}
    page = viewer.get("/api/v1/events", {"after": second}).json()
    assert [one["kind"] for one in page["results"]] == ["c"]
    assert viewer.get("/api/v1/events", {"after": third}).json() == {"results": [], "next_after": third}


def test_the_feed_waits_for_an_id_that_may_still_appear(db: None) -> None:
    (first,) = tell("before")
    with connection.cursor() as cursor:  # an id drawn by a transaction that has not committed yet
        cursor.execute("SELECT nextval(pg_get_serial_sequence('alerts_event', 'id'))")
    (later,) = tell("after")
    told = [event.pk for event in events_after(after=first - 1, limit=10, now=NOW)]
    assert told == [first]
    assert events_after(after=first, limit=10, now=NOW + OPEN_AT_MOST - timedelta(seconds=1)) == []
    told = [event.pk for event in events_after(after=first, limit=10, now=NOW + OPEN_AT_MOST + timedelta(seconds=1))]
    assert told == [later]


def test_a_closed_position_keeps_the_figures_of_its_end(viewer: APIClient, hold: Hold) -> None:
    position = hold("10")
    Position.objects.filter(pk=position.pk).update(
        status="closed", exited=10, exit_value=990, closed_at=NOW, peak=Decimal("101.5"), trough=Decimal(99)
    )
    push("AAPL", bid="110", ask="111")
    shown = viewer.get(f"/api/v1/positions/{position.pk}").json()
    assert (shown["unrealized_pnl"], shown["unrealized_pct"]) == ("0", None)
    assert (shown["peak"], shown["trough"]) == ("101.5", "99")
