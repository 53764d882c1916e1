"""Signing in to Robinhood by hand: `python -m orders.brokers.robinhood_session` prints the token of an account.

Robinhood asks a person to confirm a sign-in on another device, so nothing here runs unattended. robin_stocks, which
knows the steps, is an optional package (requirements-robinhood.txt) and used for nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from importlib import import_module
from typing import Final

_DAY_SECONDS: Final = 86_400


class NotSignedIn(Exception):
    """Robinhood gave no token."""


def sign_in(*, username: str = "", password: str = "", seconds: int = _DAY_SECONDS) -> str:
    """Return a token that is good for so many seconds; what is not given is asked for at the terminal.

    :raises NotSignedIn: robin_stocks is not installed, or Robinhood gave no token.
    """
    try:
        authentication = import_module("robin_stocks.robinhood.authentication")
        session = import_module("robin_stocks.robinhood.globals").SESSION
    except ImportError:
        raise NotSignedIn("robin_stocks is not installed: pip install -r requirements-robinhood.txt") from None
    # it keeps a pickle of each session in the home directory, and deletes the one it finds there
    with tempfile.TemporaryDirectory() as elsewhere, redirect_stdout(sys.stderr):
        authentication.login(username, password, expiresIn=seconds, store_session=False, pickle_path=elsewhere)
    scheme, _, token = str(session.headers.get("Authorization") or "").partition(" ")
    if scheme != "Bearer" or not token:
        raise NotSignedIn("Robinhood gave no token; try again, and confirm the sign-in on your device")
    return token


def main() -> int:
    """Print the token alone on standard output."""
    try:
        sys.stdout.write(f"{sign_in()}\n")
    except NotSignedIn as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
