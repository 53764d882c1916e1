"""How lists are paged, filtered and ordered; a parameter that would be ignored is refused instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import InvalidOperation
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError as FieldError
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

if TYPE_CHECKING:  # REST framework reads these classes while it imports its views
    from rest_framework.views import APIView


class Pages(CursorPagination):
    """Pages that stay right while rows are added: a cursor, not a page number."""

    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 500
    ordering = "-pk"
    offset_cutoff = 1_000_000  # many rows may share one time; an offset cut short would repeat a page for ever

    def get_page_size(self, request: Request) -> int:
        """Return the wanted number of rows.

        :raises ValidationError: it is not from 1 to the maximum.
        """
        given = request.query_params.get("limit")
        if given is None:
            return self.page_size
        if not (given.isascii() and given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= self.max_page_size):
            raise ValidationError(
                {"limit": f"must be a whole number from 1 to {self.max_page_size}; got {given[:40]!r}"}
            )
        return int(given)

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> Any:
        """Return one page.

        :raises NotFound: the cursor is not one of ours.
        """
        try:
            return super().paginate_queryset(queryset, request, view)
        except (FieldError, InvalidOperation, ValueError, TypeError):
            raise NotFound("the cursor is not one that this list gave out") from None


class KnownFilters(DjangoFilterBackend):
    """Filters of the view; an unknown query parameter is refused, because ignoring it would return too much."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        """Return the rows the parameters ask for.

        :raises ValidationError: an unknown parameter or a wrong value.
        """
        filterset = self.get_filterset(request, queryset, view)
        known = {*(filterset.filters if filterset else ()), "cursor", "limit", "ordering"}
        unknown = sorted(set(request.query_params) - known)
        if unknown:
            raise ValidationError({name: f"is unknown; known here: {', '.join(sorted(known))}" for name in unknown})
        found: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return found


class KnownOrdering(OrderingFilter):
    """Ordering by the fields a view names; rows that tie follow their primary key, so pages never overlap."""

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: APIView) -> Sequence[str] | None:
        """Return the fields to order by."""
        ordering = super().get_ordering(request, queryset, view)
        if not ordering:
            return None
        return (*ordering, "-pk" if ordering[0].startswith("-") else "pk")

    def remove_invalid_fields(
        self, queryset: QuerySet[Any], fields: Iterable[str], view: APIView, request: Request
    ) -> list[str]:
        """Return the field as it was given.

        :raises ValidationError: it is not offered, or there are several.
        """
        offered, given = _offered(view), list(fields)
        if len(given) != 1 or given[0].removeprefix("-") not in offered:
            wanted = (
                f"must be one of {', '.join(offered)}, with - in front for descending" if offered else "is not offered"
            )
            raise ValidationError({"ordering": f"{wanted}; got {','.join(given)[:80]!r}"})
        return given

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Return the parameter with the words it takes."""
        words = [word for name in _offered(view) for word in (name, f"-{name}")]
        if not words:
            return []
        return [{"name": "ordering", "in": "query", "required": False, "schema": {"type": "string", "enum": words}}]


def _offered(view: APIView) -> Sequence[str]:
    """Return the fields a list may be ordered by; none of them may be null, which a cursor cannot pass."""
    names: Sequence[str] = getattr(view, "ordering_fields", ())
    return names
