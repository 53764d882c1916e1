"""Signing in by robin_stocks itself, its requests turned to a server of our own; runs where the package is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orders.brokers.robinhood_session import NotSignedIn, main, sign_in

robinhood = pytest.importorskip("robin_stocks.robinhood")
requests = pytest.importorskip("requests")


class Answering(requests.adapters.BaseAdapter):  # type: ignore[misc]
    """Answers what robin_stocks sends, and keeps it."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__()
        self.body, self.sent = body, []

    def send(self, request: Any, **_options: Any) -> Any:
        self.sent.append((request.url, str(request.body)))
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.raw = io.BytesIO(json.dumps(self.body).encode())
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def _signed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    robinhood.globals.SESSION.headers.pop("Authorization", None)


def answering(body: dict[str, Any]) -> Answering:
    adapter = Answering(body)
    robinhood.globals.SESSION.mount("https://", adapter)
    return adapter


GRANTED = {"access_token": "TOKEN", "token_type": "Bearer", "refresh_token": "LATER", "expires_in": 60}


def test_a_token_is_given_and_nothing_is_kept_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = answering(GRANTED)
    assert sign_in(username="me", password="secret", seconds=60) == "TOKEN"
    ((url, body),) = session.sent
    assert url == "https://api.robinhood.com/oauth2/token/"
    assert "username=me" in body
    assert "expires_in=60" in body
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert capsys.readouterr().out == ""


def test_no_token_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answering({"detail": "Unable to log in with provided credentials."})
    with pytest.raises(NotSignedIn):
        sign_in(username="me", password="wrong")
    monkeypatch.setattr("sys.stdin", io.StringIO("me\n"))
    monkeypatch.setattr("getpass.getpass", lambda *_args: "wrong")
    assert main() == 2
    assert capsys.readouterr().out == ""
