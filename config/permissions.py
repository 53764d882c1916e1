"""Who may do what: nothing without a login, and then only what a role's model permissions allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # REST framework reads these classes while it imports its views
    from rest_framework.views import APIView

_BY_METHOD: Final = {
    "GET": "view",
    "HEAD": "view",
    "POST": "add",
    "PUT": "change",
    "PATCH": "change",
    "DELETE": "delete",
}


class ModelPermissions(BasePermission):
    """Reading needs the view permission, writing the add or change one; a view's `needs` names exceptions by action."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user holds the permission that this method or action asks for."""
        user = request.user
        if user is None or not user.is_authenticated:
            return False
        if request.method is None or request.method.lower() not in getattr(view, "action_map", {}):
            return True  # there is no such method here: the view says so, to anybody who is logged in
        return bool(user.has_perm(self.needed(request.method, view)))

    def needed(self, method: str, view: Any) -> str:
        """Return the permission as app.verb_model."""
        special: str | None = getattr(view, "needs", {}).get(view.action)
        if special is not None:
            return special
        model = view.queryset.model._meta
        return f"{model.app_label}.{_BY_METHOD[method]}_{model.model_name}"
