"""One HTTP exchange with Robinhood, sent at most once, to our own address only: links in answers are never followed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import urllib3
from urllib3 import exceptions as faults

from orders.brokers.connections import open_pool, transport_error
from orders.brokers.headers import Heard, note_heard
from orders.brokers.robinhood_refusals import Answer, body_of, translating
from orders.errors import OutcomeUnknown

#: As robin_stocks 3.4.0 names it; the shape of what is answered goes by it.
_API_VERSION: Final = "1.431.4"
MOST_PAGES: Final = 60
_MAX_WAIT_SECONDS: Final = 120.0


class RobinhoodTransport:
    """Sends one request and returns one answer; holds the token and shows it to nobody."""

    def __init__(self, *, token: str, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {token}",
            "X-Robinhood-API-Version": _API_VERSION,
        }
        self._pool = open_pool(base_url)

    def __repr__(self) -> str:
        return f"RobinhoodTransport({self._base_url!r})"

    def ask(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """Send a GET.

        :raises NotSent: no connection was made.
        :raises OutcomeUnknown: no answer came.
        """
        return self._exchange("GET", f"{path}?{urlencode(params)}" if params else path)

    def send(self, path: str, payload: Mapping[str, object] | None = None) -> Answer:
        """Send a POST, with the errors of `ask`."""
        return self._exchange("POST", path, body=json.dumps(payload or {}))

    def pages(self, path: str, params: Mapping[str, str], *, subject: str) -> Iterator[dict[str, Any]]:
        """Yield each object of a list that is handed out in pages, as far as it is asked for.

        :raises BrokerError: a page was not given, or there is no end of them.
        """
        asked = dict(params)
        for _ in range(MOST_PAGES):
            page = body_of(self.ask(path, asked), subject=subject)
            with translating(subject):
                results = [row for row in page["results"] if row is not None]
                following = page.get("next")
                # of the link to the next page only the query is used: the token goes nowhere else
                asked = dict(parse_qsl(urlsplit(following).query)) if following else {}
            yield from results
            if not following:
                return
        raise OutcomeUnknown(f"{subject}: more than {MOST_PAGES} pages")

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._pool.clear()

    def _exchange(self, method: str, target: str, *, body: str | None = None) -> Answer:
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            response = self._pool.request(
                method, f"{self._base_url}{target}", body=body, headers=headers, redirect=False, retries=False
            )
        except (faults.HTTPError, OSError) as error:
            raise transport_error(error, subject=f"{method} {urlsplit(target).path}") from None
        answer = _answer(response)
        if answer.status == 429:
            note_heard(Heard(remaining=0, turned_away=True, reset_seconds=answer.retry_after))
        return answer


def _answer(response: urllib3.BaseHTTPResponse) -> Answer:
    try:
        body = json.loads(response.data, parse_float=Decimal) if response.data else None
    except ValueError:
        body = None
    return Answer(status=response.status, body=body, retry_after=_retry_after(response.headers.get("Retry-After")))


def _retry_after(text: str | None) -> float | None:
    try:
        wait = float(text or "")
    except ValueError:  # none, a date, or nonsense: the words may name a wait, else the caller has its own
        return None
    return min(max(wait, 0.0), _MAX_WAIT_SECONDS)
