"""Who is asking: a token kept as a digest, or the session of the admin site (which needs its CSRF token)."""

from __future__ import annotations

import re
from typing import Any, Final

from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

_PRINTABLE: Final = re.compile(rb"[!-~]{1,128}")


class TokenAuthentication(KnoxTokenAuthentication):
    """Knox's, but bytes that cannot be a token are an invalid token instead of an error."""

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """Return the user and the token's row.

        :raises AuthenticationFailed: unknown, expired, or its user was deactivated.
        """
        if not _PRINTABLE.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        found: tuple[Any, Any] = super().authenticate_credentials(token)
        return found
