"""The addresses of the API, version 1. Addresses have no slash at their end."""

from __future__ import annotations

from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny
from rest_framework.routers import SimpleRouter

from alerts.api import AlertViews, EventViews
from config import openapi  # noqa: F401 - registers how tokens are described
from exitmgr.api import BracketViews, InstrumentDoors, OrderDoors, PositionViews
from exitmgr.policy.api import PolicyViews
from positions.api import AccountViews, BarViews, QuoteViews

router = SimpleRouter(trailing_slash=False)
router.register("positions", PositionViews)
router.register("orders", OrderDoors)
router.register("brackets", BracketViews)
router.register("instruments", InstrumentDoors)
router.register("accounts", AccountViews)
router.register("quotes", QuoteViews)
router.register("bars", BarViews)
router.register("alerts", AlertViews)
router.register("events", EventViews)
router.register("policies", PolicyViews)

# what the API looks like is no secret; what is in it is
_open = {"permission_classes": [AllowAny], "authentication_classes": []}
urlpatterns = [
    path("", include(router.urls)),
    path("schema", SpectacularAPIView.as_view(**_open), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema", **_open), name="docs"),
    path("", RedirectView.as_view(pattern_name="docs")),
]
