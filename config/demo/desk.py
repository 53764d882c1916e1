"""Owns using the product as anybody's program would: over its REST API, with a token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import requests

from config.demo.scenes import Word
from config.embedded import ROOT

SECONDS = 15
ACCOUNT = "paper"
USER = "admin"


class DeskRefused(RuntimeError):
    """The API refused a request; the message holds its words."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Desk:
    """The API of one installation."""

    def __init__(self, *, url: str, token: str) -> None:
        self._url = f"{url}/api/v1"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {token}"

    def enter(
        self,
        *,
        symbol: str,
        side: Word,
        quantity: Decimal,
        plan: Mapping[str, Any],
        request_id: str,
        strategy: str = "",
    ) -> int:
        """Order an entry at market and return the order's id."""
        asked = {
            "account": ACCOUNT,
            "symbol": symbol,
            "side": side,
            "quantity": str(quantity),
            "plan": plan,
            "strategy": strategy,
            "request_id": request_id,
        }
        return int(self.call("POST", "orders", asked)["id"])

    def exit(self, position_id: int) -> int:
        """Leave what remains of a position and return the order's id."""
        return int(self.call("POST", f"positions/{position_id}/exit", {})["id"])

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return its answer.

        :raises DeskRefused: the API says what is wrong.
        """
        answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=SECONDS)
        if not answer.ok:
            raise DeskRefused(f"{method} {path}: {answer.status_code} {answer.text[:500]}", status=answer.status_code)
        return answer.json()


def make_token(environment: Mapping[str, str]) -> str:
    """Create an API token for the administrator with the installation's own command.

    :raises DeskRefused: the command failed.
    """
    command = [sys.executable, "manage.py", "token", "create", USER, "--days", "1"]
    done = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DeskRefused(f"no token: {done.stderr.strip()[-500:]}", status=0)
    return done.stdout.split()[-1]
