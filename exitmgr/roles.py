"""The roles people are given, as groups of the model permissions that every door asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

_ROOMS: Final = ("positions", "orders", "exitmgr", "alerts")
_TRADER: Final = frozenset(
    {
        "positions.add_position",  # register a holding
        "positions.change_position",  # leave it
        "positions.change_tradingswitch",  # halt, resume and flatten accounts
        "orders.add_order",  # enter
        "orders.change_order",  # cancel, retry
        "alerts.change_alert",
    }
)
_SETUP: Final = frozenset(
    {
        "positions.add_instrument",
        "positions.change_instrument",
        "positions.change_account",
        "exitmgr.add_policyversion",
        "exitmgr.change_policyversion",
    }
)

#: Everybody may look at everything; this is what else a role may do. A feed may only push prices.
ROLES: Final[Mapping[str, frozenset[str]]] = {
    "viewer": frozenset(),
    "trader": _TRADER,
    "feed": frozenset({"positions.add_quote"}),
    "admin": _TRADER | _SETUP | {"positions.add_quote"},
}


def write_roles() -> None:
    """Create the groups and give them exactly the permissions of their role."""
    looking = list(Permission.objects.filter(content_type__app_label__in=_ROOMS, codename__startswith="view_"))
    for name, extra in ROLES.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set([*looking, *_permissions(extra)])


def _permissions(wanted: frozenset[str]) -> list[Permission]:
    if not wanted:
        return []
    query = Q()
    for full_name in wanted:
        app_label, codename = full_name.split(".")
        query |= Q(content_type__app_label=app_label, codename=codename)
    found = list(Permission.objects.filter(query))
    if len(found) != len(wanted):
        raise LookupError(f"permissions are missing among {sorted(wanted)}; migrate first")
    return found
