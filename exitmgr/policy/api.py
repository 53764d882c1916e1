"""Doors to the configuration: everybody may look and ask what would change, changing it needs the permission to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from exitmgr.models import Bracket, PolicyVersion
from exitmgr.policy import reapply as reapplying
from exitmgr.policy import versions
from exitmgr.policy.current import in_force
from exitmgr.policy.documents import as_json
from exitmgr.policy.schema import InvalidPolicy
from exitmgr.policy.wire import (
    AgainstSerializer,
    BracketPreviewSerializer,
    ChangeSerializer,
    DraftSerializer,
    ExplanationSerializer,
    NothingSerializer,
    PathSerializer,
    PolicyVersionSerializer,
    ReappliedSerializer,
    ReapplySerializer,
    ReplacesSerializer,
    RollbackSerializer,
    WhoSerializer,
)
from orders.api import actor_of

_DOCUMENT = {
    "exit_manager": {"stop_loss": {"threshold_pct": "1.5"}},
    "symbols": {"TSLA": {"trade_exit": {"mode": "atr"}}},
}
_CHANGE = "exitmgr.change_policyversion"


def _paths_told(view: Callable[..., Response]) -> Callable[..., Response]:
    """Answer an invalid configuration with each of its paths."""

    @wraps(view)
    def answered(*args: Any, **kwargs: Any) -> Response:
        try:
            return view(*args, **kwargs)
        except InvalidPolicy as error:
            raise serializers.ValidationError({path: [text] for path, text in error.problems.items()}) from None

    return answered


def _example(name: str, value: Any) -> list[OpenApiExample]:
    return [OpenApiExample(name, value=value, request_only=True)]


class PolicyViews(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[PolicyVersion]):
    """Versions of the trading configuration, the latest first, and what is in force."""

    queryset = PolicyVersion.objects.all()
    serializer_class = PolicyVersionSerializer
    filterset_fields = ("status",)
    lookup_field = "number"
    lookup_value_regex = r"\d{1,9}"
    needs: ClassVar[Mapping[str, str]] = dict.fromkeys(("validate", "activate", "rollback", "reapply"), _CHANGE)

    @extend_schema(
        request=DraftSerializer,
        responses={201: PolicyVersionSerializer},
        examples=_example("A wider stop, ranges for one symbol", {"document": _DOCUMENT, "note": "calmer in August"}),
    )
    @_paths_told
    def create(self, request: Request) -> Response:
        """Draft a version; it may be wrong still, and changes nothing."""
        given = _read(DraftSerializer, request.data)
        version = versions.create_draft(**given, now=datetime.now(UTC), actor=actor_of(request))
        where = {"Location": f"{request.path}/{version.number}"}
        return Response(PolicyVersionSerializer(version).data, status=201, headers=where)

    @extend_schema(request=None, responses={200: PolicyVersionSerializer})
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    def validate(self, request: Request, number: str) -> Response:
        """Check a draft; `problems` names what is wrong, and a draft without any may be activated."""
        _read(NothingSerializer, request.data)
        version = versions.validate(int(number), now=datetime.now(UTC), actor=actor_of(request))
        return Response(PolicyVersionSerializer(version).data)

    @extend_schema(
        request=ReplacesSerializer,
        responses={200: PolicyVersionSerializer},
        examples=_example("Decided while version 3 was in force", {"replaces": 3}),
    )
    @action(detail=True, methods=["post"], filter_backends=(), pagination_class=None)
    @_paths_told
    def activate(self, request: Request, number: str) -> Response:
        """Put a validated version into force; it holds everywhere within a second."""
        given = _read(ReplacesSerializer, request.data)
        version = versions.activate(int(number), **given, now=datetime.now(UTC), actor=actor_of(request))
        return Response(PolicyVersionSerializer(version).data)

    @extend_schema(
        request=RollbackSerializer,
        responses={200: PolicyVersionSerializer(allow_null=True)},
        examples=_example("To the one before", {}),
    )
    @action(detail=False, methods=["post"], filter_backends=(), pagination_class=None)
    @_paths_told
    def rollback(self, request: Request) -> Response:
        """Put a version that was in force before into force again; null: the file alone is, as there was none."""
        given = _read(RollbackSerializer, request.data)
        version = versions.rollback(**given, now=datetime.now(UTC), actor=actor_of(request))
        return Response(PolicyVersionSerializer(version).data if version else None)

    @extend_schema(
        request=ReapplySerializer,
        responses={200: ReappliedSerializer(many=True)},
        examples=_example("All, but nothing that sells at once", {"confirm": False}),
    )
    @action(detail=False, methods=["post"], filter_backends=(), pagination_class=None)
    def reapply(self, request: Request) -> Response:
        """Give open positions whose plan came from the configuration the plan of the one in force."""
        given = _read(ReapplySerializer, request.data)
        done = reapplying.reapply(
            versions.active_version(),
            bracket_ids=given.get("brackets"),
            confirm=given["confirm"],
            now=datetime.now(UTC),
            actor=actor_of(request),
        )
        return Response(ReappliedSerializer(done, many=True).data)

    @extend_schema(parameters=[AgainstSerializer], responses={200: ChangeSerializer(many=True)}, filters=False)
    @action(detail=True, filter_backends=(), pagination_class=None)
    def diff(self, request: Request, number: str) -> Response:
        """Show what would differ from another version, or from what is in force, key by key."""
        against = _read(AgainstSerializer, request.query_params).get("against")
        before = versions.active_version()
        if against is not None:
            before = None if against == "file" else versions.version_numbered(int(against))
        changes = versions.diff(before, versions.version_numbered(int(number)), now=datetime.now(UTC))
        return Response(
            [{"path": path, "before": as_json(was), "after": as_json(will)} for path, (was, will) in changes.items()]
        )

    @extend_schema(responses={200: BracketPreviewSerializer(many=True)}, filters=False)
    @action(detail=True, filter_backends=(), pagination_class=None)
    def preview(self, request: Request, number: str) -> Response:
        """Show what re-applying a version would change about open positions, and what would be sold at once."""
        _read(NothingSerializer, request.query_params)
        found = reapplying.preview(versions.version_numbered(int(number)), now=datetime.now(UTC))
        return Response(BracketPreviewSerializer(found, many=True).data)

    @extend_schema(parameters=[WhoSerializer], responses={200: OpenApiTypes.OBJECT}, filters=False)
    @action(detail=False, url_path="in-force", filter_backends=(), pagination_class=None)
    def in_force(self, request: Request) -> Response:
        """Show the whole configuration as it holds for an account and a symbol."""
        who = _read(WhoSerializer, request.query_params)
        return Response(as_json(in_force(now=datetime.now(UTC)).policy_for(**who).model_dump()))

    @extend_schema(parameters=[PathSerializer], responses={200: ExplanationSerializer(many=True)}, filters=False)
    @action(detail=False, filter_backends=(), pagination_class=None)
    @_paths_told
    def explain(self, request: Request) -> Response:
        """Say which layer gave a value, and what every other one says."""
        asked = _read(PathSerializer, request.query_params)
        who: dict[str, Any] = {"account": asked["account"], "symbol": asked["symbol"]}
        if "position" in asked:
            who = _of_position(asked["position"])
        found = in_force(now=datetime.now(UTC)).explain(asked["path"], **who)
        return Response(
            [
                {
                    "path": one.path,
                    "value": as_json(one.value),
                    "source": one.source,
                    "says": [{"layer": layer, "value": as_json(value)} for layer, value in one.says],
                }
                for one in found
            ]
        )


def _of_position(position_id: int) -> dict[str, Any]:
    """Return the layers of a position: its account, its symbol, its own settings.

    :raises Bracket.DoesNotExist: it has no plan.
    """
    latest = Bracket.objects.filter(position=position_id).select_related("position__account", "position__instrument")
    bracket = latest.defer("position__account__credentials").order_by("-pk").first()
    if bracket is None or bracket.position is None:
        raise Bracket.DoesNotExist(f"there is no position {position_id} with a plan")
    position = bracket.position
    return {
        "account": position.account.name,
        "symbol": position.instrument.symbol,
        "overrides": bracket.overrides,
    }


def _read(form_class: type[serializers.Serializer[Any]], given: Any) -> dict[str, Any]:
    form = form_class(data=given)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)
