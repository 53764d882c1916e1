"""The one shape every error has at the API: problem details (RFC 9457) with the field paths of what is wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views import defaults
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.exceptions import PermissionDenied as NotPermitted
from rest_framework.response import Response

from exitmgr.entries import DuplicateEntry, EntryRefused
from exitmgr.exits import AlreadyClosed, AlreadyExiting, ExitRefused
from exitmgr.plan_edits import PlanChangedMeanwhile, PlanRefused, WouldFireNow
from exitmgr.reconcile.freezing import NotFrozen
from exitmgr.reconcile.looks import LookRefused
from exitmgr.reconcile.splitting import SplitRefused
from exitmgr.rules.plan import InvalidPlan
from exitmgr.switches import SwitchRefused
from orders.cancel import NotCancellable
from orders.settle import NotInQuestion
from positions.states import IllegalMove

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
_API: Final = "/api/"

#: What a domain error is to a client, the first match counts: status, type, title.
_DOMAIN: Final[Sequence[tuple[type[Exception], int, str, str]]] = (
    (InvalidPlan, 400, "invalid-plan", "The exit plan is not valid"),
    (DuplicateEntry, 409, "duplicate", "The request was made before"),
    (EntryRefused, 422, "refused", "The position may not be entered"),
    (AlreadyClosed, 409, "already-closed", "The position is closed"),
    (AlreadyExiting, 409, "already-exiting", "The position is already being left"),
    (ExitRefused, 409, "exit-refused", "The exit was not made"),
    (WouldFireNow, 409, "would-fire-now", "The plan would leave the position at once"),
    (PlanChangedMeanwhile, 409, "plan-changed", "The plan was changed meanwhile"),
    (PlanRefused, 409, "plan-refused", "The plan was not changed"),
    (SwitchRefused, 409, "switch-refused", "The switch was not set"),
    (LookRefused, 409, "not-reconciled", "The account was not compared with its broker"),
    (SplitRefused, 409, "split-refused", "The split was not applied"),
    (NotFrozen, 409, "not-frozen", "The position is not frozen"),
    (NotCancellable, 409, "not-cancellable", "The order cannot be cancelled"),
    (NotInQuestion, 409, "not-in-question", "What became of the order is known"),
    (IllegalMove, 409, "illegal-move", "The state does not allow it"),
    (ObjectDoesNotExist, 404, "not-found", "There is no such thing"),
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What went wrong, as it is sent."""

    status: int
    detail: str
    kind: str = ""
    title: str = ""
    errors: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What only this kind of problem says, beside the members that all have.
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Return the members of the JSON object; a kind of ours is a URN, others mean what their status means."""
        return {
            "type": f"urn:exitmgr:{self.kind}" if self.kind else "about:blank",
            "title": self.title or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "errors": list(self.errors),
            **self.more,
        }


def answer(error: Exception, context: Mapping[str, Any]) -> Response:
    """Return the response to an exception of an API view; what nobody expected is logged and says nothing of itself."""
    problem = describe(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed path=%s status=%s", _path(context), problem.status, exc_info=error)
    return Response(problem.body(), status=problem.status, headers=dict(problem.headers), content_type=CONTENT_TYPE)


def describe(error: Exception) -> Problem:
    """Return what an exception means to a client."""
    for kind, status, name, title in _DOMAIN:
        if isinstance(error, kind):
            more = {"would_fire": list(error.preview.would_fire)} if isinstance(error, WouldFireNow) else {}
            return Problem(
                status=status, kind=name, title=title, detail=str(error), errors=_domain_errors(error), more=more
            )
    if isinstance(error, Http404):
        error = NotFound(str(error) or "there is nothing here")
    elif isinstance(error, PermissionDenied):
        error = NotPermitted()
    if isinstance(error, ValidationError):
        errors = [{"field": path or "body", "message": text} for path, text in _flatten(error.detail)]
        return Problem(
            status=400,
            kind="invalid",
            title="The request is not valid",
            detail="; ".join(f"{one['field']}: {one['message']}" for one in errors[:5]),
            errors=errors,
        )
    if isinstance(error, APIException):
        return Problem(status=error.status_code, detail=str(error.detail), headers=_headers(error))
    if isinstance(error, OperationalError | InterfaceError):
        detail = "the database does not answer in time; nothing was lost, try again"
        return Problem(status=503, kind="unavailable", detail=detail, headers={"Retry-After": "1"})
    return Problem(status=500, detail="something unexpected went wrong; it has been logged")


def _headers(error: APIException) -> dict[str, str]:
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = f"{wait:.0f}"
    return headers


def _domain_errors(error: Exception) -> list[Mapping[str, str]]:
    problems: Mapping[str, str] = getattr(error, "problems", {})
    prefix = "plan." if isinstance(error, InvalidPlan) else ""
    return [
        {"field": path if path == "plan" else f"{prefix}{path}", "message": text} for path, text in problems.items()
    ]


def _flatten(detail: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, message) of what validation found, however deep."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, path if name == "non_field_errors" else f"{path}.{name}".lstrip("."))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            nested = isinstance(inner, Mapping | list | tuple)
            yield from _flatten(inner, f"{path}.{index}".lstrip(".") if nested else path)
    else:
        yield path, str(detail)


def _path(context: Mapping[str, Any]) -> str:
    request = context.get("request")
    return str(getattr(request, "path", ""))


def nothing_here(request: HttpRequest) -> HttpResponse:
    """Answer every address below /api/ that is none of ours."""
    hint = "; addresses have no slash at their end" if request.path.endswith("/") else ""
    return _plain(Problem(status=404, detail=f"there is nothing at {request.path}{hint}"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django could not read."""
    if request.path.startswith(_API):
        return _plain(Problem(status=400, detail="the request could not be read"))
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what went wrong outside of an API view, such as in a middleware."""
    if request.path.startswith(_API):
        return _plain(Problem(status=500, detail="something unexpected went wrong; it has been logged"))
    return defaults.server_error(request)


def _plain(problem: Problem) -> HttpResponse:
    return HttpResponse(
        json.dumps(problem.body()), status=problem.status, content_type=CONTENT_TYPE, headers=dict(problem.headers)
    )
