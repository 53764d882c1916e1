"""How this installation is wired. Environment first, then what the embedded services wrote below var/."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url

from config.embedded import default_var, require_url
from config.secrets import load_secrets
from config.sidebar import NAVIGATION

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = default_var()
PRODUCTION = os.environ.get("EXITMGR_PRODUCTION") == "1"

_secrets = load_secrets(var=VAR)

SECRET_KEY = _secrets.secret_key
EXITMGR_KEYS = _secrets.exitmgr_keys
ADMIN_PASSWORD = _secrets.admin_password
SIMULATOR_CREDENTIALS = {"key": _secrets.simulator_key, "secret": _secrets.simulator_secret}
SIMULATOR_URL = os.environ.get("SIMULATOR_URL", "")
DEBUG = False
ALLOWED_HOSTS = os.environ.get("EXITMGR_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]").split(",")
CSRF_TRUSTED_ORIGINS = [origin for origin in os.environ.get("EXITMGR_TRUSTED_ORIGINS", "").split(",") if origin]

#: Processes that serve no page and run no command: they load what pages need neither into memory nor at their start.
PAGELESS = {"stop", "orders", "scan", "maintenance", "feed", "updates"}
_PAGE_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
INSTALLED_APPS = [
    *([] if os.environ.get("EXITMGR_PROCESS") in PAGELESS else _PAGE_APPS),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "pgtrigger",
    "alerts",
    "positions",
    "orders",
    "exitmgr",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# A stuck statement must fail and be retried by the sweep, never hold a lock while prices move.
_SERVER_LIMITS = (
    "-c statement_timeout={statement} -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000 -c jit=off"
)
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **dj_database_url.parse(require_url("DATABASE_URL", var=VAR), conn_max_age=600, conn_health_checks=True),
        "ATOMIC_REQUESTS": False,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).update(
    options=_SERVER_LIMITS.format(statement=os.environ.get("EXITMGR_STATEMENT_TIMEOUT_MS", "5000")),
    application_name=os.environ.get("EXITMGR_PROCESS", "exitmgr"),
    connect_timeout=3,
)
REDIS_URL = require_url("REDIS_URL", var=VAR)

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    if os.environ.get("EXITMGR_BEHIND_PROXY") == "1":
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "config.authentication.TokenAuthentication",  # first: it words the 401
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["config.permissions.ModelPermissions"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["config.parsing.ExactJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "config.listing.Pages",
    "DEFAULT_FILTER_BACKENDS": ["config.listing.KnownFilters", "config.listing.KnownOrdering"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "config.problems.answer",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
}
REST_KNOX = {"TOKEN_TTL": timedelta(days=30), "TOKEN_PREFIX": "exm_", "AUTO_REFRESH": False}
SPECTACULAR_SETTINGS = {
    "TITLE": "exitmgr",
    "DESCRIPTION": "Gets every open position out at the right time, exactly once, stop-losses first. Numbers are "
    "exact: send strings or JSON numbers, receive strings. Times carry their offset.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "SERVE_INCLUDE_SCHEMA": False,
    "SORT_OPERATIONS": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "displayRequestDuration": True, "filter": True},
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "PositionStatus": "config.openapi.POSITION_STATUSES",
        "BracketStatus": "config.openapi.BRACKET_STATUSES",
        "TriggerStatus": "config.openapi.TRIGGER_STATUSES",
        "OrderState": "config.openapi.ORDER_STATES",
        "TradingState": "config.openapi.TRADING_STATES",
        "OrderSide": "config.openapi.ORDER_SIDES",
        "PositionSide": "config.openapi.POSITION_SIDES",
        "OrderType": "config.openapi.ORDER_TYPES",
        "ExitOrderType": "config.openapi.EXIT_ORDER_TYPES",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.openapi.add_problems",
    ],
}

LOGIN_REDIRECT_URL = "admin:index"
UNFOLD = {
    "SITE_TITLE": "exitmgr",
    "SITE_HEADER": "exitmgr",
    "SITE_SYMBOL": "exit_to_app",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_HISTORY": False,  # the journal tells it, whoever acted
    "DASHBOARD_CALLBACK": "exitmgr.dashboard.fill_index",
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": NAVIGATION,
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    # one line a task says nothing at several tasks a second; what was decided is logged where it is decided
    "loggers": {name: {"level": "WARNING"} for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat")},
    "root": {"handlers": ["stderr"], "level": os.environ.get("EXITMGR_LOG_LEVEL", "INFO")},
}

from config import celery as _celery  # noqa: E402, F401 - creating the app makes it the one that shared tasks use
