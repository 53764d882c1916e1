"""What the generated API description adds: how a token is sent, and the one shape of every error."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.plumbing import build_bearer_security_scheme_object

from exitmgr.states import BracketStatus, TriggerStatus
from orders.brokers.protocol import OrderSide, OrderType
from orders.states import OrderState
from positions.states import PositionStatus
from positions.values import Side, TradingState

# enums that would share a name are told apart by their words
POSITION_STATUSES = [(str(status), str(status)) for status in PositionStatus]
BRACKET_STATUSES = [(str(status), str(status)) for status in BracketStatus]
TRIGGER_STATUSES = [(str(status), str(status)) for status in TriggerStatus]
ORDER_STATES = [(str(state), str(state)) for state in OrderState]
TRADING_STATES = [(str(state), str(state)) for state in TradingState]
ORDER_SIDES = [(str(side), str(side)) for side in OrderSide]
POSITION_SIDES = [(side.word, side.word) for side in Side]
ORDER_TYPES = [(str(kind), str(kind)) for kind in OrderType]
EXIT_ORDER_TYPES = [(str(kind), str(kind)) for kind in (OrderType.MARKET, OrderType.LIMIT)]

_METHODS = frozenset({"get", "post", "patch", "put", "delete"})
_PROBLEM = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail", "errors"],
    "properties": {
        "type": {"type": "string", "example": "urn:exitmgr:invalid"},
        "title": {"type": "string", "example": "The request is not valid"},
        "status": {"type": "integer", "example": 400},
        "detail": {"type": "string", "example": "quantity: must be a number above 0; got '-1'"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {
                    "field": {"type": "string", "example": "plan.stop_loss.pct"},
                    "message": {"type": "string", "example": "must be a number above 0 and at most 100; got '-1'"},
                },
            },
        },
        "would_fire": {
            "type": "array",
            "description": "Only of urn:exitmgr:would-fire-now: the triggers of the plan that would fire at once.",
            "items": {"type": "string", "example": "stop_loss"},
        },
    },
}


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # it registers itself
    """Our tokens in the Authorization header."""

    target_class = "config.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> Any:
        """Return the scheme."""
        return build_bearer_security_scheme_object(header_name="Authorization", token_prefix="Token")  # noqa: S106 - the scheme's name


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Say of every operation what it does in one line, and that anything but success is a problem."""
    result["components"]["schemas"]["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            if method in _METHODS:
                words = " ".join(operation.get("description", "").split())
                operation["summary"] = words.split(". ")[0].rstrip(".")
                operation["responses"]["default"] = {"description": "What went wrong.", "content": content}
    return result
