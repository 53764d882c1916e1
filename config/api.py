"""The addresses of the API, version 1. Addresses have no slash at their end."""

from __future__ import annotations

from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny
from rest_framework.routers import SimpleRouter

from alerts.api import AlertViews, EventViews
from config import openapi  # noqa: F401 - registers how tokens are described
from exitmgr.account_api import AccountDoors, SwitchViews
from exitmgr.api import BracketViews, InstrumentDoors, OrderDoors, PositionViews
from exitmgr.policy.api import PolicyViews
from exitmgr.reconcile_api import DifferenceViews
from positions.api import BarViews, QuoteViews

router = SimpleRouter(trailing_slash=False)
router.register("positions", PositionViews)
router.register("orders", OrderDoors)
router.register("brackets", BracketViews)
router.register("instruments", InstrumentDoors)
router.register("accounts", AccountDoors)
router.register("quotes", QuoteViews)
router.register("bars", BarViews)
router.register("alerts", AlertViews)
router.register("events", EventViews)
router.register("policies", PolicyViews)
router.register("differences", DifferenceViews)

# what the API looks like is no secret; what is in it is
_open = {"permission_classes": [AllowAny], "authentication_classes": []}
urlpatterns = [
    path("", include(router.urls)),
    re_path(r"^accounts/(?P<account_id>\d{1,18})/reconcile$", DifferenceViews.as_view({"post": "reconcile"})),
    re_path(r"^positions/(?P<position_id>\d{1,18})/release$", DifferenceViews.as_view({"post": "release"})),
    path("splits", DifferenceViews.as_view({"post": "confirm_split"})),
    path("switch", SwitchViews.as_view({"get": "retrieve", "post": "change"})),
    path("switch/flatten", SwitchViews.as_view({"post": "flatten"})),
    path("schema", SpectacularAPIView.as_view(**_open), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema", **_open), name="docs"),
    path("", RedirectView.as_view(pattern_name="docs")),
]
