"""The doors to the configuration: looking is everybody's, changing the administrators'."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from rest_framework.test import APIClient

from alerts.models import Event
from exitmgr.models import Bracket, PolicyVersion
from exitmgr.policy.current import look_again
from exitmgr.roles import write_roles
from tests import factories as f

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.exitmgr.policy.addresses")]

WIDER = {"exit_manager": {"stop_loss": {"threshold_pct": "3"}}}


@pytest.fixture(autouse=True)
def _without_static_files(settings: Any) -> None:
    settings.WHITENOISE_AUTOREFRESH = True


def client_of(role: str) -> APIClient:
    write_roles()
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    if role == "admin":
        user.user_permissions.add(
            *Permission.objects.filter(codename__in=["add_policyversion", "change_policyversion"])
        )
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(User.objects.get(pk=user.pk))
    return client


def get(client: APIClient, path: str) -> Any:
    look_again()
    response = client.get(f"/api/v1/policies{path}")
    assert response.status_code == 200, response.content
    return response.json()


def post(client: APIClient, path: str, body: Any = None, expected: int = 200) -> Any:
    look_again()
    text = json.dumps(body if body is not None else {})
    response = client.post(f"/api/v1/policies{path}", text, content_type="application/json")
    assert response.status_code == expected, response.content
    return response.json()


def test_a_version_from_its_draft_to_its_rollback() -> None:
    admin = client_of("admin")
    made = post(admin, "", {"document": WIDER, "note": "wider"}, expected=201)
    assert (made["number"], made["status"], made["document"], made["created_by"]) == (1, "draft", WIDER, "admin")
    assert post(admin, "/1/validate")["status"] == "validated"
    stop = "exit_manager.stop_loss.threshold_pct"
    assert get(admin, "/1/diff") == [{"path": stop, "before": "1", "after": "3"}]
    assert post(admin, "/1/activate", {"replaces": None})["activated_by"] == "admin"
    assert get(admin, "/in-force")["exit_manager"]["stop_loss"]["threshold_pct"] == "3"
    assert get(admin, f"/explain?path={stop}") == [
        {"path": stop, "value": "3", "source": "version 1",
         "says": [{"layer": "default", "value": "1"}, {"layer": "version 1", "value": "3"}]}
    ]  # fmt: skip
    assert get(admin, "/1/diff?against=file") == [{"path": stop, "before": "1", "after": "3"}]
    assert get(admin, "/1/diff") == []
    post(admin, "", {"document": {}}, expected=201)
    post(admin, "/2/validate")
    post(admin, "/2/activate")
    assert [one["status"] for one in get(admin, "")["results"]] == ["active", "superseded"]
    assert [one["number"] for one in get(admin, "?status=superseded")["results"]] == [1]
    assert post(admin, "/rollback")["number"] == 1
    assert get(admin, "/1")["status"] == "active"
    assert set(Event.objects.values_list("actor", flat=True)) == {"admin"}


def test_open_positions_are_previewed_and_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exitmgr.brackets.ring", lambda *_args, **_options: True)
    f.set_quote("101")
    position = f.hold(account=f.make_account(name="paper"))
    Bracket.objects.update(from_policy=True, overrides={"exit_manager": {"retry_attempts": 7}})
    admin, viewer = client_of("admin"), client_of("viewer")
    post(admin, "", {"document": WIDER}, expected=201)
    bracket = Bracket.objects.get()
    assert get(viewer, "/1/preview") == [
        {"bracket": bracket.pk, "position": position.pk, "account": "paper", "symbol": "AAPL", "changes": True,
         "stop_before": "99", "stop_after": "97", "targets_before": ["102"], "targets_after": ["102"], "price": "101",
         "would_fire": [], "problem": ""}
    ]  # fmt: skip
    post(admin, "/1/validate")
    post(admin, "/1/activate")
    assert post(admin, "/reapply", {"brackets": [bracket.pk]}) == [
        {"bracket": bracket.pk, "position": position.pk, "applied": True, "why": ""}
    ]
    (told,) = get(viewer, f"/explain?path=exit_manager.retry_attempts&position={position.pk}")
    assert (told["value"], told["source"]) == (7, "position")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"document": WIDER}), ("/1/validate", {}), ("/1/activate", {}), ("/rollback", {}), ("/reapply", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["viewer", "trader"])
def test_only_administrators_change_anything(role: str, path: str, body: Any) -> None:
    PolicyVersion.objects.create(number=1, document={}, created_by="test", created_at=f.utc_now())
    client = client_of(role)
    assert post(client, path, body, expected=403)["status"] == 403
    assert PolicyVersion.objects.get().status == "draft"
    assert Event.objects.count() == 0
    assert get(client, "/1")["number"] == 1


def errors(answer: Any) -> dict[str, str]:
    return {one["field"]: one["message"] for one in answer["errors"]}


def test_mistakes_are_told_by_their_path() -> None:
    admin = client_of("admin")
    assert errors(post(admin, "", {"documents": {}}, expected=400)) == {
        "documents": "is unknown; known here: document, note",
        "document": "This field is required.",
    }
    post(admin, "", {"document": {"exit_manager": {"retry_attempts": 0}}}, expected=201)
    shown = post(admin, "/1/validate")
    assert (shown["status"], shown["problems"]) == (
        "draft", {"exit_manager.retry_attempts": "must be a whole number from 1 to 20; got 0"},
    )  # fmt: skip
    refused = post(admin, "/1/activate", expected=409)
    assert (refused["type"], refused["detail"]) == (
        "urn:exitmgr:illegal-move",
        "version 1 is a draft; validate it first",
    )
    assert admin.get("/api/v1/policies/1/preview").status_code == 409
    assert admin.get("/api/v1/policies/9/preview").status_code == 404
    assert admin.get("/api/v1/policies/explain?position=9").status_code == 404
    unknown = admin.get("/api/v1/policies/explain?path=exit_manager.stops")
    assert unknown.status_code == 400
    assert list(errors(unknown.json())) == ["exit_manager.stops"]
    assert errors(admin.get("/api/v1/policies/1/diff?against=x").json()) == {
        "against": "must be the number of a version, or file"
    }
    assert errors(admin.get("/api/v1/policies/in-force?sym=x").json()) == {
        "sym": "is unknown; known here: account, symbol"
    }


def test_a_version_that_became_invalid_is_refused_by_path(trading_yaml: Any) -> None:
    admin = client_of("admin")
    post(admin, "", {"document": {"trade_exit": {"risk_reward": {"max_ratio": 2}}}}, expected=201)
    post(admin, "/1/validate")
    trading_yaml.write_text("trade_exit: {risk_reward: {min_ratio: 2.5}}")
    refused = post(admin, "/1/activate", expected=400)
    assert errors(refused) == {"trade_exit.risk_reward.min_ratio": "must not be above max_ratio (2); got 2.5"}
    assert get(admin, "/1")["status"] == "validated"


def test_numbers_in_a_document_are_kept_exactly() -> None:
    admin = client_of("admin")
    response = admin.post(
        "/api/v1/policies",
        '{"document": {"exit_manager": {"stop_loss": {"threshold_pct": 0.10000000000000000001}}}}',
        content_type="application/json",
    )
    assert response.status_code == 201
    assert PolicyVersion.objects.get().document == {
        "exit_manager": {"stop_loss": {"threshold_pct": "0.10000000000000000001"}}
    }
