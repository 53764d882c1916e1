"""The desk: rows are shown, verbs ask before they act, nothing can be edited behind the system's back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from knox.models import AuthToken

from alerts.models import Alert, Event, Severity
from alerts.notices import raise_alert
from exitmgr.exits import request_exit
from exitmgr.models import Bracket, Heartbeat
from exitmgr.sweep import beat
from orders.cancel import request_cancel
from orders.models import Fill, Order
from positions.models import Account, Bar, Instrument, Position, Quote, RefusedPrice
from tests.doors.conftest import NOW

Hold = Callable[..., Position]
Person = Callable[..., User]
PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2", "fraction_pct": "50"}, {"rr": "3"}]}
OURS = {Account, Alert, Bar, Bracket, Event, Fill, Heartbeat, Instrument, Order, Position, Quote, RefusedPrice}


def desk_of(user: User) -> Client:
    user.is_staff = True
    user.save()
    client = Client(raise_request_exception=True)
    client.force_login(user)
    return client


@pytest.fixture
def desk(person: Person) -> Client:
    """The admin site as a trader sees it."""
    return desk_of(person("trader"))


@pytest.fixture
def root(db: None) -> Client:
    return desk_of(User.objects.create_superuser("root"))


def said(response: Any) -> list[str]:
    return [f"{message.level_tag}: {message}" for message in get_messages(response.wsgi_request)]


def page_of(position: Position, verb: str = "change") -> str:
    return f"/admin/positions/position/{position.pk}/{verb}/"


def test_every_table_and_row_can_be_looked_at(root: Client, hold: Hold) -> None:
    position = hold(plan=PLAN)
    order = request_exit(position_id=position.pk, now=NOW, actor="test")
    Fill.objects.create(
        order=order, account=order.account, execution_id="e", quantity=1, price=2, filled_at=NOW, booked_at=NOW
    )
    raise_alert(kind="k", severity=Severity.CRITICAL, title="t", message="m", dedupe_key="d", now=NOW)
    beat(name="scan", now=NOW)
    Bar.objects.create(instrument=position.instrument, start=NOW, seconds=60, open=1, high=1, low=1, close=1)
    RefusedPrice.objects.create(symbol="AAPL", reason="crossed", count=1, last_seen_at=NOW)
    assert root.get("/admin/").status_code == 200
    for model in OURS:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        table = root.get(base)
        assert table.status_code == 200, base
        row = root.get(f"{base}{model.objects.first().pk}/change/")  # type: ignore[union-attr]
        assert row.status_code == 200, base
        for page in (table.content, row.content):
            assert b"00000000000" not in page  # numbers are not padded to the width of their column
            assert b"PLANTED" not in page
            assert b"https://" not in page.replace(b'placeholder="https://', b"")


def test_nothing_the_system_keeps_can_be_added_changed_or_deleted_by_hand(root: Client, hold: Hold) -> None:
    position = hold()
    request_exit(position_id=position.pk, now=NOW, actor="test")
    raise_alert(kind="k", severity=Severity.CRITICAL, title="t", message="m", dedupe_key="d", now=NOW)
    beat(name="scan", now=NOW)
    for model in OURS - {Account, Instrument}:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert root.get(f"{base}add/").status_code == 403, base
        row = model.objects.first()
        if row is not None:
            assert root.post(f"{base}{row.pk}/change/", {"status": "closed", "quantity": "1"}).status_code == 403, base
            assert root.post(f"{base}{row.pk}/delete/", {"post": "yes"}).status_code == 403, base
    position.refresh_from_db()
    assert (position.status, position.quantity) == ("exit_pending", 100)
    site = django_admin.site
    assert {model for model in site._registry if model in OURS} == OURS


def test_a_part_is_left_after_a_page_that_shows_it(desk: Client, hold: Hold) -> None:
    position = hold("10")
    asked = desk.get(page_of(position, "exit"), {"percentage": "25"})
    text = " ".join(asked.content.decode().split())
    assert "25 % of what remains: sell <strong>2 AAPL</strong>" in text
    assert "present price of <strong>99.9</strong> that is 199.8, a gain of <strong>-0.2</strong>" in text
    assert not Order.objects.exists()
    done = desk.post(page_of(position, "exit"), {"percentage": "25", "note": "news"})
    order = Order.objects.get()
    assert done.url == page_of(position)
    assert said(done) == [f"success: Order {order.pk} is on its way: sell 2 AAPL at market."]
    assert (order.quantity, order.reason) == (2, "manual")
    assert Event.objects.get(kind="exit_requested").actor == "trader"
    assert Event.objects.get(kind="order_remark").data == {"note": "news"}


def test_an_emergency_takes_two_clicks_from_the_table(desk: Client, hold: Hold) -> None:
    position = hold("10")
    table = desk.get("/admin/positions/position/").content.decode()
    assert f'href="{page_of(position, "emergency-exit")}"' in table
    assert "Leave everything now" in desk.get(page_of(position, "emergency-exit")).content.decode()
    assert not Order.objects.exists()
    desk.post(page_of(position, "emergency-exit"))
    order = Order.objects.get()
    assert (order.quantity, order.reason, order.lane) == (10, "emergency", "emergency")


def test_a_refused_exit_says_why_and_does_nothing(desk: Client, hold: Hold) -> None:
    position = hold("10")
    first = request_exit(position_id=position.pk, now=NOW, actor="test")
    page = desk.get(page_of(position, "exit")).content.decode()
    assert "other exits have claimed everything" in page
    done = desk.post(page_of(position, "exit"), {"percentage": "50"})
    assert said(done) == [
        f"error: Nothing was done: position {position.pk} is already being left by "
        f"order {first.pk} (manual, 10, pending); cancel that first or wait for it"
    ]
    assert Order.objects.count() == 1


@pytest.mark.parametrize("percentage", ["", "0", "-5", "101", "abc", "NaN", "Infinity", "1e999", "0.00001"])
def test_a_wrong_percentage_is_asked_for_again(percentage: str, desk: Client, hold: Hold) -> None:
    position = hold("10")
    again = desk.post(page_of(position, "exit"), {"percentage": percentage})
    assert again.status_code == 200
    assert again.context["form"].errors["percentage"]
    assert "Give a percentage above 0 and at most 100." in again.content.decode()
    assert not Order.objects.exists()


def test_a_position_without_a_price_can_be_left(desk: Client, hold: Hold) -> None:
    Instrument.objects.create(symbol="DARK")
    position = hold("10", symbol="DARK")
    assert "No price is known" in desk.get(page_of(position, "exit")).content.decode()
    desk.post(page_of(position, "exit"), {"percentage": "100"})
    assert Order.objects.get().quantity == 10


@pytest.mark.parametrize("verb", ["exit", "emergency-exit"])
@pytest.mark.parametrize("object_id", ["999999", "abc", "99999999999999999999999", "1; DROP TABLE"])
def test_there_is_no_page_for_what_is_not_there(verb: str, object_id: str, root: Client, db: None) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get(username="root"))
    response = client.get(f"/admin/positions/position/{object_id}/{verb}/")
    assert response.status_code == 404


def test_an_order_is_cancelled_and_retried_from_its_page(desk: Client, hold: Hold) -> None:
    position = hold("10")
    order = request_exit(position_id=position.pk, now=NOW, actor="test")
    base = f"/admin/orders/order/{order.pk}/"
    shown = desk.get(f"{base}change/").content.decode()
    assert (f"{base}cancel" in shown, f"{base}retry" in shown) == (True, False)
    assert "may still fill" in desk.get(f"{base}cancel/").content.decode()
    order.refresh_from_db()
    assert order.state == "pending"
    assert said(desk.post(f"{base}cancel/", {"note": "typo"})) == [f"success: Order {order.pk} is now cancelled."]
    assert Event.objects.get(kind="order_cancel_requested").data["why"] == "typo"
    shown = desk.get(f"{base}change/").content.decode()
    assert (f"{base}cancel" in shown, f"{base}retry" in shown) == (False, True)
    done = desk.post(f"{base}retry/")
    again = Order.objects.get(retry_of=order)
    assert f"success: Order {again.pk} is on its way: sell 10 at market." in said(done)
    assert (again.attempt, again.max_slippage_bps) == (2, 200)


def test_an_order_that_ended_is_not_cancelled(root: Client, hold: Hold) -> None:
    order = request_exit(position_id=hold("10").pk, now=NOW, actor="test")
    request_cancel(order_id=order.pk, now=NOW, actor="test")
    before = Event.objects.count()
    response = Client(raise_request_exception=False)
    response.force_login(User.objects.get(username="root"))
    assert response.post(f"/admin/orders/order/{order.pk}/cancel/").status_code == 403
    assert Event.objects.count() == before


def test_a_viewer_sees_no_verb_and_may_do_none(person: Person, hold: Hold) -> None:
    position = hold("10")
    order = request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(10))
    client = desk_of(person("viewer"))
    table = client.get("/admin/positions/position/").content.decode()
    row = client.get(page_of(position)).content.decode()
    assert "emergency-exit" not in table + row
    for url in (
        page_of(position, "exit"),
        page_of(position, "emergency-exit"),
        f"/admin/orders/order/{order.pk}/cancel/",
        f"/admin/orders/order/{order.pk}/retry/",
    ):
        assert client.get(url).status_code == 403
        assert client.post(url, {"percentage": "100"}).status_code == 403
    assert Order.objects.count() == 1


def test_somebody_without_a_login_is_sent_to_it(hold: Hold) -> None:
    position = hold("10")
    response = Client().post(page_of(position, "emergency-exit"))
    assert response.status_code == 302
    assert response.url.startswith("/admin/login/")
    assert not Order.objects.exists()


def test_a_verb_needs_its_csrf_token(person: Person, hold: Hold) -> None:
    position = hold("10")
    desk_of(person("trader"))
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="trader"))
    assert client.post(page_of(position, "emergency-exit")).status_code == 403
    assert not Order.objects.exists()


def test_the_front_page_shows_only_what_its_reader_may_see(person: Person, hold: Hold) -> None:
    hold("10")
    raise_alert(kind="k", severity=Severity.CRITICAL, title="Look here", message="m", dedupe_key="d", now=NOW)
    trader = desk_of(person("trader")).get("/admin/").content.decode()
    assert "long AAPL" in trader
    assert "Look here" in trader
    nobody = desk_of(person()).get("/admin/").content.decode()
    assert "AAPL" not in nobody
    assert "Look here" not in nobody


def test_limits_and_credentials_are_changed_and_told_without_the_secret(person: Person, account: Account) -> None:
    client = desk_of(person("admin"))
    url = f"/admin/positions/account/{account.pk}/change/"
    given = {
        "base_url": "http://127.0.0.1:9",
        "trading_state": "halted",
        "max_order_notional": "5000.5",
        "loss_action": "reduce_only",
    }
    assert client.post(url, {**given, "max_open_positions": "", "key": "", "secret": ""}).status_code == 302
    account.refresh_from_db()
    assert (account.trading_state, account.max_order_notional) == ("active", Decimal("5000.5"))
    assert account.credentials == {"key": "PLANTED-KEY", "secret": "PLANTED-SECRET"}
    assert account.updated_at > NOW
    assert client.post(url, {**given, "key": "K2", "secret": ""}).status_code == 200
    assert client.post(url, {**given, "key": "K2", "secret": "S2-PLANTED"}).status_code == 302
    account.refresh_from_db()
    assert account.credentials == {"key": "K2", "secret": "S2-PLANTED"}
    told = list(Event.objects.filter(kind="account_changed").order_by("pk").values_list("actor", "data"))
    assert told == [
        (
            "admin",
            {
                "before": {"max_order_notional": None},
                "after": {"max_order_notional": "5000.5"},
            },
        ),
        ("admin", {"before": {"credentials": "replaced"}, "after": {"credentials": "replaced"}}),
    ]
    shown = client.get(url).content
    assert b"S2-PLANTED" not in shown
    assert b"K2" not in shown


def test_a_trader_looks_at_accounts_without_changing_them(desk: Client, account: Account) -> None:
    url = f"/admin/positions/account/{account.pk}/change/"
    page = desk.get(url)
    assert page.status_code == 200
    assert b"New API secret" not in page.content
    assert desk.post(url, {"trading_state": "halted"}).status_code == 403
    account.refresh_from_db()
    assert account.trading_state == "active"


def test_instruments_are_set_up_with_an_event(person: Person, db: None) -> None:
    client = desk_of(person("admin"))
    numbers = {
        "tick": "0.01",
        "lot": "1",
        "min_notional": "0",
        "dust": "0.001",
        "collar_pct": "20",
        "max_age_seconds": "60",
    }
    given = {**numbers, "asset_class": "equity", "calendar": "XNYS", "shortable": "on", "tradable": "on"}
    assert client.post("/admin/positions/instrument/add/", {**given, "symbol": "IBM"}).status_code == 302
    instrument = Instrument.objects.get(symbol="IBM")
    url = f"/admin/positions/instrument/{instrument.pk}/change/"
    assert client.post(url, {**given, "collar_pct": "10", "symbol": "OTHER"}).status_code == 302
    instrument.refresh_from_db()
    assert (instrument.symbol, instrument.collar_pct) == ("IBM", 10)
    told = Event.objects.get(kind="instrument_changed")
    assert told.data == {"symbol": "IBM", "before": {"collar_pct": "20"}, "after": {"collar_pct": "10"}}


@pytest.mark.parametrize(
    "table", ["positions/position", "orders/order", "exitmgr/bracket", "positions/quote", "orders/fill"]
)
def test_tables_take_as_many_queries_for_nine_rows_as_for_one(table: str, root: Client, hold: Hold) -> None:
    def add(number: int) -> None:
        position = hold(plan=PLAN)
        order = request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(10))
        Fill.objects.create(
            order=order,
            account=order.account,
            execution_id=str(number),
            quantity=1,
            price=2,
            filled_at=NOW,
            booked_at=NOW,
        )

    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert root.get(f"/admin/{table}/").status_code == 200
        return len(captured)

    add(0)
    count()  # content types and the like are looked up once
    few = count()
    for number in range(1, 9):
        add(number)
    assert count() == few
    assert few <= 12


def test_the_page_of_a_position_takes_a_bounded_number_of_queries(root: Client, hold: Hold) -> None:
    position = hold(plan=PLAN)

    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert root.get(page_of(position)).status_code == 200
        return len(captured)

    request_exit(position_id=position.pk, now=NOW, actor="test", percentage=Decimal(10))
    count()
    few = count()
    request_exit(position_id=position.pk, now=NOW, actor="test", reason="emergency")
    for emergency in Order.objects.filter(reason="emergency"):  # one for what is free, one for what the other holds
        request_cancel(order_id=emergency.pk, now=NOW, actor="test")
    request_exit(position_id=position.pk, now=NOW, actor="test", reason="emergency")
    assert Order.objects.filter(position=position).count() == 5
    assert count() == few


def test_a_token_is_revoked_with_an_event(root: Client, person: Person) -> None:
    row, token = AuthToken.objects.create(person("viewer"))
    table = root.get("/admin/knox/authtoken/").content.decode()
    assert row.token_key in table
    assert token not in table
    assert root.post(f"/admin/knox/authtoken/{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not AuthToken.objects.exists()
    told = Event.objects.get(kind="token_revoked")
    assert (told.actor, told.data) == ("root", {"user": "viewer", "token": row.token_key})
