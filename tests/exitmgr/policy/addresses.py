"""The addresses of the configuration alone."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from exitmgr.policy.api import PolicyViews

router = SimpleRouter(trailing_slash=False)
router.register("policies", PolicyViews)
urlpatterns = [path("api/v1/", include(router.urls))]
