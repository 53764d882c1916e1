"""The addresses of this installation."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from config.problems import nothing_here
from exitmgr import health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("healthz", health.alive, name="alive"),
    path("readyz", health.ready, name="ready"),
    path("api/v1/", include("config.api")),
    re_path(r"^api(?:/|$)", nothing_here),
]
handler400 = "config.problems.bad_request"
handler500 = "config.problems.server_error"
