"""The pages of the admin site that ask before a kill switch is set or everything is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from exitmgr.flatten import EVERYTHING, request_flatten
from exitmgr.leaving import actor_of, one_or_404, page_context
from exitmgr.switches import SwitchRefused, overall_state, shown_switch, switch_account, switch_all
from orders.models import Intent, Order
from orders.states import LIVE
from positions.models import Account, Position
from positions.states import PositionStatus
from positions.values import TradingState

_QUESTIONS: Final[Mapping[TradingState, str]] = {
    TradingState.ACTIVE: "Everything is allowed again. A flatten that is under way ends.",
    TradingState.REDUCE_ONLY: "No entries are taken and those on their way are called off. Exits go on.",
    TradingState.HALTED: "No entries are taken, those on their way are called off, and no exit is sent by itself: "
    "stops wait. Only emergency exits that a person asks for leave.",
}
_FLATTEN: Final = (
    "Every position is left at the market, ahead of all else, and no entries are taken. It goes on until nothing is "
    "held, also after a restart; setting the switch back to active ends it."
)


class ReasonForm(forms.Form):
    """Why."""

    note = forms.CharField(
        max_length=500,
        label="Why",
        help_text="Kept in the journal.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
    )


class OverallForm(ReasonForm):
    """What all accounts may do at most, and why."""

    field_order = ("state", "note")
    state = forms.ChoiceField(
        label="All accounts are",
        choices=[(str(state), str(state)) for state in TradingState],
        widget=UnfoldAdminSelectWidget,
    )


class FlattenForm(ReasonForm):
    """Why, and what is meant, typed out."""

    confirm = forms.CharField(
        max_length=64,
        label="Type the name to confirm",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )


def account_switch_page(model_admin: Any, request: HttpRequest, object_id: str, *, state: TradingState) -> HttpResponse:
    """Ask about one account's switch and set it."""
    account = one_or_404(Account.objects.defer("credentials"), object_id)

    def verb(given: Mapping[str, str], now: datetime) -> str:
        switch_account(account_id=account.pk, state=state, note=given["note"], now=now, actor=actor_of(request))
        return f"{account} is {state}."

    title = {TradingState.ACTIVE: "Resume", TradingState.REDUCE_ONLY: "Reduce only", TradingState.HALTED: "Halt"}[state]
    return _ask(
        model_admin, request, title=title, question=_QUESTIONS[state], form_class=ReasonForm, account=account, verb=verb
    )


def account_flatten_page(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
    """Ask about leaving everything an account holds, and have it done."""
    account = one_or_404(Account.objects.defer("credentials"), object_id)

    def verb(given: Mapping[str, str], now: datetime) -> str:
        request_flatten(account_id=account.pk, **given, now=now, actor=actor_of(request))
        return f"Everything in {account} is being left."

    question = f"{_FLATTEN} To confirm, type: {account.name}"
    return _ask(
        model_admin, request, title="Flatten", question=question, form_class=FlattenForm, account=account, verb=verb
    )


def overall_switch_page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Ask about the switch over all accounts and set it."""

    def verb(given: Mapping[str, str], now: datetime) -> str:
        state = TradingState(given["state"])
        switch_all(state=state, note=given["note"], now=now, actor=actor_of(request))
        return f"All accounts are {state}, or what is stricter of their own."

    question = "Of this and an account's own state the stricter counts."
    return _ask(
        model_admin, request, title="All accounts", question=question, form_class=OverallForm, account=None, verb=verb
    )


def overall_flatten_page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Ask about leaving everything in all accounts, and have it done."""

    def verb(given: Mapping[str, str], now: datetime) -> str:
        request_flatten(account_id=None, **given, now=now, actor=actor_of(request))
        return "Everything in all accounts is being left."

    question = f"{_FLATTEN} To confirm, type: {EVERYTHING}"
    return _ask(
        model_admin, request, title="Flatten everything", question=question, form_class=FlattenForm, account=None,
        verb=verb,
    )  # fmt: skip


def _ask(
    model_admin: Any,
    request: HttpRequest,
    *,
    title: str,
    question: str,
    form_class: type[forms.Form],
    account: Account | None,
    verb: Callable[[Mapping[str, str], datetime], str],
) -> HttpResponse:
    """Show what is asked; on a yes do the verb (answers, now) and tell what it says, or why it refused."""
    if account is None:
        back = reverse("admin:positions_account_changelist")
    else:
        back = reverse("admin:positions_account_change", args=[account.pk])
    form = form_class(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            messages.success(request, verb(form.cleaned_data, datetime.now(UTC)))
        except SwitchRefused as error:
            messages.error(request, f"Nothing was done: {error}")
        return redirect(back)
    context = {
        **page_context(model_admin, request, title=title),
        "figures": _figures(account),
        "form": form,
        "question": question,
        "back": back,
    }
    return render(request, "exitmgr/account.html", context)


def _figures(account: Account | None) -> list[tuple[str, str]]:
    held = Position.objects.exclude(status=PositionStatus.CLOSED)
    entering = Order.objects.filter(intent=Intent.ENTRY, state__in=LIVE)
    if account is None:
        said = shown_switch()
        why = f", {said.set_by}: {said.note}" if said.set_at else ""
        own = [("All accounts", f"{said.state}{why}")]
    else:
        held, entering = held.filter(account=account), entering.filter(account=account)
        own = [
            ("Account", str(account)), ("State", str(account.trading_state)), ("All accounts", str(overall_state()))
        ]  # fmt: skip
    return [*own, ("Open positions", str(held.count())), ("Entries on their way", str(entering.count()))]
