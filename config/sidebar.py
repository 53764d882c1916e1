"""The admin site's sidebar: pages by what people do there, each shown to who may look at it."""

from __future__ import annotations

from typing import Any, Final

from django.urls import reverse_lazy


def _page(title: str, icon: str, name: str) -> dict[str, Any]:
    app_label, model = name.split(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app_label}_{model}_changelist"),
        "permission": lambda request: request.user.has_perm(f"{app_label}.view_{model}"),
    }


NAVIGATION: Final[list[dict[str, Any]]] = [
    {
        "title": "Desk",
        "items": [
            {"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")},
            _page("Positions", "account_balance_wallet", "positions.position"),
            _page("Orders", "receipt_long", "orders.order"),
            _page("Fills", "done_all", "orders.fill"),
            _page("Brackets", "vertical_align_center", "exitmgr.bracket"),
        ],
    },
    {
        "title": "What happened",
        "items": [
            _page("Alerts", "notifications", "alerts.alert"),
            _page("Events", "history", "alerts.event"),
        ],
    },
    {
        "title": "Market data",
        "collapsible": True,
        "items": [
            _page("Quotes", "show_chart", "positions.quote"),
            _page("Bars", "candlestick_chart", "positions.bar"),
            _page("Refused prices", "block", "positions.refusedprice"),
        ],
    },
    {
        "title": "Setup",
        "collapsible": True,
        "items": [
            _page("Accounts", "account_balance", "positions.account"),
            _page("Instruments", "category", "positions.instrument"),
            _page("Signs of life", "monitor_heart", "exitmgr.heartbeat"),
            _page("Users", "person", "auth.user"),
            _page("Roles", "group", "auth.group"),
            _page("API tokens", "key", "knox.authtoken"),
            {"title": "API", "icon": "api", "link": reverse_lazy("docs")},
        ],
    },
]
