"""The pages of the admin site that ask before a verb is done: how much to leave, and is it meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ObjectDoesNotExist
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from exitmgr.exits import HUNDRED, ExitRefused, request_exit
from exitmgr.queries import positions_on_the_desk, stops_now
from exitmgr.remarks import remark_on_order
from exitmgr.rules.types import ExitReason
from orders.cancel import NotCancellable
from orders.queries import listed_orders
from orders.rounding import exit_quantity
from positions.admin import show_value
from positions.models import Position
from positions.pnl import unrealized_pnl
from positions.states import IllegalMove
from positions.values import Side

REFUSALS: Final = (ExitRefused, NotCancellable, IllegalMove, ObjectDoesNotExist)
_LONGEST_ID: Final = 18


class LeaveForm(forms.Form):
    """How much of what remains to leave, and why."""

    percentage = forms.DecimalField(
        min_value=Decimal("0.0001"),
        max_value=HUNDRED,
        max_digits=7,
        decimal_places=4,
        initial=HUNDRED,
        label="Percentage of what remains",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    note = forms.CharField(
        required=False,
        max_length=500,
        label="Why",
        help_text="Kept in the journal.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
    )


class EmergencyForm(forms.Form):
    """Why everything is left at once."""

    note = LeaveForm.base_fields["note"]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an exit would do if it filled at the present price."""

    quantity: Decimal
    price: Decimal | None
    value: Decimal | None
    pnl: Decimal | None


def preview_exit(position: Position, *, percentage: Decimal) -> Preview:
    """Return what leaving a percentage would sell, at about which price; before fees. `position` carries its worth."""
    price: Decimal | None = getattr(position, "price", None)
    quantity = exit_quantity(
        fraction_pct=percentage,
        remaining=position.available,
        available=position.available,
        lot=position.instrument.lot,
        dust=position.instrument.dust,
        min_notional=position.instrument.min_notional,
        price=price,
    )
    if price is None:
        return Preview(quantity=quantity, price=None, value=None, pnl=None)
    pnl = unrealized_pnl(side=Side(position.side), quantity=quantity, average_entry=position.average_entry, price=price)
    return Preview(quantity=quantity, price=price, value=quantity * price, pnl=pnl)


def leave_page(model_admin: Any, request: HttpRequest, object_id: str, *, emergency: bool) -> HttpResponse:
    """Show what leaving would do and ask; on the answer request the exit and tell what came of it."""
    position = one_or_404(positions_on_the_desk(), object_id)
    form_class: type[forms.Form] = EmergencyForm if emergency else LeaveForm
    form = form_class(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        reason = ExitReason.EMERGENCY if emergency else ExitReason.MANUAL
        _leave(request, position.pk, reason=reason, **form.cleaned_data)
        return redirect("admin:positions_position_change", position.pk)
    percentage = HUNDRED if emergency else _percentage(request)
    context = {
        **page_context(model_admin, request, title="Emergency exit" if emergency else "Exit"),
        "position": position,
        "form": form,
        "emergency": emergency,
        "percentage": percentage,
        "preview": _shown(preview_exit(position, percentage=percentage)) if percentage else None,
        "held": held_figures(position),
        "verb": "sell" if position.side == Side.LONG else "buy back",
        "back": reverse("admin:positions_position_change", args=[position.pk]),
    }
    return render(request, "exitmgr/leave.html", context)


def ask_page(
    model_admin: Any,
    request: HttpRequest,
    object_id: str,
    *,
    title: str,
    question: str,
    verb: Callable[[int, str, datetime], str],
) -> HttpResponse:
    """Ask about an order; on a yes do the verb (order id, note, now) and tell what it says, or why it refused."""
    order = one_or_404(listed_orders(), object_id)
    form = EmergencyForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        _tell(request, lambda: verb(order.pk, form.cleaned_data["note"], datetime.now(UTC)))
        return redirect("admin:orders_order_change", order.pk)
    context = {
        **page_context(model_admin, request, title=title),
        "figures": [
            ("Order", str(order)),
            ("State", str(order.state)),
            ("Filled", f"{show_value(order.filled_quantity)} of {show_value(order.quantity)}"),
            ("Last error", order.last_error or "-"),
        ],
        "form": form,
        "question": question,
        "back": reverse("admin:orders_order_change", args=[order.pk]),
    }
    return render(request, "exitmgr/ask.html", context)


def actor_of(request: HttpRequest) -> str:
    """Return who acts, as events name them."""
    return str(request.user.get_username())[:64]


def _leave(request: HttpRequest, position_id: int, *, reason: ExitReason, note: str, **how: Any) -> None:
    now = datetime.now(UTC)

    def verb() -> str:
        order = request_exit(position_id=position_id, now=now, actor=actor_of(request), reason=reason, **how)
        remark_on_order(order, note=note, now=now, actor=actor_of(request))
        return (
            f"Order {order.pk} is on its way: {order.side} {show_value(order.quantity)} {order.instrument} at market."
        )

    _tell(request, verb)


def _tell(request: HttpRequest, verb: Callable[[], str]) -> None:
    try:
        messages.success(request, verb())
    except REFUSALS as error:
        messages.error(request, f"Nothing was done: {error}")


def _percentage(request: HttpRequest) -> Decimal | None:
    """Return the percentage to preview, everything before one was typed; None while it is no percentage."""
    typed = request.POST if request.method == "POST" else request.GET
    form = LeaveForm({"percentage": typed.get("percentage", "100")})
    return form.cleaned_data["percentage"] if form.is_valid() else None


def _shown(preview: Preview) -> dict[str, str]:
    return {
        "quantity": show_value(preview.quantity),
        "price": show_value(preview.price),
        "value": show_value(preview.value, places=2),
        "pnl": show_value(preview.pnl, places=2),
    }


def held_figures(position: Position) -> Sequence[tuple[str, str]]:
    """Return what is held and what it is worth, as the pages show it; `position` carries its worth."""
    return [
        ("Held", f"{Side(position.side).word} {show_value(position.remaining)} {position.instrument}"),
        ("Bound by other exits", show_value(position.reserved)),
        ("Average entry", show_value(position.average_entry, places=4)),
        ("Price now", show_value(getattr(position, "price", None))),
        ("Unrealised", show_value(getattr(position, "unrealized_pnl", None), places=2)),
        ("Nearest stop now", show_value(stops_now([position.pk]).get(position.pk), places=4)),
    ]


def one_or_404(rows: Any, object_id: str) -> Any:
    """Return the row an address names.

    :raises Http404: it names none.
    """
    found = rows.filter(pk=int(object_id)).first() if is_id(object_id) else None
    if found is None:
        raise Http404("there is no such row")
    return found


def is_id(text: str) -> bool:
    """Return whether an address names a row: digits that fit a bigint."""
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID


def page_context(model_admin: Any, request: HttpRequest, *, title: str) -> dict[str, Any]:
    """Return what every page of the admin site needs."""
    return {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
    }
