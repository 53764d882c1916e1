"""A person says what became of an order nobody could prove anything about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from alerts.models import Event
from orders.models import Order
from positions.models import Position
from tests import factories as f
from tests.doors.conftest import client_of
from tests.doors.test_access import refused

Hold = Callable[..., Position]


def lost_order(hold: Hold) -> Order:
    """Return an exit whose outcome is unknown."""
    order = f.exit_order(hold())
    Order.objects.filter(pk=order.pk).update(state="submitting")
    Order.objects.filter(pk=order.pk).update(state="unknown")
    return order


@pytest.mark.parametrize(
    ("_case", "body", "state", "broker_order_id"),
    [
        ("it never arrived", {"arrived": False}, "cancelled", ""),
        ("it is there", {"arrived": True, "broker_order_id": "904837e3"}, "submitted", "904837e3"),
    ],
)
def test_an_unknown_outcome_is_settled_once(
    _case: str, body: dict[str, Any], state: str, broker_order_id: str, trader: APIClient, hold: Hold
) -> None:
    order = lost_order(hold)
    answer = trader.post(f"/api/v1/orders/{order.pk}/settle", body, format="json")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["broker_order_id"]) == (state, broker_order_id)
    assert Event.objects.get(kind="order_settled").actor == "trader"
    problem = refused(trader.post(f"/api/v1/orders/{order.pk}/settle", body, format="json"), 409)
    assert f"order {order.pk} is {state}" in problem["detail"]


def test_it_has_to_be_said_whether_it_arrived(trader: APIClient, hold: Hold) -> None:
    order = lost_order(hold)
    problem = refused(trader.post(f"/api/v1/orders/{order.pk}/settle", {}, format="json"), 400)
    assert problem["errors"] == [{"field": "arrived", "message": "This field is required."}]
    assert f.read_again(order).state == "unknown"


def test_who_may_only_look_settles_nothing(person: Callable[[str], Any], hold: Hold) -> None:
    order = lost_order(hold)
    refused(
        client_of(person("viewer")).post(f"/api/v1/orders/{order.pk}/settle", {"arrived": False}, format="json"), 403
    )
    assert f.read_again(order).state == "unknown"
